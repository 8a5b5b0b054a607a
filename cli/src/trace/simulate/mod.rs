//! The textbook's strategies on a recorded workload: each a simulation over an address space of its own
//! that counts its steps, and beside them Spandrel, which really serves the same calls.

mod buddy;
mod table;
mod tagged;

use super::file::Trace;
use super::replay;
use super::workload::{Op, Workload};
use crate::library;
use crate::written::quietly;
use anyhow::Result;
use buddy::Buddy;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tagged::{Fit, Tagged};

/// Run the textbook strategies on the trace as simulations, and Spandrel beside them.
///
/// First fit, next fit, best fit (one list, by address, boundary tags of 8 bytes, neighbours joined),
/// segregated lists (one for each power of two) and the binary buddy system serve the calls of the trace
/// in the order of their times, over an address space of their own. A step is a block, list or neighbour
/// that is looked at, a split or a join. Spandrel serves the same calls in one thread; its steps are the
/// floors a call visited.
#[derive(clap::Args)]
pub struct Arguments {
    /// The trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The most steps a strategy may take; one that needs more is stopped, and its row says where.
    #[arg(long, value_name = "N", default_value_t = 300_000_000)]
    steps: u64,
    /// Print the figures as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Use this library instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

/// An allocator of numbered blocks, as a simulation.
pub trait Strategy {
    /// Finds room for a block and answers the steps it took.
    fn alloc(&mut self, block: u32, size: u64, align: u64) -> u64;
    /// Takes a block back and answers the steps it took.
    fn free(&mut self, block: u32) -> u64;
    /// Bytes that a block takes, all told.
    fn bytes(&self, block: u32) -> u64;
    /// Bytes of it that the program may use.
    fn room(&self, block: u32) -> u64;
    /// The end of the highest block ever.
    fn top(&self) -> u64;
}

/// What calls of one kind cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    pub calls: u64,
    pub steps: f64,
    /// The most steps of one call; none where only the sum is known.
    pub most: Option<u64>,
    pub nanos: f64,
}

impl Cost {
    fn add(&mut self, steps: u64, nanos: f64) {
        self.calls += 1;
        self.steps += steps as f64;
        self.most = Some(self.most.unwrap_or(0).max(steps));
        self.nanos += nanos.max(0.0);
    }

    /// Steps of a call on average.
    pub fn mean(&self) -> f64 {
        self.steps / self.calls.max(1) as f64
    }

    /// Nanoseconds of a call on average.
    pub fn time(&self) -> f64 {
        self.nanos / self.calls.max(1) as f64
    }
}

/// What came of one strategy. All sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub name: &'static str,
    /// Operations served before the steps were used up; all of them otherwise.
    pub served: usize,
    /// The most bytes asked for and alive at a time.
    pub peak_live: u64,
    /// The most bytes of address space in use: up to the highest block.
    pub footprint: u64,
    /// When the footprint was the largest: bytes of blocks beyond what was asked for.
    pub internal: u64,
    /// At the same time: free bytes between blocks.
    pub external: u64,
    pub alloc: Cost,
    pub free: Cost,
}

/// Bytes to the next multiple of `unit`.
pub fn round(bytes: u64, unit: u64) -> u64 {
    bytes.checked_next_multiple_of(unit).unwrap_or(u64::MAX / unit * unit)
}

/// A strategy at work.
struct Run<'a> {
    strategy: &'a mut dyn Strategy,
    /// What was asked for each block.
    sizes: Vec<u64>,
    live: u64,
    taken: u64,
    clock: f64,
    steps: u64,
    alloc: Cost,
    free: Cost,
}

impl Run<'_> {
    fn take(&mut self, block: u32, size: u64, align: u32) {
        let start = Instant::now();
        let steps = self.strategy.alloc(block, size, align.into());
        self.alloc.add(steps, start.elapsed().as_nanos() as f64 - self.clock);
        self.steps += steps;
        self.taken += self.strategy.bytes(block);
        self.live += size;
        self.sizes[block as usize] = size;
    }

    fn give(&mut self, block: u32) {
        self.taken -= self.strategy.bytes(block);
        self.live -= self.sizes[block as usize];
        let start = Instant::now();
        let steps = self.strategy.free(block);
        self.free.add(steps, start.elapsed().as_nanos() as f64 - self.clock);
        self.steps += steps;
    }

    fn resize(&mut self, block: u32, size: u64) {
        let room = self.strategy.room(block);
        if size <= room && size > room / 2 {
            self.live = self.live - self.sizes[block as usize] + size;
            self.sizes[block as usize] = size;
            return;
        }
        // A block that moves is there twice for a moment; here the old one goes first, which is in the
        // strategies' favour.
        self.give(block);
        self.take(block, size, 0);
    }
}

/// Serves a workload with a strategy, in at most about `most` steps.
fn run(name: &'static str, strategy: &mut dyn Strategy, load: &Workload, most: u64) -> Outcome {
    let mut run = Run {
        strategy,
        sizes: vec![0; load.blocks as usize],
        live: 0,
        taken: 0,
        clock: clock_cost(),
        steps: 0,
        alloc: Cost::default(),
        free: Cost::default(),
    };
    let (mut served, mut peak_live, mut footprint, mut internal, mut external) = (0, 0, 0, 0, 0);
    for &(_, op) in &load.ops {
        if run.steps > most {
            break;
        }
        match op {
            Op::Alloc { block, size, align } => run.take(block, size, align),
            Op::Free { block } => run.give(block),
            Op::Resize { block, size } => run.resize(block, size),
        }
        served += 1;
        peak_live = peak_live.max(run.live);
        if run.strategy.top() > footprint {
            footprint = run.strategy.top();
            internal = run.taken - run.live;
            external = footprint - run.taken;
        }
    }
    Outcome {
        name,
        served,
        peak_live,
        footprint,
        internal,
        external,
        alloc: run.alloc,
        free: run.free,
    }
}

/// What reading the clock twice costs, in nanoseconds: the least of many.
pub fn clock_cost() -> f64 {
    (0..10_000)
        .map(|_| {
            let start = Instant::now();
            start.elapsed().as_nanos() as f64
        })
        .fold(f64::MAX, f64::min)
}

/// Simulates and prints.
pub fn simulate(arguments: &Arguments) -> Result<ExitCode> {
    let trace = Trace::open(&arguments.file)?;
    let load = Workload::of(&trace)?;
    let library = library::path(arguments.library.as_deref())?;
    let progress = ProgressBar::new(6);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")?);
    let mut rows = vec![replay::beside(&load, &library)?];
    progress.inc(1);
    for (name, mut strategy) in strategies(load.blocks) {
        progress.set_message(name);
        rows.push(run(name, strategy.as_mut(), &load, arguments.steps));
        progress.inc(1);
    }
    progress.finish_and_clear();
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        quietly(writeln!(stdout, "{}", serde_json::to_string_pretty(&rows)?))?;
    } else {
        quietly(writeln!(stdout, "{}", table::of(&rows, &load)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn strategies(blocks: u32) -> Vec<(&'static str, Box<dyn Strategy>)> {
    let tagged = |fit| Box::new(Tagged::new(fit, blocks)) as Box<dyn Strategy>;
    vec![
        ("first fit", tagged(Fit::First)),
        ("next fit", tagged(Fit::Next)),
        ("best fit", tagged(Fit::Best)),
        ("segregated lists", tagged(Fit::Segregated)),
        ("binary buddy", Box::new(Buddy::new(blocks))),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Buddy, Fit, Op, Outcome, Strategy, Tagged, Workload, run, strategies};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn alloc(block: u32, size: u64) -> (u16, Op) {
        (0, Op::Alloc { block, size, align: 0 })
    }

    fn free(block: u32) -> (u16, Op) {
        (0, Op::Free { block })
    }

    fn load(ops: Vec<(u16, Op)>) -> Workload {
        let blocks = ops.iter().filter(|(_, op)| matches!(op, Op::Alloc { .. })).count() as u32;
        Workload { ops, threads: 1, blocks, ..Workload::default() }
    }

    fn outcomes(load: &Workload) -> Vec<Outcome> {
        let run = |(name, mut strategy): (_, Box<dyn Strategy>)| {
            run(name, strategy.as_mut(), load, u64::MAX)
        };
        strategies(load.blocks).into_iter().map(run).collect()
    }

    /// Holes of 192, 96 and 288 bytes; then a block of 96 is wanted.
    #[test]
    fn each_strategy_takes_the_hole_that_the_textbook_says() {
        let holes = [192u64, 96, 288];
        let mut ops = Vec::new();
        for (i, &hole) in holes.iter().enumerate() {
            ops.push(alloc(2 * i as u32, hole - 8));
            ops.push(alloc(2 * i as u32 + 1, 24));
        }
        let at = [0, 192 + 32, 192 + 32 + 96 + 32];
        let chosen = |fit| {
            let mut heap = Tagged::new(fit, 8);
            for &(_, op) in &ops {
                let Op::Alloc { block, size, .. } = op else { continue };
                heap.alloc(block, size, 0);
            }
            let frees = [0, 2, 4].map(|block| heap.free(block));
            heap.check();
            let steps = heap.alloc(6, 88, 0);
            heap.check();
            (heap.address(6), steps, frees)
        };
        // Free: two neighbours looked at, and the walk to the place in the list.
        assert_eq!(chosen(Fit::First), (at[0], 2, [3, 4, 5]));
        assert_eq!(chosen(Fit::Best), (at[1], 2, [3, 4, 5]));
        assert_eq!(chosen(Fit::Next).0, at[0]);
        // 96 bytes belong to the list of 64 to 127: the hole of 96.
        assert_eq!(chosen(Fit::Segregated), (at[1], 2, [3, 3, 3]));
    }

    #[test]
    fn next_fit_goes_on_where_it_was() {
        let mut heap = Tagged::new(Fit::Next, 16);
        for block in 0..8 {
            heap.alloc(block, 56, 0);
        }
        for block in [0, 2, 4, 6] {
            heap.free(block);
        }
        let mut places = Vec::new();
        for block in 8..12 {
            heap.alloc(block, 56, 0);
            heap.check();
            places.push(heap.address(block) / 64);
        }
        assert_eq!(places, [0, 2, 4, 6]);
        heap.free(8);
        heap.free(9);
        // The rover is behind them, at the end: round it goes.
        assert_eq!(heap.alloc(12, 56, 0), 1);
        assert_eq!(heap.address(12), 0);
    }

    #[test]
    fn buddies_split_and_join() {
        let mut heap = Buddy::new(8);
        let whole = heap.free_bytes();
        assert_eq!(heap.alloc(0, 100, 0), 1 + 2 * (46 - 7));
        assert_eq!(heap.bytes(0), 128);
        assert_eq!(heap.alloc(1, 128, 0), 1, "its buddy");
        assert_eq!(heap.alloc(2, 32, 0), 1 + 3 + 3);
        assert_eq!(heap.top(), 256 + 32);
        heap.free(0);
        heap.free(2);
        heap.free(1);
        assert_eq!(heap.free_bytes(), whole);
        assert!(heap.free_blocks() == 1, "one block again");
    }

    #[test]
    fn what_is_asked_for_internal_and_external_add_up() {
        let mut ops: Vec<_> = (0..100).map(|i| alloc(i, 100 + u64::from(i) * 7 % 900)).collect();
        ops.extend((0..100).step_by(2).map(free));
        ops.extend((100..130).map(|i| alloc(i, 2000)));
        let load = load(ops);
        for outcome in outcomes(&load) {
            let live = outcome.footprint - outcome.internal - outcome.external;
            assert!(live <= outcome.peak_live && live > 0, "{outcome:?}");
            assert_eq!(outcome.served, load.ops.len());
            assert_eq!((outcome.alloc.calls, outcome.free.calls), (130, 50));
        }
    }

    #[test]
    fn a_strategy_that_needs_too_many_steps_is_stopped() {
        let load = load((0..1000).map(|i| alloc(i, 100)).collect());
        let mut heap = Tagged::new(Fit::First, 1000);
        let outcome = run("first fit", &mut heap, &load, 100);
        assert_eq!(outcome.served, 101, "a step each, until there were more than 100");
    }

    proptest! {
        /// Whatever is asked: blocks tile memory, none overlap, and all of it is free in the end.
        #[test]
        fn heaps_hold(calls in proptest::collection::vec((any::<bool>(), 0u64..5000, 0u32..3), 1..300)) {
            for fit in [Fit::First, Fit::Next, Fit::Best, Fit::Segregated] {
                let mut heap = Tagged::new(fit, calls.len() as u32);
                let mut alive = Vec::new();
                for (block, &(frees, number, align)) in calls.iter().enumerate() {
                    if frees && !alive.is_empty() {
                        let victim = alive.swap_remove(number as usize % alive.len());
                        heap.free(victim);
                    } else {
                        heap.alloc(block as u32, number, [0, 64, 4096][align as usize]);
                        prop_assert!(heap.room(block as u32) >= number);
                        alive.push(block as u32);
                    }
                    heap.check();
                }
                for block in alive {
                    heap.free(block);
                }
                heap.check();
                prop_assert_eq!(heap.free_blocks(), usize::from(heap.top() != 0), "one free block is left");
            }
            let mut heap = Buddy::new(calls.len() as u32);
            let whole = heap.free_bytes();
            let (mut alive, mut taken) = (Vec::new(), 0);
            for (block, &(frees, number, _)) in calls.iter().enumerate() {
                if frees && !alive.is_empty() {
                    let victim = alive.swap_remove(number as usize % alive.len());
                    taken -= heap.bytes(victim);
                    heap.free(victim);
                } else {
                    heap.alloc(block as u32, number, 0);
                    taken += heap.bytes(block as u32);
                    alive.push(block as u32);
                }
                prop_assert_eq!(heap.free_bytes() + taken, whole);
            }
        }
    }
}
