//! The table of workloads.
//!
//! To add one: write the loop in `loops.rs`, give it a row in [`WORKLOADS`]. Both twins, the
//! workers, the driver, the tables and the files follow from the row.

use std::time::Duration;

mod inputs;

/// The loops on the global allocator.
#[path = "."]
mod full {
    use super::heap::{give, take};
    mod loops;
    pub(super) use loops::*;
}

/// The same source text with an allocator that does nothing: what the harness itself costs.
#[path = "."]
mod empty {
    use super::nothing::{give, take};
    #[allow(clippy::duplicate_mod, reason = "the twin is the same text on purpose")]
    mod loops;
    pub(super) use loops::*;
}

mod heap {
    pub(super) use std::alloc::{alloc as take, dealloc as give};
}

mod nothing {
    use std::alloc::Layout;

    use super::inputs::SCRATCH;

    /// Any address will do, as long as a loop that touches its objects may write there.
    #[inline(always)]
    pub(super) unsafe fn take(_layout: Layout) -> *mut u8 {
        SCRATCH.0.get().cast()
    }

    #[inline(always)]
    pub(super) unsafe fn give(_object: *mut u8, _layout: Layout) {}
}

/// One workload: a loop, its empty twin, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// The name on the command line and in the tables.
    pub name: &'static str,
    /// One line for `--help` and the reports.
    pub about: &'static str,
    /// alloc+free pairs in one round.
    pub pairs_per_round: u64,
    /// Whether callgrind's count means something: one thread, no waiting.
    pub countable: bool,
    /// The most instructions per pair, harness subtracted, that Spandrel may take with fat LTO.
    pub instruction_bar: Option<f64>,
    /// How many times faster than the best of the others Spandrel means to be: with fat LTO, and
    /// without LTO.
    pub goal: Option<Goal>,
    /// Runs so many rounds and returns the time they took, set-up and warm-up excluded: of the
    /// thread where there is one, of the day where there are several.
    pub full: fn(rounds: u64) -> Duration,
    /// The same without the allocator.
    pub empty: fn(rounds: u64) -> Duration,
}

/// A goal for the ratio (time of the best other allocator) / (time of Spandrel).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// With fat LTO.
    pub fat: f64,
    /// Without LTO.
    pub release: f64,
}

const FASTER: Option<Goal> = Some(Goal { fat: 2.5, release: 1.3 });

/// Every workload, in the order of the reports.
pub static WORKLOADS: &[Workload] = &[
    Workload {
        name: "same",
        about: "one 64-byte object, constant layout, allocated and freed",
        pairs_per_round: inputs::SAME,
        countable: true,
        instruction_bar: Some(12.0),
        goal: FASTER,
        full: full::same,
        empty: empty::same,
    },
    Workload {
        name: "lifo100",
        about: "100 objects of 64 bytes, freed last first",
        pairs_per_round: inputs::LIFO as u64,
        countable: true,
        instruction_bar: None,
        goal: FASTER,
        full: full::lifo100,
        empty: empty::lifo100,
    },
    Workload {
        name: "fifo1000",
        about: "1000 objects of 8..1024 bytes live, the oldest freed first",
        pairs_per_round: inputs::FIFO as u64,
        countable: true,
        instruction_bar: Some(34.0),
        goal: None,
        full: full::fifo1000,
        empty: empty::fifo1000,
    },
    Workload {
        name: "random1k",
        about: "one object of a random size, 8..1024 bytes, allocated and freed",
        pairs_per_round: inputs::SIZES.len() as u64,
        countable: true,
        instruction_bar: Some(34.0),
        goal: None,
        full: full::random1k,
        empty: empty::random1k,
    },
    Workload {
        name: "shuffled",
        about: "16384 objects of 256 bytes, never written, freed in shuffled order",
        pairs_per_round: inputs::ORDER.len() as u64,
        countable: true,
        instruction_bar: None,
        goal: None,
        full: full::shuffled,
        empty: empty::shuffled,
    },
    Workload {
        name: "shuffled-touched",
        about: "the same, each object written to before it is freed",
        pairs_per_round: inputs::ORDER.len() as u64,
        countable: true,
        instruction_bar: None,
        goal: None,
        full: full::shuffled_touched,
        empty: empty::shuffled_touched,
    },
];

/// The workload of that name.
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|w| w.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for w in WORKLOADS {
            assert!(std::ptr::eq(find(w.name).unwrap(), w), "{} twice", w.name);
        }
        assert!(find("no such workload").is_none());
    }

    #[test]
    fn both_twins_run() {
        for w in WORKLOADS {
            (w.full)(2);
            (w.empty)(2);
        }
    }
}
