//! Grounds for a floor to stand on when the ones below it are not what is modelled.

use spandrel::base::classes::Class;
use spandrel::base::units::*;
use spandrel::os::Zeroed;
use spandrel::os::fake::Fake;
use spandrel::page::PageHeap;
use spandrel::span::{Objects, Spans};
use std::ptr;
use std::sync::Mutex;

/// The floor above a page heap that stands alone: nothing per window.
#[derive(Debug)]
pub struct Nothing;

// SAFETY: it has no bytes.
unsafe impl Zeroed for Nothing {
    fn zeroed() -> Self {
        Self
    }
}

/// A floor that deals in made-up objects and keeps what it is given. Invisible to the checker: it
/// adds no interleavings and no ordering.
pub struct Ground {
    os: Fake,
    kept: Mutex<Vec<(Class, usize)>>,
    thin: bool,
}

impl Ground {
    /// A ground that keeps nothing.
    pub fn new() -> Self {
        Self { os: Fake::new(true), kept: Mutex::new(Vec::new()), thin: false }
    }

    /// One on which every class is thin.
    pub fn thin() -> Self {
        Self { thin: true, ..Self::new() }
    }

    /// What it keeps, lowest first.
    pub fn kept(&self) -> Vec<usize> {
        let mut kept: Vec<_> =
            self.kept.lock().unwrap().iter().map(|(_, object)| *object).collect();
        kept.sort_unstable();
        kept
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Objects for Ground {
    type System = Fake;

    fn os(&self) -> &Fake {
        &self.os
    }

    fn take(&self, class: Class, out: &mut [*mut u8]) -> usize {
        let mut kept = self.kept.lock().unwrap();
        let mut got = 0;
        while got < out.len()
            && let Some(at) = kept.iter().position(|(its, _)| *its == class)
        {
            out[got] = ptr::with_exposed_provenance_mut(kept.swap_remove(at).1);
            got += 1;
        }
        got
    }

    fn give(&self, class: Class, objects: &mut [*mut u8]) {
        let mut kept = self.kept.lock().unwrap();
        kept.extend(objects.iter().map(|object| (class, object.addr())));
    }

    fn is_thin(&self, _: Class) -> bool {
        self.thin
    }
}

/// All granules of a window but its first, as runs.
const REST: [(usize, usize); 3] = [(1, 1), (2, 2), (4, 4)];

/// Spans on a page heap on a made-up system, and objects that main took for the threads.
pub struct Stock {
    /// The span floor.
    pub spans: Spans<Fake>,
    /// What main took, in order.
    pub objects: Vec<usize>,
}

impl Stock {
    /// Takes `count` objects of `class`.
    pub fn new(class: Class, count: usize) -> Self {
        let spans = Spans::new(PageHeap::new(Fake::new(true)));
        let mut stock = Self { spans, objects: Vec::new() };
        stock.objects = stock.take(class, count);
        assert_eq!(stock.objects.len(), count);
        stock
    }

    /// Takes every granule but the first, which holds a span, and lets the system have no more.
    pub fn starve(&self) {
        for (first, count) in REST {
            let run = self.spans.pages().take(order_for(count), count).unwrap();
            assert_eq!(run.address(), WINDOW + first * GRANULE);
        }
        self.spans.os().starve();
    }

    /// Gives all those granules back.
    pub fn sate(&self) {
        let pages = self.spans.pages();
        let window = pages.windows().next().unwrap();
        for (first, count) in REST {
            pages.give(window, Granule(first as u32), count);
        }
    }

    /// Takes up to `count` objects into the caller's hands.
    pub fn take(&self, class: Class, count: usize) -> Vec<usize> {
        let mut out = [ptr::null_mut(); 4];
        let got = self.spans.take(class, &mut out[..count]);
        // As a cache does: from the end.
        let got: Vec<usize> = out[..got].iter().rev().map(|object| object.addr()).collect();
        for &object in &got {
            self.spans.os().hold(object, class.size());
        }
        got
    }

    /// Gives objects out of the caller's hands.
    pub fn give(&self, class: Class, objects: &[usize]) {
        let mut out = [ptr::null_mut(); 4];
        for (slot, &object) in out.iter_mut().zip(objects) {
            self.spans.os().release(object, class.size());
            *slot = ptr::with_exposed_provenance_mut(object);
        }
        self.spans.give(class, &mut out[..objects.len()]);
    }

    /// The books balance: what is not free is in somebody's hands. Then all of that comes home and
    /// nothing is left: every span has died once and every granule is free.
    pub fn close(&self, class: Class) {
        let mut held = self.spans.os().held();
        held.retain(|cell| cell.is_multiple_of(class.size()));
        assert_eq!(self.spans.check(), Ok(held.len()), "the books do not balance");
        for object in held {
            self.give(class, &[object]);
        }
        assert_eq!(self.spans.check(), Ok(0), "the books do not balance in the end");
        let counts = self.spans.counts();
        assert_eq!(counts.begun, counts.died, "a span is left");
        for window in self.spans.pages().windows() {
            assert_eq!(window.check(), Ok(GRANULES_PER_WINDOW), "granules are missing");
        }
    }
}

/// A page heap alone on a made-up system, and runs that main took for the threads.
pub struct Heap {
    /// The page heap.
    pub pages: PageHeap<Fake, Nothing>,
    /// What main took: the first granule's address and how many.
    pub runs: Vec<(usize, usize)>,
}

impl Heap {
    /// A heap with one window, and a run for each order and count.
    pub fn new(runs: &[(u32, usize)]) -> Self {
        let mut heap = Self::fresh(true);
        // So that the window is there, whatever is taken, and its first hugepage was used.
        if let Some(run) = heap.hold(0, 1) {
            heap.give_back(run);
        }
        for &(order, count) in runs {
            let run = heap.hold(order, count);
            heap.runs.extend(run);
        }
        heap
    }

    /// A heap that has asked for nothing yet, on a system that maps whole windows or does not.
    pub fn fresh(whole_windows: bool) -> Self {
        Self { pages: PageHeap::new(Fake::new(whole_windows)), runs: Vec::new() }
    }

    /// Takes a run into the caller's hands: its address, and how many granules.
    pub fn hold(&self, order: u32, count: usize) -> Option<(usize, usize)> {
        let run = self.pages.take(order, count)?;
        let (addr, bytes) = (run.address(), count * GRANULE);
        let seen = self.pages.find(addr).expect("granules in no window");
        assert!(ptr::eq(seen, run.window), "two windows hold one address");
        assert!(!run.zeroed || self.pages.os().is_zero(addr, bytes), "known zeros are not zero");
        self.pages.os().hold(addr, bytes);
        Some((addr, count))
    }

    /// Gives a run out of the caller's hands.
    pub fn give_back(&self, (addr, count): (usize, usize)) {
        self.pages.os().release(addr, count * GRANULE);
        let window = self.pages.find(addr).expect("granules in no window");
        self.pages.give(window, Granule::of(addr), count);
    }

    /// Takes a run into the caller's hands: its first granule, counted over all windows, and how
    /// many.
    pub fn take(&self, order: u32, count: usize) -> Option<(usize, usize)> {
        self.hold(order, count).map(|(addr, count)| ((addr - WINDOW) / GRANULE, count))
    }

    /// Gives one of main's runs.
    pub fn give(&self, which: usize) -> Option<(usize, usize)> {
        self.give_back(self.runs[which]);
        None
    }

    /// The books balance: what is not free is in somebody's hands. Then all of it comes home and
    /// every granule that is ours is free.
    pub fn close(&self) {
        let mut held = self.pages.os().held();
        held.retain(|cell| cell.is_multiple_of(GRANULE));
        self.audit(held.len());
        for addr in held {
            self.give_back((addr, 1));
        }
        self.audit(0);
    }

    fn audit(&self, held: usize) {
        let (mut free, mut ours) = (0, 0);
        for window in self.pages.windows() {
            match window.check() {
                Ok(granules) => free += granules,
                Err(broken) => panic!("the books do not balance: {broken:?}"),
            }
            for hugepage in (0..HUGEPAGES_PER_WINDOW as u32).map(Hugepage) {
                ours += usize::from(window.owns(hugepage)) * GRANULES_PER_HUGEPAGE;
                let clean = window.look(hugepage).clean;
                for bit in (0..GRANULES_PER_HUGEPAGE as u32).filter(|bit| clean & (1 << bit) != 0) {
                    let addr = window.address(hugepage.granule(bit));
                    assert!(self.pages.os().is_zero(addr, GRANULE), "known zeros are not zero");
                }
            }
        }
        assert_eq!(free + held, ours, "the books do not balance: granules are missing");
    }
}
