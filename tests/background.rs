//! The background thread: memory goes back while nobody allocates, the thread sleeps when there is
//! nothing to do, stops when told, and is there again in a child of fork. In children of their own.
//! Nothing here asserts how fast; what must happen has a minute to happen.

mod common;

use common::{Block, MIB, child, resident};
use spandrel::{Limit, Limits, Options, background};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// Waits until `holds` does.
#[track_caller]
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen in a minute");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The background thread's directory in /proc.
fn task() -> Option<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has it");
    tasks.flatten().map(|task| task.path().display().to_string()).find(|task| {
        fs::read_to_string(format!("{task}/comm")).is_ok_and(|name| name.trim() == "spandrel")
    })
}

/// How often it went to sleep so far.
fn sleeps() -> u64 {
    let status = fs::read_to_string(format!("{}/status", task().expect("it runs")));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

/// 200 MB, touched and freed.
fn burst() {
    drop((0..2000).map(|i| Block::must(100_000, 8, i)).collect::<Vec<_>>());
}

#[test]
fn an_idle_process_gives_its_memory_back_and_then_the_thread_sleeps() {
    const NAME: &str = "an_idle_process_gives_its_memory_back_and_then_the_thread_sleeps";
    if !child::is(NAME) {
        child::passes_with(NAME, "decay=500ms");
        return;
    }
    background::start().expect("a thread");
    background::start().expect("once more does no harm");
    soon("its start", || task().is_some());
    let before = resident();
    for _ in 0..2 {
        burst();
        assert!(
            spandrel::stats().floors.page.backed > 100 * MIB || resident() < before + 100 * MIB
        );
        // `resident` itself allocates, little: what matters is that this thread does nothing else.
        soon("giving memory back", || resident() < before + 20 * MIB);
        soon("falling asleep", || {
            let then = sleeps();
            thread::sleep(Duration::from_secs(1));
            sleeps() == then
        });
    }
    assert!(background::is_running() && background::stop());
    assert!(!background::stop() && !background::is_running());
    // Joined, but the system may list it for a moment.
    soon("its end", || task().is_none());
    background::start().expect("again");
    soon("its start", || task().is_some());
}

#[test]
fn the_environment_starts_it_and_a_child_of_fork_has_its_own() {
    const NAME: &str = "the_environment_starts_it_and_a_child_of_fork_has_its_own";
    if !child::is(NAME) {
        child::passes_with(NAME, "background=on,decay=100ms");
        return;
    }
    burst();
    burst();
    soon("the start", || {
        burst();
        task().is_some()
    });
    // SAFETY: the child uses the allocator, /proc and _exit; the other threads of this process wait.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let alone = !background::is_running();
        let fine = (0..1000).any(|_| {
            burst();
            thread::sleep(Duration::from_millis(20));
            background::is_running() && task().is_some()
        });
        let gone = (0..3000).any(|_| {
            thread::sleep(Duration::from_millis(20));
            resident() < 60 * MIB
        });
        let stopped = background::stop();
        // SAFETY: ends this process and runs nothing of the parent's.
        unsafe { libc::_exit(i32::from(!(alone && fine && gone && stopped))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child's wait status");
    assert!(background::is_running());
}

static CALLS: AtomicU64 = AtomicU64::new(0);

fn pressed(limits: &Limits) {
    // Allocating is allowed here, and so is a panic.
    let text = format!("{limits:?}");
    assert!(!text.is_empty() && limits.crossings > 0 && limits.soft == Some(64 * MIB));
    if CALLS.fetch_add(1, Relaxed) == 0 {
        panic!("a function that panics is called again all the same");
    }
}

#[test]
fn crossing_the_soft_limit_calls_back_outside_the_allocator() {
    const NAME: &str = "crossing_the_soft_limit_calls_back_outside_the_allocator";
    if !child::is(NAME) {
        child::passes_with(NAME, "soft=64MiB");
        return;
    }
    background::on_pressure(pressed).expect("a thread");
    burst();
    assert_eq!(spandrel::limits().soft, Some(64 * MIB));
    for round in 1..=2 {
        let held: Vec<_> = (0..1000).map(|i| Block::must(100_000, 8, i)).collect();
        soon("the call", || CALLS.load(Relaxed) >= round);
        drop(held);
        spandrel::purge();
        // The next crossing counts when the heap has been well below the limit.
        soon("relief", || !spandrel::front::building::pages().pressed());
    }
}

/// What cannot be had within the limit is refused, by Rust's own fallible calls too, and all is well
/// afterwards.
#[test]
fn the_hard_limit_fails_the_request_and_not_the_process() {
    const NAME: &str = "the_hard_limit_fails_the_request_and_not_the_process";
    if !child::is(NAME) {
        child::passes_with(NAME, "limit=100MiB");
        return;
    }
    assert!(Vec::<u8>::new().try_reserve_exact(101 * MIB).is_err());
    assert!(Vec::<u8>::new().try_reserve_exact(300 * MIB).is_err(), "a mapping of its own");
    let mut held = Vec::with_capacity(1000);
    while held.len() < 1000 {
        let mut block = Vec::<u8>::new();
        if block.try_reserve_exact(MIB).is_err() {
            break;
        }
        block.resize(MIB, 1);
        held.push(block);
    }
    assert!((90..=100).contains(&held.len()), "{} MiB in 100 MiB", held.len());
    assert!(resident() < 120 * MIB, "{} resident", resident());
    // Small ones fail as well, without an abort, and what was freed serves them.
    held.truncate(50);
    let small: Vec<_> = (0..300_000).map(Box::new).collect();
    assert!(small.iter().enumerate().all(|(i, n)| **n == i));
    spandrel::configure(&Options::new().limit(Limit::None));
    assert_eq!(spandrel::limits().hard, Some(100 * MIB), "the environment's word stands");
    assert!(spandrel::limits().refusals >= 3);
}
