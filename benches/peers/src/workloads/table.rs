//! The short loops, in the order of the reports.

use super::{ALL, Work, Workload, empty, full, inputs};
use crate::meter::Spent;

type Loop = fn(u64) -> Spent;

const fn pairs(
    name: &'static str,
    about: &'static str,
    pairs_per_round: u64,
    full: Loop,
    empty: Loop,
) -> Workload {
    Workload {
        name,
        group: 1,
        about,
        threads: ALL,
        sweep: &[],
        work: Work::Loop { pairs_per_round, full, empty },
        countable: true,
        heavy: false,
        once: false,
        gib: 0,
        instruction_bar: None,
    }
}

impl Workload {
    const fn at_most(self, instructions: f64) -> Self {
        Self { instruction_bar: Some(instructions), ..self }
    }
}

/// The short loops.
pub(super) static LOOPS: &[Workload] = &[
    pairs(
        "same",
        "one 64-byte object, constant layout, allocated and freed",
        inputs::SAME,
        full::same,
        empty::same,
    )
    .at_most(12.0),
    pairs(
        "lifo100",
        "100 objects of 64 bytes, freed last first",
        inputs::LIFO as u64,
        full::lifo100,
        empty::lifo100,
    ),
    pairs(
        "fifo1000",
        "1000 objects of 8..1024 bytes live, the oldest freed first",
        inputs::FIFO as u64,
        full::fifo1000,
        empty::fifo1000,
    )
    .swept()
    .at_most(34.0),
    pairs(
        "random1k",
        "one object of a random size, 8..1024 bytes, allocated and freed",
        inputs::SIZES.len() as u64,
        full::random1k,
        empty::random1k,
    )
    .at_most(34.0),
    pairs(
        "shuffled",
        "4 MiB in 16384 objects, never written, freed in shuffled order",
        inputs::ORDER.len() as u64,
        full::shuffled,
        empty::shuffled,
    ),
    pairs(
        "shuffled-touched",
        "the same, each object written to before it is freed",
        inputs::ORDER.len() as u64,
        full::shuffled_touched,
        empty::shuffled_touched,
    )
    .swept(),
];
