//! Groups 2 to 10, and what is only charted: jobs of a fixed size, in the order of the reports.
//! Amounts are chosen so that a run takes a tenth to a third of a second on the allocators measured
//! here, and what is heavy a second or two.

use super::{ALL, Job, Work, Workload};
use crate::meter::Spent;

mod block;
mod collections;
mod drift;
mod growth;
mod heap;
mod large;
mod larson;
mod mixed;
mod programs;
mod queue;
mod shuffled;
mod storm;
mod threads;

pub use drift::Point;

/// What takes two sides.
const PAIRS: &[usize] = &[2, 16];
const ONE: &[usize] = &[1];
const TWO: &[usize] = &[2];

const fn job(
    group: u8,
    name: &'static str,
    about: &'static str,
    threads: &'static [usize],
    run: fn(&Job) -> Spent,
    [amount, quick, small]: [u64; 3],
) -> Workload {
    Workload {
        name,
        group,
        about,
        threads,
        sweep: &[],
        work: Work::Job { run, amount, quick, small },
        countable: threads[0] == 1,
        heavy: false,
        once: false,
        gib: 0,
        instruction_bar: None,
    }
}

impl Workload {
    const fn heavy(self) -> Self {
        Self { heavy: true, ..self }
    }

    const fn once(self) -> Self {
        Self { once: true, ..self }
    }

    const fn needs_gib(self, gib: u64) -> Self {
        Self { gib, ..self }
    }

    const fn uncountable(self) -> Self {
        Self { countable: false, ..self }
    }
}

const M: u64 = 1_000_000;
const K: u64 = 1_000;
const HEAP: [u64; 3] = [2 * M, 500 * K, 10 * K];

/// All of them.
pub(super) static JOBS: &[Workload] = &[
    job(
        1,
        "shuffled-256m",
        "256 MiB in objects of 256 bytes, freed in shuffled order, twice",
        ALL,
        shuffled::shuffled,
        [2 << 20, 1 << 20, 1 << 14],
    )
    .heavy(),
    job(
        2,
        "queue",
        "objects of 64 bytes allocated by one thread, freed by another, 400,000 at a time",
        PAIRS,
        queue::producer_consumer,
        [4 * M, M, 20 * K],
    ),
    job(
        2,
        "channel",
        "boxed messages through a crossbeam channel",
        PAIRS,
        queue::channel,
        [400 * K, 100 * K, 4 * K],
    ),
    job(
        3,
        "larson",
        "server churn: random blocks replaced, handed to a new thread when the old one ends",
        ALL,
        larson::churn,
        [2 * M, 500 * K, 20 * K],
    )
    .swept(),
    job(
        4,
        "mixed",
        "16 B..64 KiB, random lifetimes, a quarter freed by another thread",
        ALL,
        mixed::replace,
        [800 * K, 200 * K, 8 * K],
    )
    .swept(),
    job(
        5,
        "tree",
        "a tree of 10,000,000 nodes, built, walked and dropped",
        ALL,
        collections::tree,
        [10 * M, 2 * M, 20 * K],
    )
    .heavy(),
    job(
        5,
        "tree-handoff",
        "the same, dropped by another thread than built it",
        TWO,
        collections::tree_handoff,
        [10 * M, 2 * M, 20 * K],
    )
    .heavy(),
    job(
        5,
        "btree",
        "a BTreeMap of Strings, half of it replaced",
        ALL,
        collections::btree,
        [200 * K, 60 * K, 2 * K],
    ),
    job(
        5,
        "hash",
        "a HashMap of Strings, half of it replaced",
        ALL,
        collections::hash,
        [300 * K, 100 * K, 2 * K],
    )
    .swept(),
    job(
        5,
        "hash-handoff",
        "the same, dropped by another thread than built it",
        TWO,
        collections::hash_handoff,
        [300 * K, 100 * K, 2 * K],
    ),
    job(
        5,
        "persistent",
        "an imbl::OrdMap, old versions of it kept for a while",
        ALL,
        collections::persistent,
        [150 * K, 50 * K, 6 * K],
    ),
    job(
        6,
        "push",
        "a Vec that grows to 1 GiB by pushes",
        ALL,
        growth::push,
        [1 << 27, 1 << 25, 1 << 16],
    )
    .heavy(),
    job(6, "strings", "Strings built word by word", ALL, growth::strings, [100 * K, 30 * K, 4 * K]),
    job(
        6,
        "realloc",
        "100,000 chains of reallocations, 64 growing at a time",
        ALL,
        growth::chains,
        [100 * K, 30 * K, K],
    )
    .swept(),
    job(
        7,
        "large",
        "blocks of 32 KiB..32 MiB replaced, every page written to",
        ALL,
        large::churn,
        [300, 120, 32],
    ),
    job(
        7,
        "zeroed",
        "vec![0; n] of the same sizes, untouched",
        ALL,
        large::zeroed_untouched,
        [600, 200, 32],
    ),
    job(
        7,
        "zeroed-touched",
        "vec![0; n] of the same sizes, every page read and written to",
        ALL,
        large::zeroed_touched,
        [300, 120, 32],
    ),
    job(
        8,
        "storm",
        "50,000 short threads that each allocate a little",
        ALL,
        storm::storm,
        [50 * K, 10 * K, 64],
    )
    .heavy()
    .uncountable(),
    job(
        9,
        "json",
        "serde_json: a book and half a megabyte of records, read and written",
        ALL,
        programs::json::json,
        [16, 16, 1],
    ),
    job(9, "syn", "syn: 280 KB of Rust parsed", ALL, programs::source::syn, [16, 16, 1]),
    job(
        9,
        "regex",
        "regex: six patterns compiled and matched, captures collected",
        ALL,
        programs::patterns::regex,
        [16, 16, 1],
    ),
    job(9, "words", "rayon: the words of a book counted", ALL, programs::text::count, [8, 3, 1])
        .uncountable(),
    job(9, "sort", "rayon: the words of a book sorted", ALL, programs::text::sort, [4, 2, 1])
        .uncountable(),
    job(
        9,
        "service",
        "tokio: requests and answers in JSON over the loopback",
        ALL,
        programs::service::service,
        [4000, 1000, 32],
    )
    .uncountable(),
    job(
        10,
        "drift",
        "sizes drift from 256 B to 32 KiB and back, 128 MiB live: fragmentation",
        ONE,
        drift::drift,
        [600, 75, 1],
    )
    .once()
    .uncountable(),
    job(
        0,
        "heap-10m",
        "objects of 1 KiB replaced all over a heap of 10 MiB",
        ONE,
        heap::heap_10m,
        HEAP,
    ),
    job(0, "heap-100m", "the same, 100 MiB", ONE, heap::heap_100m, HEAP),
    job(0, "heap-1g", "the same, 1 GiB", ONE, heap::heap_1g, HEAP).heavy(),
    job(0, "heap-8g", "the same, 8 GiB", ONE, heap::heap_8g, HEAP).once().needs_gib(10),
];
