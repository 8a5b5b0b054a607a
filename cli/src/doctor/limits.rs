//! Limits on address space, memory and mappings: of the process, of the system, of the control group.

use super::Finding;
use crate::options::{Limit, Options};
use std::fs;
use std::path::{Path, PathBuf};

/// All limits that can make a request fail, and what these options make of them. `root` is `/`, or a directory that stands for it.
pub fn findings(root: &Path, options: &Options) -> Vec<Finding> {
    let mut findings = vec![
        address_space(rlimit(libc::RLIMIT_AS)),
        data(rlimit(libc::RLIMIT_DATA)),
        mappings(root),
    ];
    findings.extend(control_group(root, options));
    findings
}

/// A soft limit in bytes; none when there is none.
fn rlimit(which: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct to fill.
    let known = unsafe { libc::getrlimit(which, &mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn address_space(limit: Option<u64>) -> Finding {
    const NAME: &str = "ulimit -v (RLIMIT_AS)";
    match limit {
        None => Finding::new(NAME, "none", "whole windows of 1 GiB"),
        // A window needs room for its alignment, too.
        Some(bytes) if bytes >= 4 << 30 => Finding::new(
            NAME,
            mebibytes(bytes),
            "whole windows of 1 GiB while they fit, then steps from 4 MiB that double",
        ),
        Some(bytes) => Finding::new(
            NAME,
            mebibytes(bytes),
            "windows may not fit: address space in steps from 4 MiB that double",
        ),
    }
}

fn data(limit: Option<u64>) -> Finding {
    const NAME: &str = "ulimit -d (RLIMIT_DATA)";
    match limit {
        None => Finding::new(NAME, "none", "no limit on private memory"),
        Some(bytes) => Finding::new(
            NAME,
            mebibytes(bytes),
            "counts every private mapping, touched or not: address space in steps from 4 MiB",
        ),
    }
}

fn mappings(root: &Path) -> Finding {
    const NAME: &str = "vm.max_map_count";
    let text = fs::read_to_string(root.join("proc/sys/vm/max_map_count")).unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(count) => Finding::new(
            NAME,
            count.to_string(),
            "1 GiB of heap takes a few dozen, at most 513; each block above 128 MiB takes one",
        ),
        Err(_) => Finding::new(NAME, "unknown", ""),
    }
}

/// The smallest limits on the way from this process's group to the top.
fn control_group(root: &Path, options: &Options) -> Vec<Finding> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // Version 2 is the line of hierarchy 0 without controllers.
    let Some(group) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        return vec![Finding::new("cgroup", "no version 2 group", "no limit is read from it")];
    };
    let top = root.join("sys/fs/cgroup");
    let own = top.join(group.trim_start_matches('/'));
    // In a container the group's path is the host's, and its own files are at the top.
    let own = if own.exists() { own } else { top.clone() };
    let mut findings = Vec::new();
    let hard = match own_limit(options.limit) {
        Some(limit) => format!("above it the kernel kills; requests fail from {limit} on: limit"),
        None => {
            "above it the kernel kills; SPANDREL=limit=90% has requests fail before that".into()
        }
    };
    let soft = match own_limit(options.soft) {
        Some(limit) => {
            format!(
                "above it the kernel slows the group down; memory goes back from {limit} on: soft"
            )
        }
        None => "above it the kernel slows the group down; SPANDREL=soft=... returns memory before"
            .into(),
    };
    let meanings = [
        ("memory.max", hard),
        ("memory.high", soft),
        ("memory.swap.max", "beyond memory.max".to_owned()),
    ];
    for (name, meaning) in meanings {
        if let Some((bytes, directory)) = smallest(&own, &top, name) {
            let shown = directory.strip_prefix(&top).unwrap_or(&directory).display().to_string();
            let value = format!("{} (group /{shown})", mebibytes(bytes));
            findings.push(Finding::new(
                match name {
                    "memory.max" => "cgroup memory.max",
                    "memory.high" => "cgroup memory.high",
                    _ => "cgroup memory.swap.max",
                },
                value,
                meaning,
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::new("cgroup", group, "sets no limit on memory"));
    }
    findings
}

/// A limit that an option sets, in words.
fn own_limit(limit: Option<Limit>) -> Option<String> {
    match limit? {
        Limit::None => None,
        Limit::Bytes(bytes) => Some(mebibytes(bytes as u64)),
        Limit::CgroupShare(share) => Some(format!("{share} % of memory.max")),
    }
}

fn smallest(own: &Path, top: &Path, name: &str) -> Option<(u64, PathBuf)> {
    own.ancestors()
        .take_while(|directory| directory.starts_with(top))
        .filter_map(|directory| {
            let text = fs::read_to_string(directory.join(name)).ok()?;
            Some((text.trim().parse().ok()?, directory.to_owned()))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(path: &str, limits: &[(&str, &str)]) -> Vec<Finding> {
        group_with(path, limits, Options::new())
    }

    fn group_with(path: &str, limits: &[(&str, &str)], options: Options) -> Vec<Finding> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/cgroup"), path).unwrap();
        for (name, text) in limits {
            let file = root.path().join("sys/fs/cgroup").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        control_group(root.path(), &options)
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let limits = [
            ("a/b/memory.max", "max\n"),
            ("a/memory.max", "134217728\n"),
            ("memory.max", "1073741824\n"),
            ("a/b/memory.high", "67108864\n"),
        ];
        let findings = group("1:cpu:/x\n0::/a/b\n", &limits);
        let values: Vec<_> = findings.iter().map(|f| (f.name, f.value.as_str())).collect();
        assert_eq!(
            values,
            [
                ("cgroup memory.max", "128 MiB (group /a)"),
                ("cgroup memory.high", "64 MiB (group /a/b)")
            ]
        );
    }

    #[test]
    fn limits_of_the_options_are_said() {
        let limits = [("memory.max", "268435456\n"), ("memory.high", "134217728\n")];
        let meanings = |options| {
            let findings = group_with("0::/\n", &limits, options);
            findings.into_iter().map(|finding| finding.meaning).collect::<Vec<_>>()
        };
        let none = meanings(Options::new().limit(Limit::None));
        assert!(none[0].contains("SPANDREL=limit=90%") && none[1].contains("SPANDREL=soft="));
        let set = Options::new().limit(Limit::CgroupShare(80)).soft_limit(Limit::Bytes(64 << 20));
        let set = meanings(set);
        assert!(set[0].ends_with("requests fail from 80 % of memory.max on: limit"), "{set:?}");
        assert!(set[1].ends_with("memory goes back from 64 MiB on: soft"), "{set:?}");
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        let findings = group("0::/host/path\n", &[("memory.max", "268435456\n")]);
        assert_eq!(findings[0].value, "256 MiB (group /)");
    }

    #[test]
    fn no_group_and_no_limit_are_told_apart() {
        assert_eq!(group("4:memory:/x\n", &[])[0].value, "no version 2 group");
        let free = group("0::/\n", &[("memory.max", "max\n")]);
        assert_eq!(
            (free[0].value.as_str(), free[0].meaning.as_str()),
            ("/", "sets no limit on memory")
        );
    }

    #[test]
    fn limits_on_addresses() {
        assert_eq!(address_space(None).value, "none");
        assert!(address_space(Some(8 << 30)).meaning.starts_with("whole windows"));
        assert!(address_space(Some(1 << 30)).meaning.starts_with("windows may not fit"));
        assert_eq!(data(Some(512 << 20)).value, "512 MiB");
    }
}
