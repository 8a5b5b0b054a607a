//! Giving memory back: whole free hugepages, some time after they became free.
//!
//! A purger takes a hugepage exactly as an allocator would, by its bit in the map, so no page is
//! released while someone holds it (model M7), and nobody waits: an allocator that comes meanwhile
//! takes another hugepage.

use super::heap::PageHeap;
use super::window::Window;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::Relaxed;
use crate::base::units::*;
use crate::os::{Os, Zeroed};
use core::ptr::{self, NonNull};

/// How often, at most, slow paths look for something to return, in milliseconds.
const TICK_MS: u64 = 250;
/// How long after it became free a hugepage is due when all of a burst is to be returned within
/// `decay` ms: a tenth of that for the last in its window's map word, then along a smoothstep, so that
/// what a burst leaves goes slowly at first and from the top down, and what is wanted again soon is
/// still there.
pub fn due_after(hugepage: Hugepage, decay: u32) -> u32 {
    let (count, place) =
        (HUGEPAGES_PER_MAP_WORD as u32, hugepage.0 % HUGEPAGES_PER_MAP_WORD as u32);
    // Rank 0 goes first. The inverse of 3x^2 - 2x^3, by bisection on 0..=256.
    let wanted = u64::from((count - 1 - place) * 256 / count);
    let (mut low, mut high) = (0u64, 256u64);
    while low < high {
        let x = (low + high) / 2;
        if (3 * 256 * x * x - 2 * x * x * x) >> 16 < wanted {
            low = x + 1;
        } else {
            high = x;
        }
    }
    let delay = decay / 10;
    delay + (u64::from(decay - delay) * low / 256) as u32
}

/// Milliseconds from `then` to `now`, on clocks that wrap; what was freed since `now` has no age.
fn age(then: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

impl<O: Os, M: Zeroed + Sync + 'static> PageHeap<O, M> {
    /// On slow paths: now and then, return what is due.
    pub fn tick(&self, now: u64) {
        let last = self.counters.last_tick.load(Relaxed);
        if now < last + TICK_MS {
            return;
        }
        // One thread per tick is enough; the others have no reason to wait for it.
        if self.counters.last_tick.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            let Some(decay) = self.policy().decay_ms() else { return };
            self.purge(|hugepage, age| age >= due_after(hugepage, decay));
        }
    }

    /// Returns the memory of every whole free hugepage for which `due(hugepage, age in ms)` holds.
    /// Answers how many bytes went back.
    pub fn purge(&self, due: impl Fn(Hugepage, u32) -> bool) -> usize {
        let now = self.now();
        let mut bytes = 0;
        for window in self.windows() {
            for index in 0..HUGEPAGES_PER_WINDOW {
                let hugepage = Hugepage(index as u32);
                let view = window.look(hugepage);
                if view.whole
                    && view.clean != WHOLE
                    && due(hugepage, age(view.freed_at, now))
                    && self.purge_hugepage(window, hugepage)
                {
                    bytes += HUGEPAGE;
                }
            }
        }
        self.counters.purged.fetch_add(bytes, Relaxed);
        bytes
    }

    fn purge_hugepage(&self, window: &Window<M>, hugepage: Hugepage) -> bool {
        if !seed::on(Seed::PurgeUnclaimed) && !window.claim_hugepage(hugepage) {
            return false;
        }
        let addr = window.address(hugepage.granule(0));
        let at = NonNull::new(ptr::with_exposed_provenance_mut(addr));
        // SAFETY: the hugepage is ours by its bit in the map, and free memory has no contents.
        let purged = at.is_some_and(|at| unsafe { self.os.purge(at, HUGEPAGE) });
        if purged && !seed::on(Seed::CleanseLate) {
            window.cleanse(hugepage);
        }
        if !seed::on(Seed::PurgeUnclaimed) {
            window.give_hugepages(hugepage, 1, self.now());
        }
        if purged && seed::on(Seed::CleanseLate) {
            window.cleanse(hugepage);
        }
        purged
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn age_wraps_and_is_never_negative() {
        assert_eq!(age(5, 9), 4);
        assert_eq!(age(u32::MAX, 1), 2);
        assert_eq!(age(9, 5), 0);
    }

    #[test]
    fn due_times_run_along_the_decay() {
        const DECAY: u32 = 10_000;
        let times: Vec<u32> = (0..64).rev().map(|h| due_after(Hugepage(h), DECAY)).collect();
        assert_eq!(times[0], DECAY / 10, "the last hugepage goes first");
        assert!(times.is_sorted(), "{times:?}");
        assert!(*times.last().unwrap() <= DECAY);
        // Half of a burst is left half way through.
        let half = DECAY / 10 + DECAY * 9 / 20;
        assert!((30..=34).contains(&times.iter().filter(|&&t| t < half).count()), "{times:?}");
        assert!((0..64).all(|h| due_after(Hugepage(h), 0) == 0));
    }
}
