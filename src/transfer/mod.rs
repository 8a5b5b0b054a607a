//! The transfer cache: batches on their way between threads, one lock-free stack per class.
//!
//! A thread cache that runs dry pops a node, one that overflows pushes one; either is a single
//! compare-and-swap for up to 62 objects. Empty nodes wait on one more stack of the same kind. Neighbours go home
//! once some wait.

pub mod capacity;
pub mod node;
pub mod stack;

use crate::base::classes::{CLASSES, Class};
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::{AtomicU8, AtomicU32, AtomicU64};
use crate::base::units::BATCH;
use crate::os::Os;
use crate::span::{self, Objects};
use core::ptr;
use crossbeam_utils::CachePadded;
use node::{Batch, Nodes};
use stack::Stack;

/// The transfer cache over a floor that deals in objects.
#[derive(Debug)]
pub struct Transfer<B> {
    below: B,
    shelves: [CachePadded<Shelf>; CLASSES],
    empty: CachePadded<Stack>,
    nodes: Nodes,
    /// When the last look was, in milliseconds, and how far the heap had grown then.
    looked_at: AtomicU64,
    grown: AtomicU64,
}

/// One class. Alone on its cache lines.
#[derive(Debug)]
struct Shelf {
    full: Stack,
    /// Nodes it has room for, and one; 0 until that is not what it was at first. Any thread; a lost update costs
    /// one decision.
    room: AtomicU32,
    /// Nodes refused since the last miss. Any thread; a lost update makes the next decision a little worse.
    refused: AtomicU32,
    /// The fewest nodes since the last look. Any thread; a lost update costs one look.
    low: AtomicU32,
    /// 1 after a node was taken, until the next look.
    taken: AtomicU8,
    misses: AtomicU64,
    refusals: AtomicU64,
}

impl Shelf {
    /// How many nodes may wait.
    fn room(&self, class: Class) -> u32 {
        self.room.load(Relaxed).checked_sub(1).unwrap_or_else(|| capacity::at_first(class))
    }

    fn set_room(&self, nodes: u32) {
        self.room.store(nodes + 1, Relaxed);
    }
}

/// One class's counts at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShelfCounts {
    /// Objects waiting. Exact while nobody takes or gives.
    pub objects: usize,
    /// Takes that found no node.
    pub misses: u64,
    /// Gives that found no room.
    pub refusals: u64,
    /// Exchanges that another thread made fail.
    pub retries: u64,
}

impl<B: Objects> Transfer<B> {
    const_fn! {
        /// An empty transfer cache over `below`; all zero bits if `below` is.
        pub fn new(below: B) -> Self {
            Self {
                below,
                shelves: array![
                    CachePadded::new(Shelf {
                        full: Stack::new(),
                        room: AtomicU32::new(0),
                        refused: AtomicU32::new(0),
                        low: AtomicU32::new(0),
                        taken: AtomicU8::new(0),
                        misses: AtomicU64::new(0),
                        refusals: AtomicU64::new(0),
                    });
                    CLASSES
                ],
                empty: CachePadded::new(Stack::new()),
                nodes: Nodes::new(),
                looked_at: AtomicU64::new(0),
                grown: AtomicU64::new(0),
            }
        }
    }

    /// The floor below.
    pub fn below(&self) -> &B {
        &self.below
    }

    /// Gives everything that waits here back to the floor below.
    pub fn flush(&self) {
        for class in Class::all() {
            self.give_back(class, self.shelves[class.index()].full.count());
        }
    }

    /// Gives up to `nodes` nodes of a class back; a bound, so that nobody can keep this going.
    fn give_back(&self, class: Class, nodes: u32) {
        for _ in 0..nodes {
            let Some(mut batch) = self.shelves[class.index()].full.pop(&self.nodes) else { return };
            let mut objects = [ptr::null_mut(); BATCH];
            let count = batch.drain(&mut objects);
            self.recycle(batch);
            self.below.give(class, &mut objects[..count]);
        }
    }

    /// Gives back most of what nobody has taken since the last look. A few waiting objects can keep
    /// many spans, so a class that is no longer wanted must not wait here for ever.
    ///
    /// While the heap grows, all of it: freed in random order, a mebibyte of small objects keeps a
    /// hundred of memory that other classes could have.
    fn trim(&self, growing: bool) {
        for class in Class::all() {
            let shelf = &self.shelves[class.index()];
            let waiting = shelf.full.count();
            let taken = shelf.taken.load(Relaxed) != 0;
            let unused = if taken { shelf.low.load(Relaxed).min(waiting) } else { waiting };
            if unused > 0 {
                let surplus = if growing { unused } else { capacity::surplus(unused) };
                self.give_back(class, surplus);
                shelf.set_room(capacity::after_trim(class, shelf.room(class)));
            }
            shelf.low.store(shelf.full.count(), Relaxed);
            shelf.taken.store(0, Relaxed);
        }
    }

    /// Where the nodes lie, and how many bytes they have.
    pub fn each_record(&self, see: impl FnMut(usize, usize)) {
        self.nodes.each_record(see);
    }

    /// Fills `out` from the nodes that wait.
    fn take_waiting(&self, class: Class, out: &mut [*mut u8]) -> usize {
        let shelf = &self.shelves[class.index()];
        let mut got = 0;
        while got < out.len()
            && let Some(mut batch) = shelf.full.pop(&self.nodes)
        {
            got += batch.drain(&mut out[got..]);
            if batch.is_empty() {
                self.recycle(batch);
            } else if let Err(mut batch) = shelf.full.push(batch, stack::MAX_COUNT) {
                let mut rest = [ptr::null_mut(); BATCH];
                let left = batch.drain(&mut rest);
                self.recycle(batch);
                self.below.give(class, &mut rest[..left]);
            }
        }
        let waiting = shelf.full.count();
        if got > 0 {
            shelf.taken.store(1, Relaxed);
            if waiting < shelf.low.load(Relaxed) {
                shelf.low.store(waiting, Relaxed);
            }
        }
        got
    }

    fn recycle(&self, mut batch: Batch<'_>) {
        batch.fill(&[]);
        // A limit above the count's range is never reached.
        let kept = self.empty.push(batch, u32::MAX);
        debug_assert!(kept.is_ok());
    }

    /// Whether the heap has grown so much since the last look that the next should not wait for its time.
    pub fn is_growing(&self) -> bool {
        self.below.growth() >= self.grown.load(Relaxed) + capacity::LOOK_EVERY_GROWTH
    }

    /// Whether anything waits here.
    pub fn is_waiting(&self) -> bool {
        self.shelves.iter().any(|shelf| shelf.full.count() != 0)
    }

    /// In a forked child: empties every node, on a stack or in the hands of a thread that the child
    /// does not have, and shows their objects to `object`.
    ///
    /// # Safety
    /// No other thread uses the transfer cache, and the caller holds no node.
    pub unsafe fn inherit(&self, mut object: impl FnMut(*mut u8)) {
        for shelf in &self.shelves {
            shelf.full.clear();
            shelf.low.store(0, Relaxed);
        }
        self.empty.clear();
        let mut objects = [ptr::null_mut(); BATCH];
        // SAFETY: the caller's promise: no node is on a stack or in anybody's hands.
        unsafe {
            self.nodes.reclaim(|mut batch| {
                let count = batch.drain(&mut objects);
                objects[..count].iter().for_each(|&at| object(at));
                self.recycle(batch);
            });
        }
    }

    /// The addresses of the objects of a class that wait here, for reports: exact while nobody takes or
    /// gives.
    #[cfg(not(spandrel_model))]
    pub fn look(&self, class: Class, mut object: impl FnMut(usize)) {
        self.shelves[class.index()].full.walk(&self.nodes, |id| self.nodes.look(id, &mut object));
    }

    /// One class's counts.
    pub fn counts(&self, class: Class) -> ShelfCounts {
        let shelf = &self.shelves[class.index()];
        let mut objects = 0;
        shelf.full.walk(&self.nodes, |id| objects += self.nodes.len(id));
        ShelfCounts {
            objects,
            misses: shelf.misses.load(Relaxed),
            refusals: shelf.refusals.load(Relaxed),
            retries: shelf.full.retries.get(),
        }
    }

    /// Failed exchanges on the stack of empty nodes.
    pub fn empty_retries(&self) -> u64 {
        self.empty.retries.get()
    }

    /// Bytes mapped for nodes.
    pub fn metadata(&self) -> usize {
        self.nodes.mapped(self.below.os().page_size()).1
    }
}

impl<B: Objects> Objects for Transfer<B> {
    type System = B::System;

    fn os(&self) -> &B::System {
        self.below.os()
    }

    fn take(&self, class: Class, out: &mut [*mut u8]) -> usize {
        let waiting = self.take_waiting(class, out);
        if waiting > 0 {
            return waiting;
        }
        let shelf = &self.shelves[class.index()];
        shelf.misses.fetch_add(1, Relaxed);
        let refused = shelf.refused.load(Relaxed);
        if refused != 0 {
            shelf.refused.store(0, Relaxed);
            shelf.set_room(capacity::after_miss(class, shelf.room(class), refused));
        }
        self.tick();
        match self.below.take(class, out) {
            0 => {
                // Nothing below: what other classes have waiting here may end whole spans.
                self.flush();
                self.below.take(class, out)
            }
            count => count,
        }
    }

    fn tick(&self) {
        let now = self.os().now_ms();
        let looked_at = self.looked_at.load(Relaxed);
        let growth = self.below.growth();
        let growing = self.is_growing();
        if now < looked_at + capacity::LOOK_EVERY_MS && !growing {
            return;
        }
        // One thread per look is enough; the others have no reason to wait for it.
        self.grown.store(growth, Relaxed);
        if self.looked_at.compare_exchange(looked_at, now, Relaxed, Relaxed).is_ok() {
            if self.below.pressed() {
                self.flush();
            } else {
                self.trim(growing);
            }
            self.below.tick();
        }
    }

    fn pressed(&self) -> bool {
        self.below.pressed()
    }

    fn growth(&self) -> u64 {
        self.below.growth()
    }

    fn is_thin(&self, class: Class) -> bool {
        self.below.is_thin(class)
    }

    fn give(&self, class: Class, objects: &mut [*mut u8]) {
        self.give_noting(class, objects, || {});
    }

    fn give_noting(&self, class: Class, objects: &mut [*mut u8], leaving: impl FnOnce()) {
        let shelf = &self.shelves[class.index()];
        // What was built in order and is dropped in order would be handed out in ever less of an order from here; from
        // its spans it comes by rising addresses again. A little that comes and goes does not get out of the caches.
        if span::are_neighbours(class, objects) && shelf.full.count() >= capacity::in_order(class) {
            leaving();
            return self.below.give_neighbours(class, objects);
        }
        let limit = if self.below.is_thin(class) { 0 } else { shelf.room(class) };
        let node = if shelf.full.count() < limit {
            self.empty.pop(&self.nodes).or_else(|| self.nodes.make(self.below.os()))
        } else {
            None
        };
        if let Some(mut batch) = node {
            batch.fill(objects);
            leaving();
            match shelf.full.push(batch, limit) {
                Ok(()) => return,
                Err(batch) => self.recycle(batch),
            }
        } else {
            leaving();
        }
        shelf.refusals.fetch_add(1, Relaxed);
        let refused = shelf.refused.load(Relaxed);
        shelf.refused.store(refused.saturating_add(1), Relaxed);
        self.below.give(class, objects);
    }
}
