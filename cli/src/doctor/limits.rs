//! Limits on address space, memory and mappings: of the process, of the system, of the control group.

use super::Finding;
use std::fs;
use std::path::{Path, PathBuf};

/// All limits that can make a request fail. `root` is `/`, or a directory that stands for it.
pub fn findings(root: &Path) -> Vec<Finding> {
    let mut findings = vec![
        address_space(rlimit(libc::RLIMIT_AS)),
        data(rlimit(libc::RLIMIT_DATA)),
        mappings(root),
    ];
    findings.extend(control_group(root));
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
            "one mapping for 1 GiB of heap, and one for each block above 128 MiB",
        ),
        Err(_) => Finding::new(NAME, "unknown", ""),
    }
}

/// The smallest limits on the way from this process's group to the top.
fn control_group(root: &Path) -> Vec<Finding> {
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
    let meanings = [
        (
            "memory.max",
            "above it the kernel kills; SPANDREL=limit=90% has requests fail before that",
        ),
        (
            "memory.high",
            "above it the kernel slows the group down; SPANDREL=soft=... returns memory before",
        ),
        ("memory.swap.max", "beyond memory.max"),
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
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/cgroup"), path).unwrap();
        for (name, text) in limits {
            let file = root.path().join("sys/fs/cgroup").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        control_group(root.path())
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
