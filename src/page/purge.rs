//! Giving memory back: whole free hugepages first, some time after they became free, then what is free
//! in hugepages that are hardly used.
//!
//! A purger takes granules exactly as an allocator would, by their bits, so no page is released while
//! someone holds it (model M7), and nobody waits: an allocator that comes meanwhile takes others.

use super::heap::PageHeap;
use super::window::{HugepageView, Window, runs};
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::Relaxed;
use crate::base::units::*;
use crate::os::{Os, Zeroed};
use core::ptr::{self, NonNull};

/// How often, at most, slow paths look for something to return, in milliseconds.
pub const TICK_MS: u64 = 250;
/// A hugepage that the system holds as one is broken when no more than this many of its granules are
/// in use: a quarter. What it would give is then worth more than one large page.
const HARDLY_USED: u32 = GRANULES_PER_HUGEPAGE as u32 / 4;
/// Hugepages put together again per tick, at about half a millisecond each.
const COLLAPSES: usize = 2;

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

/// What is free in a hugepage that is in use.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Granules in use.
    pub used: u32,
    /// Milliseconds since the last of the others came home.
    pub age: u32,
    /// Whether the system was asked to hold the hugepage as one page.
    pub asked: bool,
    /// Whether it may hold it so now, which returning a part would break.
    pub huge: bool,
    /// Free granules that may have memory behind them, and whether some of them were in use before.
    resident: u64,
    dirty: bool,
}

impl Part {
    fn due(&self, decay: u32) -> bool {
        self.age >= decay / 4 * 3 && self.worth_it()
    }

    fn worth_it(&self) -> bool {
        !self.huge || self.used <= HARDLY_USED
    }
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
            self.forget_payments();
            self.decay(now as u32);
        }
    }

    /// Returns what is due by its age and by what demand is expected to leave free.
    fn decay(&self, now: u32) {
        let Some(decay) = self.policy().decay_ms() else { return };
        let mut kept = self.demand.note(self.hugepages_in_use(), now, decay);
        self.purge(|hugepage, age| {
            if kept > 0 && age < decay {
                kept -= 1;
                return false;
            }
            age >= due_after(hugepage, decay)
        });
        self.purge_parts(|part| part.due(decay));
        self.collapse();
    }

    fn hugepages_in_use(&self) -> u32 {
        self.windows().map(Window::hugepages_in_use).sum()
    }

    /// Returns all that can be returned now, whole hugepages and parts. Answers how many bytes went
    /// back.
    pub fn purge_all(&self) -> usize {
        self.purge(|_, _| true) + self.purge_parts(|_| true)
    }

    /// Returns the memory of every whole free hugepage for which `due(hugepage, age in ms)` holds, the
    /// lowest first. Answers how many bytes went back.
    pub fn purge(&self, mut due: impl FnMut(Hugepage, u32) -> bool) -> usize {
        let now = self.now();
        let mut bytes = 0;
        for window in self.windows() {
            for index in 0..HUGEPAGES_PER_WINDOW {
                let hugepage = Hugepage(index as u32);
                let view = window.look(hugepage);
                if view.whole && view.clean != WHOLE && due(hugepage, age(view.freed_at, now)) {
                    bytes += self.purge_hugepage(window, hugepage);
                }
            }
        }
        self.returned(bytes);
        bytes
    }

    /// Returns the memory of whole free hugepages, the highest first, and then of the free parts of
    /// hugepages that are mostly free, until that is `bytes`. Answers how many bytes went back.
    pub(super) fn purge_idle(&self, bytes: usize) -> usize {
        let mut left = bytes;
        if left == 0 {
            return 0;
        }
        let mut purged = 0;
        for window in self.windows() {
            for index in (0..HUGEPAGES_PER_WINDOW).rev() {
                let hugepage = Hugepage(index as u32);
                let view = window.look(hugepage);
                if left != 0 && view.whole && view.clean != WHOLE {
                    let here = self.purge_hugepage(window, hugepage);
                    self.returned(here);
                    purged += here;
                    left = left.saturating_sub(here);
                }
            }
        }
        purged
            + self.purge_parts(|part| {
                let free = GRANULES_PER_HUGEPAGE as u32 - part.used;
                // What is about to be filled for the first time is not idle.
                let wanted = left != 0 && part.dirty && (!part.asked || free >= part.used);
                if wanted {
                    left = left.saturating_sub(free as usize * GRANULE);
                }
                wanted
            })
    }

    fn purge_hugepage(&self, window: &Window<M>, hugepage: Hugepage) -> usize {
        if !seed::on(Seed::PurgeUnclaimed) && !window.claim_hugepage(hugepage) {
            return 0;
        }
        let addr = window.address(hugepage.granule(0));
        let at = NonNull::new(ptr::with_exposed_provenance_mut(addr));
        // SAFETY: the hugepage is ours by its bit in the map, and free memory has no contents.
        let purged = at.is_some_and(|at| unsafe { self.os.purge(at, HUGEPAGE) });
        let mut granules = 0;
        if purged && !seed::on(Seed::CleanseLate) {
            granules = window.cleanse(hugepage, WHOLE);
            window.set_broken(hugepage, false);
        }
        // SAFETY: the hugepage is ours: no object in it is held.
        unsafe { self.forget(addr, HUGEPAGE) };
        if !seed::on(Seed::PurgeUnclaimed) {
            window.give_hugepages(hugepage, 1, self.now());
        }
        if purged && seed::on(Seed::CleanseLate) {
            granules = window.cleanse(hugepage, WHOLE);
        }
        granules * GRANULE
    }

    /// Returns the memory of what is free in hugepages in use for which `due` holds. Answers how many
    /// bytes went back.
    pub fn purge_parts(&self, mut due: impl FnMut(&Part) -> bool) -> usize {
        let mut bytes = 0;
        for window in self.windows() {
            for index in 0..HUGEPAGES_PER_WINDOW {
                let hugepage = Hugepage(index as u32);
                let view = window.look(hugepage);
                let part = self.part(window, hugepage, &view);
                if !view.whole && part.resident != 0 && due(&part) {
                    bytes += self.purge_part(window, hugepage, &part, view.freed_at);
                }
            }
        }
        self.returned(bytes);
        bytes
    }

    /// Of one that is held as one page all that is free goes, also what was never used: it has memory behind
    /// it as the rest has.
    fn purge_part(
        &self,
        window: &Window<M>,
        hugepage: Hugepage,
        part: &Part,
        freed_at: u32,
    ) -> usize {
        let mine = window.claim_free(hugepage, part.huge);
        if mine == 0 {
            return 0;
        }
        if part.huge {
            window.set_broken(hugepage, true);
        }
        let mut purged = 0;
        for (bit, count) in self.whole_pages(mine) {
            let addr = window.address(hugepage.granule(bit));
            let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(addr)) else { continue };
            // SAFETY: these granules are ours by their bits, and free memory has no contents.
            if unsafe { self.os.purge(at, count * GRANULE) } {
                purged |= bit_range(bit, count);
            }
            // SAFETY: as above: no object in these granules is held.
            unsafe { self.forget(addr, count * GRANULE) };
        }
        let noted = if seed::on(Seed::CleanseMore) { WHOLE } else { purged };
        let mut granules = 0;
        if !seed::on(Seed::CleanseLate) {
            granules = window.cleanse(hugepage, noted);
        }
        if !seed::on(Seed::PurgeUnclaimed) {
            window.give_granules(hugepage, mine, freed_at);
        }
        if seed::on(Seed::CleanseLate) {
            granules = window.cleanse(hugepage, noted);
        }
        granules * GRANULE
    }

    /// The runs of granules in `mask` that are whole pages: of pages larger than a granule the edges of
    /// a run stay.
    fn whole_pages(&self, mask: u64) -> impl Iterator<Item = (u32, usize)> {
        let granules = (self.os.page_size() / GRANULE).max(1) as u32;
        runs(mask).filter_map(move |(bit, count)| {
            let first = bit.next_multiple_of(granules);
            let end = (bit + count as u32) / granules * granules;
            (first < end).then(|| (first, (end - first) as usize))
        })
    }

    /// Hugepages of which a part was returned and which are full again become one page again, a few at
    /// a time. Their contents stay, whoever uses them.
    fn collapse(&self) {
        let full = self.windows().flat_map(|window| window.full_again().map(move |h| (window, h)));
        for (window, hugepage) in full.take(COLLAPSES) {
            window.set_broken(hugepage, false);
            let addr = window.address(hugepage.granule(0));
            if let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(addr)) {
                // SAFETY: a hugepage of ours. If the system has no large page now, small ones stay.
                if unsafe { self.os.collapse(at, HUGEPAGE) } {
                    self.counters.collapses.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Whether parts of a hugepage may be returned when the heap is at rest: also of one that the system
    /// holds as one page, if no more than half of its bytes is `live`.
    pub fn may_break(
        &self,
        window: &Window<M>,
        hugepage: Hugepage,
        live: impl FnOnce() -> usize,
    ) -> bool {
        window.owns(hugepage)
            && (!self.may_be_huge(window, hugepage)
                || window.is_broken(hugepage)
                || live() <= HUGEPAGE / 2)
    }

    /// Parts of a hugepage were returned, whatever they were used for: the rest of what is free follows.
    pub fn broke(&self, window: &Window<M>, hugepage: Hugepage) {
        let view = window.look(hugepage);
        let part = self.part(window, hugepage, &view);
        if !view.whole && part.resident != 0 {
            let bytes = self.purge_part(window, hugepage, &part, view.freed_at);
            self.returned(bytes);
        }
        if part.huge {
            window.set_broken(hugepage, true);
        }
    }

    /// Counts bytes of pages inside spans that were returned.
    pub fn note_shed(&self, bytes: usize) {
        self.counters.shed.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether anything will be due some time if nobody allocates.
    pub fn has_idle_memory(&self) -> bool {
        self.policy().decay_ms().is_some()
            && self.windows().any(|window| {
                (0..HUGEPAGES_PER_WINDOW as u32).map(Hugepage).any(|hugepage| {
                    let view = window.look(hugepage);
                    if view.whole {
                        return view.clean != WHOLE;
                    }
                    let part = self.part(window, hugepage, &view);
                    part.worth_it() && self.whole_pages(part.resident).next().is_some()
                })
            })
    }

    /// For who has found nothing to return: lies down and looks once more. `Some`: it may sleep on the
    /// bell's word while that has this value; then it gets up.
    pub fn rest(&self) -> Option<u32> {
        let heard = self.bell.lie_down();
        if !seed::on(Seed::NoLastLook) && self.has_idle_memory() {
            self.bell.get_up();
            return None;
        }
        Some(heard)
    }

    fn part(&self, window: &Window<M>, hugepage: Hugepage, view: &HugepageView) -> Part {
        let asked = self.may_be_huge(window, hugepage);
        let huge = asked && !window.is_broken(hugepage);
        let dirty = view.free & !view.clean;
        Part {
            used: GRANULES_PER_HUGEPAGE as u32 - view.free.count_ones(),
            age: age(view.freed_at, self.now()),
            asked,
            huge,
            resident: if huge { view.free } else { dirty },
            dirty: dirty != 0,
        }
    }

    fn returned(&self, bytes: usize) {
        self.counters.purged.fetch_add(bytes, Relaxed);
        self.relieved(bytes);
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
