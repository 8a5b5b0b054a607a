//! The building under test, and what must hold of it when a case is over.

use super::{Entry, Hand, Held, Tower};
use crate::shadow::Shadow;
use crate::system::System;
use spandrel::base::units::*;
use spandrel::page::PageHeap;
use spandrel::span::{Objects, SpanTable, Spans};
use spandrel::transfer::Transfer;
use spandrel::{Limit, Stats};
use std::alloc::Layout;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

/// A building on a system of its own, and the shadow of what is held of it.
pub struct Building {
    pub(super) tower: Box<Tower>,
    pub(super) shadow: Shadow,
    pub(super) entry: Entry,
    pub(super) passed: Mutex<Vec<Held>>,
    pub(super) threads: AtomicU32,
    /// Caches whose threads died without giving them back.
    pub(super) dead: AtomicU32,
    /// Bytes of runs that are held.
    pub(super) runs: AtomicUsize,
    /// Limits of the allocator's own are set.
    pub(super) limited: AtomicBool,
    /// A case with several threads has made something fail.
    pub(super) troubled: AtomicBool,
}

impl Building {
    /// A new one, on a system with pages of that size.
    pub fn new(entry: Entry, page_size: usize) -> Self {
        // SAFETY: a building of zeros is one in its first state; every floor says so of itself, and
        // `System` does.
        let tower = unsafe {
            let at = std::alloc::alloc_zeroed(Layout::new::<Tower>());
            assert!(!at.is_null());
            Box::from_raw(at.cast::<Tower>())
        };
        tower.below().os().begin(page_size);
        Self {
            tower,
            shadow: Shadow::default(),
            entry,
            passed: Mutex::default(),
            threads: AtomicU32::new(1),
            dead: AtomicU32::new(0),
            runs: AtomicUsize::new(0),
            limited: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
        }
    }

    /// Its system.
    pub fn system(&self) -> &System {
        self.pages().os()
    }

    pub(super) fn transfer(&self) -> &Transfer<Spans<System>> {
        self.tower.below()
    }

    pub(super) fn spans(&self) -> &Spans<System> {
        self.transfer().below()
    }

    pub(super) fn pages(&self) -> &PageHeap<System, SpanTable> {
        self.spans().pages()
    }

    /// Where its bytes are.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.tower)
    }

    pub(super) fn may_fail(&self) -> bool {
        let ill = !self.system().is_healthy() || self.limited.load(Relaxed);
        // Among several threads another one may have healed what this one's call met.
        ill || self.troubled.load(Relaxed)
    }

    /// Sets the hard limit.
    pub fn limit(&self, limit: Limit) {
        use spandrel::os::Os;
        self.limited.store(true, Relaxed);
        self.pages().policy().set_hard(limit, || self.system().memory_limit());
    }

    pub(super) fn well_again(&self) {
        self.system().heal();
        self.pages().policy().set_hard(Limit::None, || None);
        self.pages().policy().set_soft(Limit::None, || None);
        self.limited.store(false, Relaxed);
    }

    /// The same at the end of a case, when nobody else works.
    pub(super) fn well_for_good(&self) {
        self.well_again();
        self.troubled.store(false, Relaxed);
    }

    /// The end of a case, after its hands have given everything back: nothing is lost, everything is
    /// whole, and what was refused is served. Takes the whole building away.
    #[track_caller]
    pub fn close(self) {
        let mut last = Hand::new(&self);
        self.well_for_good();
        last.collect_all();
        last.give_all();
        last.serve();
        last.inherit_from_the_dead();
        last.retire();
        self.transfer().flush();
        let stats = self.books();
        assert_eq!(self.spans().check().map_err(|(_, what)| what), Ok(0), "{stats}");
        assert_eq!((stats.live, stats.cached, stats.in_transfer), (0, 0, 0), "{stats}");
        // Nothing is lost but what the system would not take back.
        let pages = self.pages().counts();
        assert!(
            pages.stranded <= self.system().most_lost(),
            "more is lost than was refused: {stats}"
        );
        // Every granule that is not lost is free.
        let free = stats.free_granules + stats.returned;
        let hugepages = self.pages().windows();
        let ours: usize =
            hugepages.map(|w| (0..512).filter(|&h| w.owns(Hugepage(h))).count() * HUGEPAGE).sum();
        assert!(free <= ours && free + pages.stranded >= ours, "{stats}");
        // And buddies that are free are the bigger run: every hugepage is whole.
        // A granule that is lost breaks one of them at most.
        let hugepages = self.pages().windows().flat_map(|w| (0..512).map(move |h| (w, h)));
        let broken = hugepages.filter(|(w, h)| w.owns(Hugepage(*h)) && !w.look(Hugepage(*h)).whole);
        assert!(broken.count() * GRANULE <= pages.stranded, "{stats}");
        // SAFETY: everything was given back, no hand is left, and the tower goes next.
        unsafe { self.system().end() };
    }

    /// The parts add up to the whole. Only while nobody works.
    #[track_caller]
    pub(super) fn books(&self) -> Stats {
        for window in self.pages().windows() {
            window.check().expect("the books of a window balance");
        }
        let stats = self.stats();
        // Nothing on a run that was taken here says that it is in use.
        let runs = self.runs.load(Relaxed);
        assert_eq!(stats.accounted() + runs, stats.mapped, "{runs} in runs\n{stats}");
        stats
    }
}
