//! The map of the heap: by call, at exit, at a signal, at an interval; whose file it is; and that it says
//! what the snapshot says.

mod common;

use common::child;
use spandrel::Spandrel;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[global_allocator]
static A: Spandrel = Spandrel;

fn file(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

/// The number behind `"key":` in a line.
fn number(line: &str, key: &str) -> usize {
    let at = line.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {line}"));
    let digits = &line[at + key.len() + 3..];
    digits[..digits.find(|digit: char| !digit.is_ascii_digit()).unwrap()].parse().unwrap()
}

fn snapshots(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("{\"snapshot\":")).count()
}

#[test]
fn a_map_says_what_the_snapshot_says() {
    const NAME: &str = "a_map_says_what_the_snapshot_says";
    if !child::is(NAME) {
        child::passes(NAME, &[]);
        return;
    }
    // One thread, so that nothing moves; enough of everything.
    let small: Vec<Vec<u8>> = (0..20_000).map(|i| vec![1; 10 + i % 900]).collect();
    let large = vec![1u8; 5 << 20];
    let own = vec![1u8; 200 << 20];
    let half: Vec<_> = small.into_iter().enumerate().filter(|(i, _)| i % 2 == 0).collect();
    let path = file("call");
    let stats = spandrel::stats();
    spandrel::write_map(&path).unwrap();
    spandrel::write_map(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(snapshots(&text), 2);
    assert!(text.starts_with("{\"spandrel\":\"map\",\"version\":1,\"pid\":"));
    let first: Vec<&str> =
        text.lines().skip(1).take_while(|line| !line.starts_with("{\"end\":1,")).collect();
    let sum = first[0];
    // Two calls of `write_map` later; the path's own bytes were the only allocation, and are gone.
    for (key, bytes) in
        [("mapped", stats.mapped), ("live", stats.live), ("live_large", stats.live_large)]
    {
        assert_eq!(number(sum, key), bytes, "{key}");
    }
    let parts = [
        "live",
        "cached",
        "in_transfer",
        "free_in_spans",
        "free_granules",
        "returned",
        "metadata",
        "stranded",
    ];
    let total: usize = parts.iter().map(|part| number(sum, part)).sum();
    assert_eq!(total, stats.mapped);
    // What the spans and blocks of all hugepages hold is what is alive.
    let sizes: Vec<usize> = text
        .lines()
        .next()
        .unwrap()
        .split_once("\"classes\":[[")
        .unwrap()
        .1
        .trim_end_matches("]]}")
        .split("],[")
        .map(|class| class.split(',').next().unwrap().parse().unwrap())
        .collect();
    let (mut live, mut cached, mut waiting) = (0, 0, 0);
    for line in first.iter().filter(|line| line.contains("\"spans\":[[")) {
        let spans = line.split_once("\"spans\":[[").unwrap().1.split_once("]]").unwrap().0;
        for span in spans.split("],[") {
            let fields: Vec<usize> = span.split(',').map(|field| field.parse().unwrap()).collect();
            let size = sizes[fields[1]];
            live += (fields[2] - fields[3] - fields[4]) * size;
            cached += fields[3] * size;
            waiting += fields[4] * size;
        }
    }
    for line in first.iter().filter(|line| line.contains("\"blocks\":[[")) {
        let blocks = line.split_once("\"blocks\":[[").unwrap().1.split_once("]]").unwrap().0;
        for block in blocks.split("],[") {
            live += block.split_once(',').unwrap().1.parse::<usize>().unwrap() * 32768;
        }
    }
    let mapping = first.iter().find(|line| line.starts_with("{\"mapping\":")).unwrap();
    assert_eq!(number(mapping, "mapping"), own.as_ptr().addr());
    live += number(mapping, "bytes");
    assert_eq!(live, number(sum, "live"));
    assert_eq!((cached, waiting), (number(sum, "cached"), number(sum, "in_transfer")));
    drop((large, own, half));
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let error = spandrel::write_map("/no/such/directory/x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let error = spandrel::write_map("x".repeat(5000)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    assert_eq!(spandrel::write_map("/dev/full").unwrap_err().raw_os_error(), Some(libc::EIO));
}

#[test]
fn at_exit_at_a_signal_and_in_between() {
    const NAME: &str = "at_exit_at_a_signal_and_in_between";
    if child::is(NAME) {
        // SAFETY: a signal to this thread.
        unsafe { libc::raise(libc::SIGUSR2) };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            // Large blocks take the slow way.
            drop(std::hint::black_box(vec![0u8; 100_000]));
        }
        return;
    }
    let path = file("named");
    child::passes_with(NAME, &format!("map={}, map-every=5ms, map-sites=all", path.display()));
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    // The signal's, the end's, and at least one in between.
    assert!(snapshots(&text) >= 3, "{}", snapshots(&text));
    let ends = text.lines().filter(|line| line.starts_with("{\"end\":")).count();
    assert_eq!(ends, snapshots(&text), "each is whole");
    // Who holds what, and what the numbers mean.
    for what in ["\"sites\":[[", "{\"stack\":", "\"frames\":[", "{\"maps\":\""] {
        assert!(text.contains(what), "{what}");
    }
}

#[test]
fn a_child_leaves_its_parents_file_alone() {
    const NAME: &str = "a_child_leaves_its_parents_file_alone";
    if child::is(NAME) {
        // SAFETY: the child allocates and exits, as a child of fork may on this allocator.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(std::hint::black_box(vec![0u8; 100_000]));
            // SAFETY: runs what is left to run, the map included.
            unsafe { libc::exit(0) };
        }
        let mut status = 0;
        // SAFETY: a place to write to.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        return;
    }
    let path = file("parent");
    child::passes_with(NAME, &format!("map={}", path.display()));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(snapshots(&text), 1);
    let start = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let others: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start))
        .collect();
    assert_eq!(others.len(), 1, "{others:?}");
    let child = fs::read_to_string(&others[0]).unwrap();
    assert_eq!(snapshots(&child), 1);
    let end = others[0].extension().unwrap().to_str().unwrap().to_owned();
    assert_eq!(number(&child, "pid").to_string(), end);
    fs::remove_file(&path).unwrap();
    fs::remove_file(&others[0]).unwrap();
}

/// A program's own use of the signal stays.
#[test]
fn a_signal_that_is_taken_is_left_alone() {
    const NAME: &str = "a_signal_that_is_taken_is_left_alone";
    if child::is(NAME) {
        // SAFETY: all zeros is a value of this plain struct, and a struct to fill.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGUSR2, std::ptr::null(), &mut action);
            action.sa_sigaction
        };
        assert_eq!(action, libc::SIG_IGN);
        return;
    }
    let path = file("ignored");
    // SAFETY: a disposition that children inherit.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    child::passes_with(NAME, &format!("map={}", path.display()));
    // SAFETY: as it was.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_DFL) };
    fs::remove_file(&path).unwrap();
}
