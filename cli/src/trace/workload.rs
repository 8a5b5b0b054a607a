//! A trace as a list of operations on numbered blocks: what is replayed and simulated.

use super::file::{Event, Trace, What};
use std::collections::HashMap;

/// One operation on one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The block comes to be.
    Alloc { block: u32, size: u64, align: u32 },
    /// It ends.
    Free { block: u32 },
    /// It changes its size.
    Resize { block: u32, size: u64 },
}

/// All of them, in the order of their times.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// The operation and the thread it is of, as an index.
    pub ops: Vec<(u16, Op)>,
    /// How many threads there are.
    pub threads: usize,
    /// How many blocks there are.
    pub blocks: u32,
    /// The most bytes that were asked for and alive at a time.
    pub peak_live: u64,
    /// Frees of what the trace does not know: from before it began, or freed already.
    pub unknown: usize,
    /// Blocks handed out where one was alive: its free was not recorded.
    pub reborn: usize,
}

/// A workload that the command can still hold and number.
const THREADS_MOST: usize = 1 << 16;

impl Workload {
    /// What the trace's program did.
    ///
    /// # Errors
    ///
    /// More threads or blocks than are numbered.
    pub fn of(trace: &Trace) -> anyhow::Result<Workload> {
        let mut load = Workload::default();
        let mut threads: HashMap<u32, u16> = HashMap::new();
        let mut alive: HashMap<u64, (u32, u64)> = HashMap::new();
        let mut live = 0;
        for event in &trace.events {
            let count = threads.len();
            anyhow::ensure!(count < THREADS_MOST, "more than {THREADS_MOST} threads");
            let thread = *threads.entry(event.thread).or_insert(count as u16);
            load.event(event, thread, &mut alive, &mut live);
            load.peak_live = load.peak_live.max(live);
            anyhow::ensure!(load.blocks < u32::MAX - 1, "more than {} blocks", u32::MAX);
        }
        load.threads = threads.len();
        Ok(load)
    }

    fn event(
        &mut self,
        event: &Event,
        thread: u16,
        alive: &mut HashMap<u64, (u32, u64)>,
        live: &mut u64,
    ) {
        match event.what {
            What::Free => match alive.remove(&event.at) {
                Some((block, size)) => {
                    *live -= size;
                    self.ops.push((thread, Op::Free { block }));
                }
                None => self.unknown += 1,
            },
            What::Alloc => self.begin(event, thread, alive, live),
            What::Resize => match alive.remove(&event.old) {
                Some((block, size)) => {
                    *live = *live - size + event.size;
                    if event.old != event.at {
                        self.drop_reborn(event.at, thread, alive, live);
                    }
                    alive.insert(event.at, (block, event.size));
                    self.ops.push((thread, Op::Resize { block, size: event.size }));
                }
                None => {
                    self.unknown += 1;
                    self.begin(event, thread, alive, live);
                }
            },
        }
    }

    fn begin(
        &mut self,
        event: &Event,
        thread: u16,
        alive: &mut HashMap<u64, (u32, u64)>,
        live: &mut u64,
    ) {
        self.drop_reborn(event.at, thread, alive, live);
        let block = self.blocks;
        self.blocks += 1;
        *live += event.size;
        alive.insert(event.at, (block, event.size));
        self.ops.push((thread, Op::Alloc { block, size: event.size, align: event.align }));
    }

    fn drop_reborn(
        &mut self,
        at: u64,
        thread: u16,
        alive: &mut HashMap<u64, (u32, u64)>,
        live: &mut u64,
    ) {
        if let Some((block, size)) = alive.remove(&at) {
            self.reborn += 1;
            *live -= size;
            self.ops.push((thread, Op::Free { block }));
        }
    }

    /// What of the trace is not in it, for people; none if all is.
    pub fn note(&self) -> Option<String> {
        (self.unknown + self.reborn != 0).then(|| {
            format!(
                "{} frees of blocks the trace does not know and {} blocks without their free are left out or added",
                self.unknown, self.reborn
            )
        })
    }
}
