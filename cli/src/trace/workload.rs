//! A trace as a list of operations on numbered blocks: what is replayed and simulated.

use super::file::{Event, Trace, What};
use std::collections::HashMap;

/// Blocks that are alive, each with its number and size.
type Blocks<Place> = HashMap<Place, (u32, u64)>;

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

/// Where the trace's program stands.
#[derive(Default)]
struct State {
    /// By address.
    alive: Blocks<u64>,
    /// Those that have left an address for another, by thread and that address.
    moving: Blocks<(u32, u64)>,
    /// Bytes of all of them.
    live: u64,
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
        let mut state = State::default();
        for event in &trace.events {
            let count = threads.len();
            anyhow::ensure!(count < THREADS_MOST, "more than {THREADS_MOST} threads");
            let thread = *threads.entry(event.thread).or_insert(count as u16);
            load.event(event, thread, &mut state);
            load.peak_live = load.peak_live.max(state.live);
            anyhow::ensure!(load.blocks < u32::MAX - 1, "more than {} blocks", u32::MAX);
        }
        load.threads = threads.len();
        Ok(load)
    }

    fn event(&mut self, event: &Event, thread: u16, state: &mut State) {
        match event.what {
            What::Free => match state.alive.remove(&event.at) {
                Some((block, size)) => {
                    state.live -= size;
                    self.ops.push((thread, Op::Free { block }));
                }
                None => self.unknown += 1,
            },
            What::Alloc => self.begin(event, thread, state),
            What::Leave => {
                if let Some(block) = state.alive.remove(&event.at) {
                    state.moving.insert((event.thread, event.at), block);
                }
            }
            What::Resize => {
                let was = if event.old == event.at {
                    state.alive.remove(&event.at)
                } else {
                    state.moving.remove(&(event.thread, event.old))
                };
                let Some((block, size)) = was else {
                    self.unknown += 1;
                    return self.begin(event, thread, state);
                };
                self.drop_reborn(event.at, thread, state);
                state.live = state.live - size + event.size;
                state.alive.insert(event.at, (block, event.size));
                self.ops.push((thread, Op::Resize { block, size: event.size }));
            }
        }
    }

    fn begin(&mut self, event: &Event, thread: u16, state: &mut State) {
        self.drop_reborn(event.at, thread, state);
        let block = self.blocks;
        self.blocks += 1;
        state.live += event.size;
        state.alive.insert(event.at, (block, event.size));
        self.ops.push((thread, Op::Alloc { block, size: event.size, align: event.align }));
    }

    fn drop_reborn(&mut self, at: u64, thread: u16, state: &mut State) {
        if let Some((block, size)) = state.alive.remove(&at) {
            self.reborn += 1;
            state.live -= size;
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

#[cfg(test)]
mod tests {
    use super::super::double;
    use super::super::file::forge;
    use super::super::format::Record;
    use super::*;

    /// One thread moves a block, and another is handed its old address, and frees what lay at the new one, before the
    /// first can say so.
    #[test]
    fn a_block_has_left_its_place_before_it_has_another() {
        const OLD: u64 = 0x7f00_0020_0000;
        const NEW: u64 = 0x7f00_0080_0000;
        let alloc = |time, at, size| Record::Alloc { time, at, size, align: 0, stack: 0 };
        let free = |time, at| Record::Free { time, at, stack: 0 };
        let first = [
            alloc(10, OLD, 100),
            Record::Resize { time: 30, began: 15, old: OLD, at: NEW, size: 700, stack: 0 },
            free(50, NEW),
        ];
        let second = [
            alloc(11, NEW, 30),
            // At the very time at which the first begins: its place was still its own.
            free(15, NEW),
            alloc(15, OLD, 40),
            free(40, OLD),
        ];
        let bytes =
            forge::file(&[forge::records(1, 0, 0, &first), forge::records(2, 0, 0, &second)]);
        let trace = Trace::read(&bytes).unwrap();
        let whats: Vec<_> = trace.events.iter().map(|event| event.what).collect();
        use What::{Alloc, Free, Leave, Resize};
        assert_eq!(whats, [Alloc, Alloc, Free, Leave, Alloc, Resize, Free, Free]);
        assert_eq!(double::find(&trace), []);
        let load = Workload::of(&trace).unwrap();
        assert_eq!((load.note(), load.blocks, load.peak_live), (None, 3, 740));
        assert_eq!(load.ops[4], (0, Op::Resize { block: 0, size: 700 }));
        assert_eq!(load.ops[5..], [(1, Op::Free { block: 2 }), (0, Op::Free { block: 0 })]);
    }
}
