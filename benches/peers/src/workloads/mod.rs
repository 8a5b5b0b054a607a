//! The workloads, and the table of them.
//!
//! To add one: write it in the file of its group, give it a line in the table at the head of the
//! folder. The rows, the workers, the driver, the tables, files and charts follow from the line.
//!
//! The jobs and the libraries they need are a feature: instructions of the short loops are counted
//! in workers that hold nothing else, so that what the compiler makes of the loops depends on them
//! alone.

use crate::meter::Spent;

mod inputs;
#[cfg(feature = "jobs")]
mod jobs;
mod table;

#[cfg(feature = "jobs")]
pub use jobs::Point;

/// What the groups are about, by number.
pub static GROUPS: [&str; 11] = [
    "live heap",
    "short loops",
    "from thread to thread",
    "server churn",
    "mixed sizes",
    "collections",
    "growth",
    "large blocks",
    "short threads",
    "real programs",
    "drifting sizes",
];

/// One thread, a pair, and more than the machine has cores.
const ALL: &[usize] = &[1, 2, 16];

/// Every workload, in the order of the reports.
pub fn workloads() -> impl Iterator<Item = &'static Workload> {
    #[cfg(feature = "jobs")]
    return table::LOOPS.iter().chain(jobs::JOBS);
    #[cfg(not(feature = "jobs"))]
    table::LOOPS.iter()
}

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

/// One workload: what it does, on how many threads it is measured, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// The name on the command line.
    pub name: &'static str,
    /// The group it belongs to, 1 to 10, or 0 for what is only charted.
    pub group: u8,
    /// One line for `--help` and the reports.
    pub about: &'static str,
    /// The numbers of threads it is measured on: a row of the tables each.
    pub threads: &'static [usize],
    /// More numbers of threads, for the chart of cost against threads.
    pub sweep: &'static [usize],
    /// What it does.
    pub work: Work,
    /// Whether callgrind's count means something for one thread.
    pub countable: bool,
    /// Takes seconds: run less often than the others.
    pub heavy: bool,
    /// About memory: run with one of the profiles only, and once.
    pub once: bool,
    /// Needs so many GiB to itself, if any number worth mentioning.
    pub gib: u64,
    /// The most instructions per operation, harness subtracted, that Spandrel may take with fat
    /// LTO.
    pub instruction_bar: Option<f64>,
}

impl Workload {
    /// With the numbers of threads between, for the chart of cost against threads.
    const fn swept(self) -> Self {
        Self { sweep: &[4, 8], ..self }
    }
}

/// What a workload does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A short loop over alloc+free pairs, which every thread runs; as long as is asked for.
    Loop {
        /// Pairs in one round.
        pairs_per_round: u64,
        /// Runs so many rounds, set-up and warm-up not counted.
        full: fn(rounds: u64) -> Spent,
        /// The same without the allocator.
        empty: fn(rounds: u64) -> Spent,
    },
    /// A job of a fixed size that the threads share.
    Job {
        /// Does it.
        run: fn(&Job) -> Spent,
        /// The amount that is measured.
        amount: u64,
        /// The amount for a quick look.
        quick: u64,
        /// The amount for tests and for counting instructions.
        small: u64,
    },
}

/// How much of a workload to do, and with how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Over all threads, in the workload's own unit.
    pub amount: u64,
    /// Threads to share it.
    pub threads: usize,
}

/// A workload on a number of threads: one line of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What runs.
    pub workload: &'static Workload,
    /// On how many threads.
    pub threads: usize,
}

impl Row {
    /// All of them, in the order of the reports.
    pub fn all() -> impl Iterator<Item = Self> {
        let rows = |workload: &'static Workload| {
            let (threads, sweep) = (workload.threads.iter(), workload.sweep.iter());
            threads.chain(sweep).map(move |&threads| Self { workload, threads })
        };
        workloads().flat_map(rows)
    }

    /// The row of that name: `mixed/t2`. Of a workload's name alone, the one on a single thread.
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|r| r.name() == name || r.threads == 1 && r.workload.name == name)
    }

    /// Whether it is there for a chart, and in no table and no mean.
    pub fn is_charted_only(&self) -> bool {
        self.workload.group == 0 || self.workload.sweep.contains(&self.threads)
    }

    /// The name in the tables.
    pub fn name(&self) -> String {
        format!("{}/t{}", self.workload.name, self.threads)
    }

    /// Runs the loop so many rounds on each thread, or a job of that amount.
    pub fn run(&self, amount: u64) -> Spent {
        match self.workload.work {
            Work::Loop { full, .. } => self.on_each_thread(amount, full),
            Work::Job { run, .. } => run(&Job { amount, threads: self.threads }),
        }
    }

    /// The harness alone, of a workload that has one.
    pub fn run_empty(&self, amount: u64) -> Option<Spent> {
        match self.workload.work {
            Work::Loop { empty, .. } => Some(self.on_each_thread(amount, empty)),
            Work::Job { .. } => None,
        }
    }

    fn on_each_thread(&self, rounds: u64, run: fn(u64) -> Spent) -> Spent {
        if self.threads == 1 {
            return run(rounds);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.threads).map(|_| scope.spawn(move || run(rounds))).collect();
            let spent = threads.into_iter().map(|t| t.join().expect("no loop fails"));
            spent.fold(Spent::default(), Spent::beside)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for row in Row::all() {
            let found = Row::find(&row.name()).unwrap();
            assert_eq!((found.workload.name, found.threads), (row.workload.name, row.threads));
        }
        let mut names: Vec<_> = Row::all().map(|r| r.name()).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "a name twice");
        assert_eq!(Row::find("same").unwrap().threads, 1);
        assert!(Row::find("no such workload").is_none());
    }

    /// Every check in every workload runs here.
    #[test]
    fn every_row_runs_small() {
        for row in Row::all().filter(|r| r.workload.group != 0) {
            let spent = match row.workload.work {
                Work::Loop { .. } => {
                    assert!(row.run_empty(2).unwrap().ops > 0);
                    row.run(2)
                }
                Work::Job { small, .. } => row.run(small),
            };
            assert!(spent.ops > 0, "{}", row.name());
        }
    }

    #[cfg(feature = "jobs")]
    #[test]
    fn the_smallest_heap_is_replaced() {
        assert_eq!(Row::find("heap-10m").unwrap().run(20_000).ops, 20_480);
    }
}
