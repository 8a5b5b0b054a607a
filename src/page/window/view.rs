//! A window as the release policy and the reports see it.

use super::{Window, bit_of, runs};
use crate::base::classes::Use;
use crate::base::sync::Ordering::{Acquire, Relaxed};
use crate::base::units::*;
use crate::page::hugepage::orders;

impl<M> Window<M> {
    /// Which of these hugepages the system was not asked for yet: noted as asked for now, and named
    /// in runs.
    pub(in crate::page) fn advise_once(
        &self,
        first: Hugepage,
        count: usize,
        mut ask: impl FnMut(Hugepage, usize),
    ) {
        let mut at = first.index();
        let end = at + count;
        while at < end {
            let bit = at % HUGEPAGES_PER_MAP_WORD;
            let here = (HUGEPAGES_PER_MAP_WORD - bit).min(end - at);
            let mask = bit_range(bit as u32, here);
            let word = &self.advised[at / HUGEPAGES_PER_MAP_WORD];
            let mut fresh = mask & !word.load(Relaxed);
            if fresh != 0 {
                fresh &= !word.fetch_or(mask, Relaxed);
            }
            let index = at / HUGEPAGES_PER_MAP_WORD * HUGEPAGES_PER_MAP_WORD;
            runs(fresh).for_each(|(bit, run)| ask(Hugepage(index as u32 + bit), run));
            at += here;
        }
    }

    /// How many of these hugepages are known to be zero all over. Exact for their holder.
    pub(in crate::page) fn clean_of(&self, first: Hugepage, count: usize) -> usize {
        let words = &self.dirty[first.index()..first.index() + count];
        words.iter().filter(|word| word.load(Relaxed) == 0).count()
    }

    /// How many hugepages of ours are not whole and free.
    pub fn hugepages_in_use(&self) -> u32 {
        let words = self.ours.iter().zip(&self.map);
        words.map(|(ours, free)| (ours.load(Relaxed) & !free.load(Relaxed)).count_ones()).sum()
    }

    /// Those hugepages, the lowest first.
    pub fn in_use(&self) -> impl Iterator<Item = Hugepage> {
        self.ours.iter().zip(&self.map).enumerate().flat_map(|(word, (ours, free))| {
            let mut left = ours.load(Relaxed) & !free.load(Relaxed);
            core::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(Hugepage((word * HUGEPAGES_PER_MAP_WORD) as u32 + bit))
            })
        })
    }

    /// Granules that are free and may have memory behind them.
    pub(in crate::page) fn idle(&self) -> u32 {
        (0..HUGEPAGES_PER_WINDOW as u32)
            .map(|hugepage| self.look(Hugepage(hugepage)))
            .map(|view| (view.free & !view.clean).count_ones())
            .sum()
    }

    /// Granules of a hugepage that were returned and not taken since.
    pub fn returned(&self, hugepage: Hugepage) -> u32 {
        let clean = self.look(hugepage).clean;
        (self.returned[hugepage.index()].load(Relaxed) & clean).count_ones()
    }

    /// Whether the system was asked for this hugepage.
    pub fn advised(&self, hugepage: Hugepage) -> bool {
        let (word, bit) = bit_of(&self.advised, hugepage);
        word.load(Relaxed) & bit != 0
    }

    /// Whether the system holds the hugepage in small pages because a part was returned.
    pub(in crate::page) fn is_broken(&self, hugepage: Hugepage) -> bool {
        let (word, bit) = bit_of(&self.broken, hugepage);
        word.load(Relaxed) & bit != 0
    }

    /// Notes that the system holds a hugepage in small pages from now on, or (`false`) as one.
    pub(in crate::page) fn set_broken(&self, hugepage: Hugepage, broken: bool) {
        let (word, bit) = bit_of(&self.broken, hugepage);
        if broken {
            word.fetch_or(bit, Relaxed);
        } else {
            word.fetch_and(!bit, Relaxed);
        }
    }

    /// Hugepages that are held in small pages because a part was returned, and are full again.
    pub(in crate::page) fn full_again(&self) -> impl Iterator<Item = Hugepage> {
        let words = self.broken.iter().map(|word| word.load(Relaxed)).enumerate();
        let indices = words.flat_map(|(at, word)| {
            runs(word).flat_map(move |(bit, run)| {
                (at * HUGEPAGES_PER_MAP_WORD + bit as usize..).take(run)
            })
        });
        indices
            .map(|index| Hugepage(index as u32))
            .filter(|&hugepage| self.look(hugepage).free == 0)
    }

    /// Whether the hugepage is ours.
    pub fn owns(&self, hugepage: Hugepage) -> bool {
        let (word, bit) = bit_of(&self.ours, hugepage);
        word.load(Relaxed) & bit != 0
    }

    /// The hugepage as it stands: free granules, and those of them known to be zero.
    pub fn look(&self, hugepage: Hugepage) -> HugepageView {
        let (word, bit) = bit_of(&self.map, hugepage);
        let whole = word.load(Acquire) & bit != 0;
        let free = if whole { WHOLE } else { self.free[hugepage.index()].load(Acquire) };
        let dirty = self.dirty[hugepage.index()].load(Relaxed);
        let freed_at = self.freed_at[hugepage.index()].load(Relaxed);
        HugepageView { whole, free, clean: free & !dirty, freed_at }
    }

    /// Checks the books while nobody takes or gives: every granule is in one place, every whole
    /// hugepage is in the map, every free run has its hint, nothing free is in use. Answers how many
    /// granules are free, or where the books do not balance.
    pub fn check(&self) -> Result<usize, (Granule, &'static str)> {
        let mut total = 0;
        for index in 0..HUGEPAGES_PER_WINDOW {
            let hugepage = Hugepage(index as u32);
            let word = self.free[index].load(Acquire);
            let view = self.look(hugepage);
            let broken = if view.whole && word != 0 {
                Some("granules are free in their word and in the map")
            } else if view.free != 0 && !self.owns(hugepage) {
                Some("granules are free that are not ours")
            } else if word == WHOLE {
                Some("a whole hugepage is not in the map")
            } else {
                let runs = (0..HUGEPAGE_ORDER as usize).filter(|k| orders(word) & (1 << k) != 0);
                let hints = &self.orders[self.grain(hugepage) as usize];
                let unnamed = runs.filter(|&k| !hints[k].contains(index)).count();
                (unnamed != 0).then_some("no hint names a free run")
            };
            if let Some(broken) = broken {
                return Err((hugepage.granule(0), broken));
            }
            let used = (0..GRANULES_PER_HUGEPAGE as u32)
                .filter(|bit| view.free & (1 << bit) != 0)
                .find(|&bit| self.usage(hugepage.granule(bit)) != Use::None);
            if let Some(bit) = used {
                return Err((hugepage.granule(bit), "a free granule is in use"));
            }
            total += view.free.count_ones() as usize;
        }
        Ok(total)
    }
}

/// A hugepage at one moment.
#[derive(Clone, Copy, Debug)]
pub struct HugepageView {
    /// In the map, every granule free.
    pub whole: bool,
    /// Free granules.
    pub free: u64,
    /// Free granules known to be zero: never touched, or returned to the system.
    pub clean: u64,
    /// When it became whole, in milliseconds, if it is.
    pub freed_at: u32,
}
