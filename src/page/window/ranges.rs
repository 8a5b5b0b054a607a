//! Ranges of granules, over as many hugepages of a window as they span, and which of them may hold
//! something other than zeros.

use super::{Grain, Window, runs};
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed};
use crate::base::units::*;

impl<M> Window<M> {
    /// Gives `count` granules from `first` on back, over as many hugepages as they span.
    pub(in crate::page) fn give(&self, first: Granule, count: usize, now: u32) {
        for part in parts(first, count) {
            match part {
                Part::Whole(hugepage, count) => self.give_hugepages(hugepage, count, now),
                Part::Some(hugepage, mask) => self.give_granules(hugepage, mask, now),
            }
        }
    }

    /// Claims exactly these granules if all of them are free, or none.
    pub(in crate::page) fn claim_exactly(&self, first: Granule, count: usize, now: u32) -> bool {
        let mut claimed = 0;
        for part in parts(first, count) {
            let (got, granules) = match part {
                Part::Whole(hugepage, count) => {
                    (self.claim_run(hugepage.index(), count), count * GRANULES_PER_HUGEPAGE)
                }
                Part::Some(hugepage, mask) => {
                    (self.claim_mask(hugepage, mask, now), mask.count_ones() as usize)
                }
            };
            if !got {
                if claimed != 0 {
                    self.give(first, claimed, now);
                }
                return false;
            }
            claimed += granules;
        }
        true
    }

    /// Claims these granules of one hugepage if all are free, taking it from the map if it is whole.
    fn claim_mask(&self, hugepage: Hugepage, mask: u64, now: u32) -> bool {
        let word = &self.free[hugepage.index()];
        let mut old = word.load(Relaxed);
        let acquire = seed::weaken(Seed::ExtendRelaxed, Acquire);
        while old & mask == mask {
            match word.compare_exchange_weak(old, old & !mask, acquire, Relaxed) {
                Ok(_) => {
                    self.hint_new_orders(hugepage, old, old & !mask);
                    return true;
                }
                Err(now) => {
                    self.retries.note();
                    old = now;
                }
            }
        }
        if old == 0 && self.claim_hugepage(hugepage) {
            self.begin(hugepage, Grain::Sparse);
            self.give_granules(hugepage, WHOLE & !mask, now);
            return true;
        }
        false
    }

    /// Marks granules the caller holds as written to; answers how many of them were known to be zero.
    /// Those that were not are shown to `dirty`, in runs.
    pub(in crate::page) fn soil(
        &self,
        first: Granule,
        count: usize,
        mut dirty: impl FnMut(Granule, usize),
    ) -> usize {
        let mut clean = count;
        for part in parts(first, count) {
            let (hugepage, hugepages, mask) = match part {
                Part::Whole(hugepage, count) => (hugepage, count, WHOLE),
                Part::Some(hugepage, mask) => (hugepage, 1, mask),
            };
            for index in hugepage.index()..hugepage.index() + hugepages {
                let old = self.dirty[index].fetch_or(mask, Relaxed) & mask;
                clean -= old.count_ones() as usize;
                for (bit, run) in runs(old) {
                    dirty(Hugepage(index as u32).granule(bit), run);
                }
            }
        }
        clean
    }

    /// Notes that granules the caller holds read as zero again; answers how many did not before.
    pub(in crate::page) fn cleanse(&self, hugepage: Hugepage, mask: u64) -> usize {
        self.returned[hugepage.index()].fetch_or(mask, Relaxed);
        let old = self.dirty[hugepage.index()].fetch_and(!mask, Relaxed);
        (old & mask).count_ones() as usize
    }

    /// The same for a range of granules.
    pub(in crate::page) fn cleanse_all(&self, first: Granule, count: usize) -> usize {
        let cleansed = parts(first, count).map(|part| match part {
            Part::Whole(first, count) => (first.0..first.0 + count as u32)
                .map(|hugepage| self.cleanse(Hugepage(hugepage), WHOLE))
                .sum(),
            Part::Some(hugepage, mask) => self.cleanse(hugepage, mask),
        });
        cleansed.sum()
    }

    /// Claims every free granule of a hugepage in use that may hold something, or (`all`) every free one;
    /// answers which.
    pub(in crate::page) fn claim_free(&self, hugepage: Hugepage, all: bool) -> u64 {
        let word = &self.free[hugepage.index()];
        let mut old = word.load(Relaxed);
        loop {
            // Of granules that are free nobody changes the bit; one that is read too early is missed.
            let mine = if all { old } else { old & self.dirty[hugepage.index()].load(Relaxed) };
            if mine == 0 || seed::on(Seed::PurgeUnclaimed) {
                return mine;
            }
            match word.compare_exchange_weak(old, old & !mine, Acquire, Relaxed) {
                Ok(_) => {
                    self.hint_new_orders(hugepage, old, old & !mine);
                    return mine;
                }
                Err(now) => {
                    self.retries.note();
                    old = now;
                }
            }
        }
    }
}

/// A piece of a range of granules.
pub(super) enum Part {
    Whole(Hugepage, usize),
    Some(Hugepage, u64),
}

/// Cuts a range of granules at hugepage boundaries: a first part, whole hugepages, a last part.
pub(super) fn parts(first: Granule, count: usize) -> impl Iterator<Item = Part> {
    let mut at = first;
    let mut left = count;
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let (hugepage, bit) = (at.hugepage(), at.bit());
        let whole = left / GRANULES_PER_HUGEPAGE;
        let (part, taken) = if bit == 0 && whole > 0 {
            (Part::Whole(hugepage, whole), whole * GRANULES_PER_HUGEPAGE)
        } else {
            let here = (GRANULES_PER_HUGEPAGE - bit as usize).min(left);
            (Part::Some(hugepage, bit_range(bit, here)), here)
        };
        at = Granule(at.0 + taken as u32);
        left -= taken;
        Some(part)
    })
}
