//! Pages, huge pages, overcommit, restartable sequences.

use super::Finding;
use crate::options::{Decay, HugepagePolicy, Options};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What the allocator's page heap meets, and does with these options. `root` is `/`, or a directory that stands
/// for it.
pub fn findings(root: &Path, options: &Options) -> Vec<Finding> {
    let mut findings = vec![page_size(sysconf(libc::_SC_PAGESIZE))];
    findings.extend(hugepages(root, options.hugepages));
    findings.push(overcommit(root));
    findings.push(memory(root, options.decay));
    findings.push(rseq());
    findings
}

fn sysconf(name: libc::c_int) -> u64 {
    // SAFETY: a query of a number by its name.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

fn page_size(bytes: u64) -> Finding {
    let value = format!("{} KiB", bytes / 1024);
    match bytes {
        4096 => {
            Finding::new("page size", value, "read at run time; 8 pages are a granule of 32 KiB")
        }
        // Smaller runs of granules share a page; whole hugepages of 2 MiB go back as elsewhere.
        8192..=65536 => {
            Finding::new("page size", value, "read at run time; tested on a fake system only")
        }
        _ => Finding::new("page size", value, "not between 4 and 64 KiB: not supported").bad(),
    }
}

/// The chosen word of a file like `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(word, _)| word)
}

fn hugepages(root: &Path, policy: Option<HugepagePolicy>) -> Vec<Finding> {
    let directory = root.join("sys/kernel/mm/transparent_hugepage");
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let enabled = read("enabled");
    let Some(mode) = chosen(&enabled) else {
        return vec![Finding::new("huge pages", "not in this kernel", "small pages everywhere")];
    };
    let meaning = match mode {
        "always" => "the kernel gives them unasked, to small processes too, whose RSS they raise",
        "madvise" => match policy {
            None | Some(HugepagePolicy::Auto) => {
                "asked for once 4 MiB of the heap have memory behind them; smaller heaps get none"
            }
            Some(HugepagePolicy::Always) => "asked for from the first byte on: hugepages=always",
            Some(HugepagePolicy::Never) => "not asked for: hugepages=never",
        },
        _ => "never given; large heaps pay more for address translation",
    };
    let mut findings = vec![Finding::new("huge pages", mode, meaning)];
    let size = read("hpage_pmd_size").trim().parse::<u64>().unwrap_or(0);
    if size != 0 && size != 2 << 20 {
        findings.push(Finding::new(
            "huge page size",
            format!("{} MiB", size >> 20),
            "Spandrel counts in 2 MiB, so the kernel gives a huge page only to larger runs",
        ));
    }
    let defrag = read("defrag");
    if let Some(defrag) = chosen(&defrag) {
        let unasked = mode == "always" && defrag == "always";
        let meaning = match (mode, defrag) {
            ("never", _) => "of no account where no huge page is given",
            _ if policy == Some(HugepagePolicy::Never) && !unasked => {
                "no fault waits for a huge page: hugepages=never"
            }
            (_, "always" | "madvise" | "defer+madvise") => {
                "a fault in a large heap may stop to compact memory and then gets a huge page"
            }
            _ => "a fault takes a huge page only where one is free already",
        };
        findings.push(Finding::new("huge page defrag", defrag, meaning));
    }
    findings
}

fn overcommit(root: &Path) -> Finding {
    let directory = root.join("proc/sys/vm");
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    match read("overcommit_memory").trim() {
        "0" => Finding::new(
            "overcommit",
            "0 (heuristic)",
            "windows of 1 GiB are reserved at once and cost nothing until they are touched",
        ),
        "1" => Finding::new(
            "overcommit",
            "1 (always)",
            "windows of 1 GiB are reserved at once; a request fails only for want of addresses",
        ),
        "2" => Finding::new(
            "overcommit",
            format!("2 (strict, {}% of memory)", read("overcommit_ratio").trim()),
            "every mapped byte counts: where 1 GiB is refused, windows grow from 4 MiB and double",
        ),
        _ => Finding::new("overcommit", "unknown", "as if heuristic"),
    }
}

/// A line `Name:   123 kB` of meminfo, in MiB.
fn line(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}

fn memory(root: &Path, decay: Option<Decay>) -> Finding {
    let text = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let (Some(total), Some(available)) = (line(&text, "MemTotal"), line(&text, "MemAvailable"))
    else {
        return Finding::new("memory", "unknown", "");
    };
    let swap = line(&text, "SwapTotal").unwrap_or(0);
    Finding::new(
        "memory",
        format!("{available} of {total} MiB available, {swap} MiB swap"),
        goes_back(decay),
    )
}

/// When free memory is returned.
fn goes_back(decay: Option<Decay>) -> String {
    let decay = decay.unwrap_or(Decay::Within(Duration::from_secs(10)));
    match decay {
        Decay::Never => {
            "freed memory goes back when a limit or a purge wants it: decay=never".into()
        }
        Decay::Within(Duration::ZERO) => "freed hugepages go back at once: decay=0".into(),
        // A tenth of it passes before the first goes.
        Decay::Within(all) => format!(
            "freed hugepages go back from {} after the free, along {}",
            shortly(all / 10),
            shortly(all)
        ),
    }
}

/// A time in the unit that suits it.
fn shortly(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{} s", ms as f64 / 1e3),
        _ => format!("{} min", (ms as f64 / 600.0).round() / 100.0),
    }
}

fn rseq() -> Finding {
    // The auxiliary vector's entry for the size of the kernel's rseq area.
    const AT_RSEQ_FEATURE_SIZE: libc::c_ulong = 27;
    // SAFETY: a query of a number by its name; 0 where there is none.
    let kernel = unsafe { libc::getauxval(AT_RSEQ_FEATURE_SIZE) };
    // SAFETY: a name that ends in a zero byte. glibc 2.35 defines it; its value is 0 unless glibc
    // registered the area.
    let size = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()) };
    // SAFETY: not null, so glibc's constant of this type.
    let registered = !size.is_null() && unsafe { *size.cast::<libc::c_uint>() } != 0;
    let value = match (kernel, registered) {
        (0, false) => "not known to be there".to_owned(),
        (0, true) => "registered by the C library".to_owned(),
        (bytes, true) => format!("{bytes} bytes, registered by the C library"),
        (bytes, false) => format!("{bytes} bytes, not registered"),
    };
    Finding::new("rseq", value, "not used: caches belong to threads, so no sequence need restart")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn huge_pages_in_every_mode() {
        let modes = [
            ("[always] madvise never", "always", "the kernel gives them unasked"),
            ("always [madvise] never", "madvise", "asked for once 4 MiB of the heap"),
            ("always madvise [never]", "never", "never given"),
        ];
        for (text, mode, meaning) in modes {
            let root = machine(&[("sys/kernel/mm/transparent_hugepage/enabled", text)]);
            let findings = hugepages(root.path(), None);
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].value, mode);
            assert!(findings[0].meaning.starts_with(meaning), "{}", findings[0].meaning);
        }
        let none = hugepages(machine(&[]).path(), None);
        assert_eq!(none[0].value, "not in this kernel");
        let asks = [("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")];
        let meaning = |policy| hugepages(machine(&asks).path(), Some(policy)).remove(0).meaning;
        assert!(meaning(HugepagePolicy::Auto).starts_with("asked for once 4 MiB"));
        assert!(meaning(HugepagePolicy::Always).starts_with("asked for from the first byte"));
        assert_eq!(meaning(HugepagePolicy::Never), "not asked for: hugepages=never");
    }

    #[test]
    fn other_huge_page_sizes_are_said() {
        let root = machine(&[
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
            ("sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "33554432\n"),
            ("sys/kernel/mm/transparent_hugepage/defrag", "always defer [never]"),
        ]);
        let values: Vec<_> = hugepages(root.path(), None).into_iter().map(|f| f.value).collect();
        assert_eq!(values, ["always", "32 MiB", "never"]);
    }

    #[test]
    fn compaction_is_for_who_asks() {
        let meaning = |enabled, defrag, policy| {
            let root = machine(&[
                ("sys/kernel/mm/transparent_hugepage/enabled", enabled),
                ("sys/kernel/mm/transparent_hugepage/defrag", defrag),
            ]);
            hugepages(root.path(), policy).remove(1).meaning
        };
        let (asked, always) = ("always [madvise] never", "[always] madvise never");
        let never = Some(HugepagePolicy::Never);
        assert!(meaning(asked, "[madvise]", None).starts_with("a fault in a large heap"));
        assert!(meaning(asked, "[madvise]", never).starts_with("no fault waits"));
        assert!(meaning(always, "[always]", never).starts_with("a fault in a large heap"));
        assert!(meaning("always [never]", "[madvise]", None).starts_with("of no account"));
    }

    #[test]
    fn overcommit_in_every_mode() {
        let with = |mode| {
            let files =
                [("proc/sys/vm/overcommit_memory", mode), ("proc/sys/vm/overcommit_ratio", "50\n")];
            overcommit(machine(&files).path())
        };
        assert_eq!(with("0\n").value, "0 (heuristic)");
        assert_eq!(with("1\n").value, "1 (always)");
        assert_eq!(with("2\n").value, "2 (strict, 50% of memory)");
        assert!(with("2\n").meaning.contains("4 MiB"));
        assert_eq!(overcommit(machine(&[]).path()).value, "unknown");
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        let text =
            "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\nSwapTotal: 0 kB\n";
        let root = machine(&[("proc/meminfo", text)]);
        let memory = |decay| memory(root.path(), decay);
        assert_eq!(memory(None).value, "1 of 2 MiB available, 0 MiB swap");
        let meaning = |decay| memory(Some(decay)).meaning;
        let within = |ms| meaning(Decay::Within(Duration::from_millis(ms)));
        assert_eq!(memory(None).meaning, within(10_000));
        assert!(within(10_000).ends_with("from 1 s after the free, along 10 s"));
        assert!(within(500).ends_with("from 50 ms after the free, along 500 ms"));
        assert!(within(3_600_000).ends_with("from 6 min after the free, along 60 min"));
        assert!(within(0).ends_with("at once: decay=0"));
        assert!(meaning(Decay::Never).ends_with("wants it: decay=never"));
    }

    #[test]
    fn page_sizes_out_of_range_are_bad() {
        assert!(!page_size(4096).bad);
        assert!(!page_size(65536).bad);
        assert!(page_size(1 << 20).bad);
    }
}
