//! The recorder in a Rust program: every call of threads that have ended and of one that has not, and a
//! child of fork.

mod common;

use common::child;
use spandrel::Spandrel;
use spandrel::watch::trace::format::{self, Before, CHUNK_HEAD, FRAMES_MOST, Record};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

#[global_allocator]
static A: Spandrel = Spandrel;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Frees and allocations of so many bytes, of each thread; and how many records were lost.
fn counts(path: &Path, size: u64) -> (HashMap<u32, (usize, usize)>, u32) {
    let bytes = fs::read(path).unwrap();
    let sealed =
        |at: usize| format::unseal(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
    let unit = word(&bytes, 12) as usize;
    assert_eq!(sealed(format::CLAIMED_AT).unwrap() as usize * unit, bytes.len());
    let mut counts: HashMap<u32, (usize, usize)> = HashMap::new();
    let mut blocks = Vec::new();
    let mut frees: Vec<(u64, u32)> = Vec::new();
    let mut at = unit;
    while at < bytes.len() {
        assert_eq!(word(&bytes, at), format::CHUNK);
        let (kind, thread, units) =
            (word(&bytes, at + 4), word(&bytes, at + 8), word(&bytes, at + 16));
        let used = sealed(at + format::USED_AT).unwrap() as usize;
        let time = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap());
        let (mut body, mut before) = (&bytes[at + CHUNK_HEAD..at + used], Before { time, at: 0 });
        let mut frames = [0; FRAMES_MOST];
        while kind == 1 && !body.is_empty() {
            let (record, length) = format::decode(body, &mut before, &mut frames).unwrap();
            match record {
                Record::Alloc { at, size: asked, .. } if asked == size => {
                    blocks.push(at);
                    counts.entry(thread).or_default().0 += 1;
                }
                Record::Free { at, .. } => frees.push((at, thread)),
                _ => {}
            }
            body = &body[length..];
        }
        at += units as usize * unit;
    }
    for (at, thread) in frees {
        if let Some(index) = blocks.iter().position(|&block| block == at) {
            blocks.swap_remove(index);
            counts.entry(thread).or_default().1 += 1;
        }
    }
    (counts, sealed(format::LOST_AT).unwrap())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.trace", std::process::id()))
}

/// No other request has this size.
const ODD: usize = 4321;

#[test]
fn nothing_is_missing_of_threads_that_ended_and_that_run() {
    const NAME: &str = "nothing_is_missing_of_threads_that_ended_and_that_run";
    if child::is(NAME) {
        let work = |count: usize| {
            for _ in 0..count {
                drop(std::hint::black_box(vec![1u8; ODD]));
            }
        };
        let threads: Vec<_> = (1..=4).map(|i| std::thread::spawn(move || work(1000 * i))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (tell, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            work(500);
            tell.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        done.recv().unwrap();
        return;
    }
    let path = file("threads");
    child::passes_with(NAME, &format!("trace={}", path.display()));
    let (counts, lost) = counts(&path, ODD as u64);
    let mut each: Vec<_> = counts.into_values().collect();
    each.sort_unstable();
    assert_eq!(each, [(500, 500), (1000, 1000), (2000, 2000), (3000, 3000), (4000, 4000)]);
    assert_eq!(lost, 0);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_child_records_in_a_file_of_its_own() {
    const NAME: &str = "a_child_records_in_a_file_of_its_own";
    if child::is(NAME) {
        let mine = vec![1u8; ODD];
        // SAFETY: the child allocates and leaves, as a child of fork may on this allocator.
        let child = unsafe { libc::fork() };
        if child == 0 {
            for _ in 0..7 {
                drop(std::hint::black_box(vec![1u8; ODD]));
            }
            // SAFETY: without anything that is left to run: what was recorded is in the file.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: a place to write to.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        drop(mine);
        return;
    }
    let path = file("child");
    child::passes_with(NAME, &format!("trace={}", path.display()));
    let sum = |path: &Path| {
        let (counts, lost) = counts(path, ODD as u64);
        assert_eq!(lost, 0);
        counts.into_values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    assert_eq!(sum(&path), (1, 1));
    let start = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let own: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start))
        .collect();
    assert_eq!(own.len(), 1);
    assert_eq!(sum(&own[0]), (7, 7));
    fs::remove_file(path).unwrap();
    fs::remove_file(&own[0]).unwrap();
}

#[test]
fn what_cannot_be_recorded_is_said() {
    const NAME: &str = "what_cannot_be_recorded_is_said";
    if child::is(NAME) {
        return;
    }
    let (_, said) = child::passes_with(NAME, "trace=/no/such/directory/x");
    assert_eq!(
        said,
        "spandrel: SPANDREL: no trace is recorded: cannot make or map `/no/such/directory/x`\n"
    );
}

/// A file that cannot grow: what is lost is counted, and the program goes on.
#[test]
fn what_is_lost_is_counted() {
    const NAME: &str = "what_is_lost_is_counted";
    if child::is(NAME) {
        // SAFETY: a limit for this process, and a signal that it shall not die of.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
        for _ in 0..100_000 {
            drop(std::hint::black_box(vec![1u8; ODD]));
        }
        return;
    }
    let path = file("full");
    child::passes_with(NAME, &format!("trace={}", path.display()));
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() <= 1 << 20);
    let at = format::LOST_AT;
    let lost = format::unseal(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    assert!((50_000..201_000).contains(&lost), "{lost}");
    fs::remove_file(path).unwrap();
}
