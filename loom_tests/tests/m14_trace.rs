//! M14: the recorder: units are claimed once, and a record that is counted is whole.
//! `src/watch/trace/chunk.rs`.
#![cfg(spandrel_model)]

use loom_tests::{Model, red};
use spandrel::base::sync::{AtomicU8, AtomicU64, Ordering::Relaxed};
use spandrel::watch::trace::chunk::{Body, add, claim};
use spandrel::watch::trace::format::{seal, unseal};

const HEAD: usize = 64;
const FIRST: [u8; 2] = [3, 3];
const SECOND: [u8; 1] = [7];

/// A chunk as it lies in the file.
struct Chunk {
    used: AtomicU64,
    bytes: [AtomicU8; 3],
}

impl Chunk {
    fn body(&self) -> Body<'_> {
        Body { used: &self.used, head: HEAD, bytes: &self.bytes }
    }
}

fn chunk() -> Chunk {
    let chunk = Chunk {
        used: AtomicU64::new(0),
        bytes: [AtomicU8::new(0), AtomicU8::new(0), AtomicU8::new(0)],
    };
    chunk.body().push(0, &[]);
    chunk
}

/// What one thread has to say: how many bytes it wrote, or read.
type Bytes = usize;

fn write(chunk: &Chunk) -> Bytes {
    let first = chunk.body().push(0, &FIRST).expect("there is room");
    let both = chunk.body().push(first, &SECOND).expect("there is room");
    assert_eq!(chunk.body().push(both, &[1]), None, "a record behind the end");
    both
}

/// Whoever reads the file, at this moment.
fn read(chunk: &Chunk) -> Bytes {
    let mut bytes = [0; 3];
    let length = chunk.body().read(&mut bytes).expect("a count");
    let whole = [&[][..], &[3, 3], &[3, 3, 7]];
    assert!(whole.contains(&&bytes[..length]), "half a record is counted: {:?}", &bytes[..length]);
    length
}

static RECORD: Model<Chunk, Bytes, Bytes> = Model {
    name: "M14 record",
    setup: chunk,
    threads: &[("read", read), ("write", write)],
    crowd: &[("read", read), ("write", write), ("read too", read), ("and again", read)],
    outcome: |chunk, answers| {
        assert_eq!(answers[1], 3);
        assert_eq!(read(chunk), 3, "all is written in the end");
        answers[0]
    },
    expected: &[0, 2, 3],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn what_is_counted_is_whole() {
    RECORD.holds();
}

red!(red_when_a_record_is_counted_first: RECORD, CountFirst, "half a record");
#[cfg(spandrel_loom)]
red!(red_when_a_count_releases_nothing: RECORD, CountRelaxed, "half a record");

struct File {
    claimed: AtomicU64,
    lost: AtomicU64,
}

fn one(file: &File) -> u32 {
    add(&file.lost, 1);
    claim(&file.claimed, 1).expect("a number")
}

fn two(file: &File) -> u32 {
    claim(&file.claimed, 2).expect("a number")
}

static CLAIM: Model<File, u32, u32> = Model {
    name: "M14 claim",
    setup: || File { claimed: AtomicU64::new(seal(1)), lost: AtomicU64::new(seal(0)) },
    threads: &[("one", one), ("two", two)],
    crowd: &[("one", one), ("two", two), ("one more", one), ("two more", two)],
    outcome: |file, firsts| {
        // Units that each role claims.
        let lengths = [1, 2, 1, 2];
        let mut taken: Vec<u32> =
            firsts.iter().zip(lengths).flat_map(|(&first, length)| first..first + length).collect();
        taken.sort_unstable();
        let all = unseal(file.claimed.load(Relaxed)).expect("a count");
        assert_eq!(taken, (1..all).collect::<Vec<_>>(), "units claimed twice or by nobody");
        let lost = unseal(file.lost.load(Relaxed)).expect("a count");
        assert_eq!(lost as usize, firsts.len().div_ceil(2), "a loss is not counted");
        firsts[0].min(3)
    },
    expected: &[1, 3],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn units_are_claimed_once() {
    CLAIM.holds();
}

red!(red_when_units_are_claimed_by_a_store: CLAIM, ClaimUnitsByStore, "claimed twice");
