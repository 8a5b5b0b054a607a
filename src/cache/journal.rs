//! What a thread is doing to its cache, so that a forked child can tell what another thread of its
//! parent, which it does not have, was in the middle of.
//!
//! Only `fork` ever reads it: a child's memory is what its parent's threads had written up to one
//! instruction each, in their own order. So the notes below are ordered by the program's order and
//! need no more than the compiler's and the processor's respect for it (`Release`).
//!
//! At any instruction `top` lies in one of the class's arrays and all slots below it hold objects; the
//! one that is being moved in or out may be missing. While a batch moves, the notes say which slots
//! still count: see [`Journal::split`].

use super::bin::Bin;
use super::sizing;
use super::{Caches, Mapped, ThreadCache};
use crate::base::classes::Class;
use crate::base::sync::AtomicU32;
use crate::base::sync::Ordering::{Relaxed, Release};
use crate::span::Objects;
use core::ptr;

/// Set in `class` while a bin is filled from below.
const REFILL: u32 = 1 << 16;

/// Stored by the owner alone.
#[derive(Debug)]
pub(super) struct Journal {
    /// 0, or the class at work plus one.
    class: AtomicU32,
    /// Of its bin's lowest objects, how many have left.
    given: AtomicU32,
    /// Of those above, how many have moved down to the bottom.
    moved: AtomicU32,
    /// Slow calls this thread is in: more than one where a signal handler interrupted one.
    depth: AtomicU32,
}

impl Journal {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                class: AtomicU32::new(0),
                given: AtomicU32::new(0),
                moved: AtomicU32::new(0),
                depth: AtomicU32::new(0),
            }
        }
    }

    pub(super) fn refilling(&self, class: Class) {
        self.class.store(REFILL | (class.index() as u32 + 1), Release);
    }

    pub(super) fn giving(&self, class: Class) {
        self.given.store(0, Relaxed);
        self.moved.store(0, Relaxed);
        self.class.store(class.index() as u32 + 1, Release);
    }

    /// The lowest `count` objects of the bin are not its own any more.
    pub(super) fn given(&self, count: usize) {
        self.given.store(count as u32, Release);
    }

    /// `count` objects have moved to the bottom.
    pub(super) fn moved(&self, count: usize) {
        self.moved.store(count as u32, Release);
    }

    pub(super) fn done(&self) {
        self.class.store(0, Release);
    }

    /// Slots of a bin of `held` objects that count: below the first bound, and from the second on.
    fn split(&self, class: Class, held: usize) -> (usize, usize) {
        if self.class.load(Relaxed) != class.index() as u32 + 1 {
            return (held, held);
        }
        let (given, moved) = (self.given.load(Relaxed) as usize, self.moved.load(Relaxed) as usize);
        (moved.min(held), (moved + given).min(held))
    }
}

impl ThreadCache {
    /// A slow call begins; answers how many this thread is in besides.
    pub fn enter(&self) -> u32 {
        let depth = self.journal.depth.load(Relaxed);
        self.journal.depth.store(depth + 1, Release);
        depth
    }

    /// A slow call ends.
    pub fn leave(&self) {
        self.journal.depth.store(self.journal.depth.load(Relaxed).saturating_sub(1), Release);
    }

    /// The objects that a thread which is gone had in this bin or was about to put there. Of those
    /// that were being put there some may be free in their spans already.
    ///
    /// # Safety
    /// No thread owns the cache or will adopt it meanwhile, and it is no pinned one.
    unsafe fn left_in(&self, class: Class, mut object: impl FnMut(*mut u8)) {
        let mapped = ptr::from_ref(self).cast::<Mapped>();
        let top = self.bin(class).top();
        // SAFETY: every cache that was ever owned is part of a `Mapped`.
        let slots = unsafe { core::cell::UnsafeCell::raw_get(&raw const (*mapped).slots) };
        let base = slots.addr();
        let rungs = (0..sizing::RUNGS).map_while(|index| sizing::rung(class, index));
        // The array that `top` points into: while a bin moves, the others do not count.
        let mut mine = rungs.filter(|rung| {
            let start = base + rung.offset * size_of::<super::bin::Slot>();
            let end = start + rung.capacity * size_of::<super::bin::Slot>();
            (start..=end).contains(&top)
        });
        let Some(rung) = mine.next() else { return };
        let held = (top - base) / size_of::<super::bin::Slot>() - rung.offset;
        let slot = |index: usize| {
            // SAFETY: a slot of this cache's array.
            unsafe { *slots.cast::<super::bin::Slot>().add(rung.offset + index) }
        };
        if self.journal.class.load(Relaxed) == REFILL | (class.index() as u32 + 1) {
            // Slots were cleared first.
            (0..rung.capacity.min(class.batch())).map(slot).for_each(&mut object);
            return;
        }
        let (below, from) = self.journal.split(class, held);
        (0..below).chain(from..held).map(slot).for_each(&mut object);
    }
}

impl<B: Objects> Caches<B> {
    /// In a forked child: the caches of threads it does not have. What they held goes to `object`, and
    /// they wait for new threads. Answers how many there were.
    ///
    /// # Safety
    /// The process, whose number is `now`, is a forked child; the caller is the thread that called
    /// `fork`, owns `mine`, and is in no other slow call.
    pub unsafe fn inherit(
        &self,
        mine: &ThreadCache,
        now: u32,
        mut object: impl FnMut(Class, *mut u8),
    ) -> usize {
        let mut inherited = 0;
        for cache in self.registry.iter().filter(|cache| cache.is_orphan(mine, now)) {
            for class in Class::all() {
                // SAFETY: its thread is not in this process, and it is not offered yet.
                unsafe { cache.left_in(class, |at| object(class, at)) };
            }
            cache.bins.iter().for_each(Bin::pin);
            cache.journal.done();
            cache.journal.depth.store(0, Relaxed);
            self.registry.offer(cache);
            inherited += 1;
        }
        inherited
    }

    /// The same while other threads of the child are on the floors below: a bin in which a batch was
    /// moving stays as it is, and what it held is lost.
    ///
    /// # Safety
    /// As [`Caches::inherit`].
    pub unsafe fn inherit_quiet(&self, mine: &ThreadCache, now: u32) {
        for cache in self.registry.iter().filter(|cache| cache.is_orphan(mine, now)) {
            // SAFETY: its thread is not in this process, and it is not offered yet.
            unsafe { self.clear_out(cache) };
            self.registry.offer(cache);
        }
    }

    /// Gives what a thread that is gone had in its cache to the floor below, and pins the bins.
    ///
    /// # Safety
    /// Its thread is gone, and nobody else has it or can have it meanwhile.
    pub(super) unsafe fn clear_out(&self, cache: &ThreadCache) {
        let at_work = cache.journal.class.load(Relaxed) & !REFILL;
        for class in Class::all().filter(|class| class.index() as u32 + 1 != at_work) {
            // SAFETY: the caller's promise.
            unsafe { cache.left_in(class, |at| self.below.give(class, &mut [at])) };
        }
        cache.bins.iter().for_each(Bin::pin);
        cache.journal.done();
        cache.journal.depth.store(0, Relaxed);
    }

    /// Whether [`Caches::inherit`] would find any.
    pub fn has_orphans(&self, mine: &ThreadCache, now: u32) -> bool {
        self.registry.iter().any(|cache| cache.is_orphan(mine, now))
    }
}
