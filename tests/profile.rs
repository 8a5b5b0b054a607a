//! The heap profile: exact when every block is sampled, unbiased when few are, and readable by pprof.

use spandrel::observe::pprof::Figure;
use spandrel::observe::symbols::Symbols;
use spandrel::observe::{stack_names, symbols};
use spandrel::profile::{self, Place, Profile};
use std::hint::black_box;
use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// One test at a time: there is one profile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// The places whose innermost functions include this one.
fn of(profile: &Profile, function: &str) -> Vec<Place> {
    // Read once a thread, which takes a second.
    std::thread_local!(static SYMBOLS: Symbols = Symbols::new());
    let is_of = |place: &&Place| {
        let calls = SYMBOLS.with(|symbols| stack_names::calls(symbols, place.stack));
        let frames = calls.iter().take(3).flat_map(|call| call.frames.iter());
        frames.into_iter().any(|frame: &symbols::Frame| frame.function.ends_with(function))
    };
    profile.places.iter().filter(is_of).cloned().collect()
}

#[inline(never)]
fn keep_some(count: usize, size: usize) -> Vec<Vec<u8>> {
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        kept.push(black_box(vec![1u8; size]));
    }
    kept
}

#[inline(never)]
fn use_and_drop(count: usize, size: usize) {
    for _ in 0..count {
        let block = black_box(vec![1u8; size]);
        std::thread::sleep(Duration::from_micros(100));
        drop(block);
    }
}

#[test]
fn every_block_by_itself() {
    let _alone = alone();
    profile::start(1).unwrap();
    let kept = keep_some(100, 1000);
    let large = keep_some(2, 3 << 20);
    use_and_drop(50, 300);
    let now = profile::snapshot();
    assert_eq!((now.interval, now.dropped), (1, 0));
    let places = of(&now, "profile::keep_some");
    let blocks = |size: u64| {
        places.iter().filter(move |place| place.in_use.bytes == place.in_use.count * size)
    };
    assert_eq!(blocks(1000).map(|place| place.in_use.count).sum::<u64>(), 100, "{places:?}");
    assert_eq!(blocks(3 << 20).map(|place| place.in_use.count).sum::<u64>(), 2, "{places:?}");
    let dropped = of(&now, "profile::use_and_drop");
    let sum = dropped.iter().fold((0, 0, 0, 0, Duration::ZERO), |sum, place| {
        assert_eq!(place.in_use.count, 0);
        let allocated = place.allocated;
        (
            sum.0 + allocated.count,
            sum.1 + allocated.bytes,
            sum.2 + place.lifetimes.iter().map(|lived| lived.freed).sum::<u64>(),
            // None lives less than 100 microseconds.
            sum.3 + place.lifetimes[..2].iter().map(|lived| lived.freed).sum::<u64>(),
            sum.4 + place.lifetimes.iter().map(|lived| lived.lived).sum::<Duration>(),
        )
    });
    assert_eq!(sum.0, 50);
    assert_eq!((sum.1, sum.2, sum.3), (50 * 300, 50, 0));
    assert!(sum.4 >= 50 * Duration::from_micros(100));
    assert!(now.lifetimes().iter().map(|lived| lived.freed).sum::<u64>() >= 50);
    // Freed by another thread; and the peak stays.
    std::thread::spawn(move || drop((kept, large))).join().unwrap();
    let then = profile::snapshot();
    profile::stop();
    let places = of(&then, "profile::keep_some");
    assert!(places.iter().all(|place| place.in_use.count == 0), "{places:?}");
    let peak: u64 = places.iter().map(|place| place.peak.bytes).sum();
    assert!(peak >= (6 << 20) / 64 * 63, "{peak}");
}

#[test]
fn sums_are_unbiased() {
    const KIB: usize = 1 << 10;
    let _alone = alone();
    profile::start(64 * KIB).unwrap();
    // 128 MiB in small blocks, as much in middling and in large ones, on two threads each.
    let kept: Vec<Vec<Vec<u8>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = [64, 3000, 200 * KIB]
            .into_iter()
            .flat_map(|size| [size, size])
            .map(|size| scope.spawn(move || keep_some((64 << 20) / size, size)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let now = profile::snapshot();
    profile::stop();
    let places = of(&now, "profile::keep_some");
    let bytes: u64 = places.iter().map(|place| place.in_use.bytes).sum();
    let truth = kept.iter().flatten().map(|block| block.len() as u64).sum::<u64>();
    // Some 5,000 samples: the standard deviation is below 2 %; the vectors' own spines are seen too.
    assert!(bytes.abs_diff(truth + (20 << 20)) < truth / 5, "{bytes} {truth}");
    assert!((2000..20_000).contains(&now.samples) && now.dropped == 0, "{}", now.samples);
    drop(kept);
}

/// Objects that hardly leave the bins of their thread: what is met is decided there.
#[test]
fn sums_are_unbiased_in_the_bins() {
    const BYTES: usize = 96 << 20;
    let _alone = alone();
    // Of a whole class and of a part of one; one at a time, and up and down in the bin.
    for (size, together) in [(64, 1), (64, 40), (65, 40), (1000, 1), (5000, 10)] {
        profile::start(32 << 10).unwrap();
        for _ in 0..BYTES / size / together {
            drop(keep_some(together, size));
        }
        let places = of(&profile::snapshot(), "profile::keep_some");
        profile::stop();
        let ours = |place: &&Place| {
            place.allocated.bytes.abs_diff(place.allocated.count * size as u64)
                <= place.allocated.bytes / 50
        };
        let bytes: u64 = places.iter().filter(ours).map(|place| place.allocated.bytes).sum();
        let freed: u64 =
            places.iter().filter(ours).flat_map(|place| place.lifetimes).map(|l| l.freed).sum();
        let whole = (BYTES / size / together * together * size) as u64;
        // Some 3,000 samples: the standard deviation is below 2 %.
        assert!(bytes.abs_diff(whole) < whole / 8, "{size} {together}: {bytes} of {whole}");
        assert!((freed * size as u64).abs_diff(bytes) <= bytes / 20, "{size}: {freed} freed");
    }
}

#[test]
fn started_and_stopped() {
    let _alone = alone();
    let early = keep_some(100, 2000);
    profile::start(1).unwrap();
    assert!(profile::is_on());
    // What was there before is not seen, and freeing it takes nothing away.
    drop(early);
    assert!(of(&profile::snapshot(), "profile::keep_some").iter().all(|p| p.in_use.count == 0));
    let kept = keep_some(10, 2000);
    profile::stop();
    assert!(!profile::is_on());
    let after = keep_some(10, 2000);
    drop(kept);
    // As it was when it stopped.
    let places = of(&profile::snapshot(), "profile::keep_some");
    let count = |places: &[Place]| {
        let ours = |place: &&Place| place.in_use.bytes == place.in_use.count * 2000;
        places.iter().filter(ours).map(|place| place.in_use.count).sum::<u64>()
    };
    assert_eq!(count(&places), 10, "{places:?}");
    let duration = profile::snapshot().duration;
    assert_eq!(profile::snapshot().duration, duration);
    // Started anew, it has forgotten.
    profile::start(1).unwrap();
    assert_eq!(of(&profile::snapshot(), "profile::keep_some"), []);
    profile::stop();
    drop(after);
}

fn example() -> Profile {
    profile::start(1).unwrap();
    let kept = {
        let _scope = spandrel::tag("tenant-a").enter();
        keep_some(20, 5000)
    };
    let profile = profile::snapshot();
    profile::stop();
    drop(kept);
    profile
}

#[test]
fn a_flame_graph() {
    let _alone = alone();
    let profile = example();
    let mut svg = Vec::new();
    profile.flame_graph(Figure::InUse, &mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    assert!(svg.starts_with("<?xml") && svg.contains("<svg") && svg.contains("Heap in use"));
    assert!(svg.contains("profile::keep_some") && svg.contains("[tenant-a]"), "{svg}");
    let folded = profile.folded(Figure::Allocated);
    let line = folded.iter().find(|line| line.ends_with(" 100000")).unwrap();
    assert!(line.starts_with("[tenant-a];"), "{line}");
    let functions: Vec<&str> = line.rsplit_once(' ').unwrap().0.split(';').collect();
    // The allocator's own are left out.
    let passes_on = |f: &&str| f.contains("__rust_alloc") || f.contains("spandrel::front");
    assert!(!functions.iter().any(passes_on), "{line}");
    let empty = Profile { places: Vec::new(), ..profile };
    assert!(empty.flame_graph(Figure::Peak, Vec::new()).is_err());
}

/// Go's pprof, wherever Debian or Go put it.
fn pprof() -> Option<Command> {
    let tools =
        ["/usr/lib/go-1.19/pkg/tool/linux_amd64/pprof", "/usr/lib/go/pkg/tool/linux_amd64/pprof"];
    if let Some(tool) = tools.iter().find(|tool| std::path::Path::new(tool).exists()) {
        return Some(Command::new(tool));
    }
    let go = Command::new("go").args(["tool", "pprof", "-h"]).output().is_ok();
    go.then(|| {
        let mut command = Command::new("go");
        command.args(["tool", "pprof"]);
        command
    })
}

#[test]
fn the_pprof_tool_reads_it() {
    let _alone = alone();
    let Some(_) = pprof() else {
        // The messages are decoded by a protobuf library in the unit tests all the same.
        assert!(std::env::var_os("SPANDREL_NEEDS_PPROF").is_none(), "there is no pprof here");
        return;
    };
    let bytes = example().pprof();
    let path = std::env::temp_dir().join(format!("spandrel-{}.pb.gz", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    let ask = |arguments: &[&str]| {
        let output = pprof().unwrap().args(arguments).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let top = ask(&["-top", "-unit=B"]);
    assert!(top.contains("Type: inuse_space"), "{top}");
    let line = top
        .lines()
        .find(|line| line.contains("profile::keep_some"))
        .unwrap_or_else(|| panic!("{top}"));
    let cumulative = line.split_whitespace().nth(3).unwrap();
    let bytes: f64 = cumulative.trim_end_matches('B').parse().unwrap();
    assert!((100_000.0..101_000.0).contains(&bytes), "{top}");
    let traces = ask(&["-traces", "-sample_index=alloc_objects"]);
    let labelled = traces.lines().any(|line| line.split_whitespace().eq(["tag:", "tenant-a"]));
    assert!(labelled, "{traces}");
    let focused = ask(&["-top", "-tagfocus=tenant-a", "-unit=B", "-sample_index=peak_space"]);
    assert!(focused.contains("profile::keep_some"), "{focused}");
    let listed = ask(&["-raw"]);
    for kind in ["inuse_space/bytes", "lifetime/nanoseconds", "freed_objects/count"] {
        assert!(listed.contains(kind), "{listed}");
    }
    std::fs::remove_file(&path).unwrap();
}
