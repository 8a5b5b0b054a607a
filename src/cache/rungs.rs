//! How bins grow and shrink: by rungs of a ladder of capacities ([`sizing`] has the numbers), what goes to the
//! floor below when one is full, and what is given back when a thread does not come for it.

use super::apart::Apart;
use super::{Caches, Mapped, Owner, ThreadCache, add, bin, ptr, sizing};
use crate::base::classes::Class;
use crate::span::Objects;
use sizing::Event;

impl Owner {
    /// Slots of a bin's array; 0 for a bin without one.
    pub(super) fn capacity(&self, class: Class) -> usize {
        match self.rungs[class.index()] as usize {
            0 => 0,
            held => sizing::capacity(class, held - 1),
        }
    }
}

impl<B: Objects> Caches<B> {
    /// Moves a bin one rung up if it should and may; answers its capacity. A bin without an array
    /// gets its first.
    pub(super) fn climb(
        &self,
        cache: &ThreadCache,
        owner: &mut Owner,
        class: Class,
        now: Event,
    ) -> usize {
        let last = core::mem::replace(&mut owner.last[class.index()], now);
        let rungs = owner.rungs[class.index()] as usize;
        if self.mode() != 0 && self.below.is_thin(class) {
            self.forgo(cache, owner, class);
            return 0;
        }
        let capacity = owner.capacity(class);
        if !sizing::wants_more(class, capacity, last, now) {
            return capacity;
        }
        let Some(rung) = sizing::rung(class, rungs) else {
            return capacity;
        };
        let more = sizing::cost(class, rungs)
            - if rungs == 0 { 0 } else { sizing::cost(class, rungs - 1) };
        // The first rung is free, also while a budget that has shrunk is overdrawn.
        if more != 0 && owner.used + more > owner.budget {
            owner.denied = true;
            return capacity;
        }
        owner.used += more;
        owner.rungs[class.index()] += 1;
        self.set_rung(cache, class, rung);
        rung.capacity
    }

    /// Gives all that a bin holds to the floor below, and its array up.
    pub(super) fn forgo(&self, cache: &ThreadCache, owner: &mut Owner, class: Class) {
        self.give_first(cache, class, cache.bin(class).len());
        owner.apart[class.index()] = Apart::NO;
        let rungs = core::mem::replace(&mut owner.rungs[class.index()], 0) as usize;
        if rungs != 0 {
            owner.used -= sizing::cost(class, rungs - 1);
            // SAFETY: the caller owns the cache; a null array pins the bin, which is empty now.
            unsafe { cache.bin(class).set_array(ptr::null_mut(), 0) };
        }
    }

    pub(super) fn set_rung(&self, cache: &ThreadCache, class: Class, rung: sizing::Rung) {
        let mapped = ptr::from_ref(cache).cast::<Mapped>();
        // SAFETY: every cache but the two pinned statics, which have no owner, is part of a
        // `Mapped`; the rung's array lies in its slots and no other bin or rung uses it.
        unsafe {
            let slots = core::cell::UnsafeCell::raw_get(&raw const (*mapped).slots);
            cache.bin(class).set_array(slots.cast::<bin::Slot>().add(rung.offset), rung.capacity);
        }
    }

    /// Gives the `count` oldest objects of a bin to the floor below and keeps the hottest; of larger
    /// objects the highest go.
    pub(super) fn give_oldest(&self, cache: &ThreadCache, class: Class, count: usize) {
        if class.size() > sizing::SCATTERED {
            // SAFETY: the caller owns the cache.
            let objects = unsafe { cache.bin(class).objects() };
            if count < objects.len() {
                // The lowest stay, whatever their age, so that the spans above may end.
                objects.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        self.give_first(cache, class, count);
    }

    /// Gives the first `count` objects of a bin's array to the floor below.
    pub(super) fn give_first(&self, cache: &ThreadCache, class: Class, count: usize) {
        if count == 0 {
            return;
        }
        let bin = cache.bin(class);
        // SAFETY: the caller owns the cache and uses the bin again only below.
        let objects = unsafe { bin.objects() };
        let held = objects.len();
        let journal = &cache.journal;
        journal.giving(class);
        let mut given = 0;
        for batch in objects[..count].chunks_mut(class.batch()) {
            given += batch.len();
            self.below.give_noting(class, batch, || journal.given(given));
        }
        // Not in one `copy_within`: no object may be in registers only.
        let mut moved = 0;
        while moved < held - count {
            let more = count.min(held - count - moved);
            let (to, from) = objects[moved..].split_at_mut(count);
            to[..more].copy_from_slice(&from[..more]);
            moved += more;
            journal.moved(moved);
        }
        // SAFETY: the hottest objects now lie at the front.
        unsafe { bin.set_len(held - count) };
        journal.done();
        add(&cache.counters.spills, 1);
        add(&cache.counters.spilled, count);
    }

    /// The thread frees more than it allocates: it keeps nothing, and its bins start again from below. What
    /// it kept would stay where it is when it goes to sleep now, and each object would keep a span.
    pub(super) fn release(&self, cache: &ThreadCache, owner: &mut Owner) {
        owner.surplus = 0;
        owner.missed = owner.release_at;
        for class in Class::all() {
            // A bin without an array holds nothing.
            if owner.rungs[class.index()] != 0 {
                self.forgo(cache, owner, class);
            }
        }
    }

    /// Now and then: give back most of what no allocation has reached since the last look. Answers whether
    /// it did.
    pub(super) fn sweep_sometimes(&self, cache: &ThreadCache, owner: &mut Owner) -> bool {
        owner.calls += 1;
        if owner.calls.is_multiple_of(sizing::TICK_EVERY) {
            self.below.tick();
        }
        if owner.calls < sizing::SWEEP_EVERY {
            return false;
        }
        owner.calls = 0;
        add(&cache.counters.sweeps, 1);
        for class in Class::all() {
            let bin = cache.bin(class);
            if let Some(count) = owner.apart[class.index()].count(bin) {
                self.give_first(cache, class, count);
                self.part(cache, owner, class, 0);
                continue;
            }
            let unused = bin.marked();
            if unused > 0 {
                self.give_oldest(cache, class, sizing::surplus(unused));
                self.step_down(cache, owner, class);
            }
            bin.mark(bin.len());
        }
        owner.budget = sizing::next_budget(owner.budget, owner.denied);
        owner.release_at = (owner.release_at / 2).max(sizing::RELEASE);
        owner.denied = false;
        true
    }

    /// A bin that had a surplus goes one rung down, if what it holds fits there.
    fn step_down(&self, cache: &ThreadCache, owner: &mut Owner, class: Class) {
        let rungs = owner.rungs[class.index()] as usize;
        if rungs < 2 {
            return;
        }
        let Some(lower) = sizing::rung(class, rungs - 2) else {
            return;
        };
        if cache.bin(class).len() <= lower.capacity {
            owner.used -= sizing::cost(class, rungs - 1) - sizing::cost(class, rungs - 2);
            owner.rungs[class.index()] -= 1;
            self.set_rung(cache, class, lower);
        }
    }
}
