//! Whole hugepages of a window: bits of its map, claimed singly or as neighbours.

use super::{Window, bit_of};
use crate::base::death;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::units::*;
use crate::page::hugepage::pick;

impl<M> Window<M> {
    /// Claims `count` whole hugepages at a multiple of 2^order, the lowest there are. More than such a
    /// buddy has are any neighbours from there on, over the words of the map.
    pub(in crate::page) fn claim_hugepages(&self, order: u32, count: usize) -> Option<Hugepage> {
        if count > 1 << order {
            let mut from = 0;
            while let Some(first) = self.find_run(from, count) {
                let aligned = first.next_multiple_of(1 << order);
                if aligned == first && self.claim_run(first, count) {
                    return Some(Hugepage(first as u32));
                }
                from = aligned.max(first + 1);
            }
            return None;
        }
        for (index, word) in self.map.iter().enumerate() {
            let mut old = word.load(Relaxed);
            while let Some(bit) = pick(old, order) {
                let new = old & !bit_range(bit, count);
                match word.compare_exchange_weak(old, new, Acquire, Relaxed) {
                    Ok(_) => {
                        return Some(Hugepage((index * HUGEPAGES_PER_MAP_WORD) as u32 + bit));
                    }
                    Err(now) => {
                        self.retries.note();
                        old = now;
                    }
                }
            }
        }
        None
    }

    /// Claims the lowest whole hugepage that was used before and still has memory behind it.
    pub(in crate::page) fn claim_used(&self) -> Option<Hugepage> {
        for (index, word) in self.map.iter().enumerate() {
            let mut rest = word.load(Relaxed);
            while rest != 0 {
                let at = index * HUGEPAGES_PER_MAP_WORD + rest.trailing_zeros() as usize;
                let hugepage = Hugepage(at as u32);
                if self.dirty[at].load(Relaxed) != 0 && self.claim_hugepage(hugepage) {
                    return Some(hugepage);
                }
                rest &= rest - 1;
            }
        }
        None
    }

    /// Claims the highest whole hugepage there is.
    pub(in crate::page) fn claim_highest(&self) -> Option<Hugepage> {
        for (index, word) in self.map.iter().enumerate().rev() {
            let mut old = word.load(Relaxed);
            while old != 0 {
                let bit = old.ilog2();
                match word.compare_exchange_weak(old, old & !(1 << bit), Acquire, Relaxed) {
                    Ok(_) => {
                        return Some(Hugepage((index * HUGEPAGES_PER_MAP_WORD) as u32 + bit));
                    }
                    Err(now) => {
                        self.retries.note();
                        old = now;
                    }
                }
            }
        }
        None
    }

    /// The first of the lowest `count` neighbours that are free, from hugepage `from` on.
    pub(in crate::page) fn find_run(&self, from: usize, count: usize) -> Option<usize> {
        let (mut start, mut at) = (from, from);
        while at < HUGEPAGES_PER_WINDOW {
            let bit = at % HUGEPAGES_PER_MAP_WORD;
            let here = HUGEPAGES_PER_MAP_WORD - bit;
            let rest = self.map[at / HUGEPAGES_PER_MAP_WORD].load(Relaxed) >> bit;
            if rest & 1 == 0 {
                at += (rest.trailing_zeros() as usize).min(here);
                start = at;
                continue;
            }
            at += (rest.trailing_ones() as usize).min(here);
            if at - start >= count {
                return Some(start);
            }
        }
        None
    }

    /// Claims exactly these whole hugepages if all of them are free, or none; a word at a time.
    pub(super) fn claim_run(&self, first: usize, count: usize) -> bool {
        let mut at = first;
        while at < first + count {
            let bit = at % HUGEPAGES_PER_MAP_WORD;
            let here = (HUGEPAGES_PER_MAP_WORD - bit).min(first + count - at);
            let mask = bit_range(bit as u32, here);
            let word = &self.map[at / HUGEPAGES_PER_MAP_WORD];
            let mut old = word.load(Relaxed);
            loop {
                if old & mask != mask {
                    self.set_map(first, at - first);
                    return false;
                }
                match word.compare_exchange_weak(old, old & !mask, Acquire, Relaxed) {
                    Ok(_) => break,
                    Err(now) => {
                        self.retries.note();
                        old = now;
                    }
                }
            }
            at += here;
        }
        true
    }

    /// Claims this whole hugepage, if it is free.
    pub(in crate::page) fn claim_hugepage(&self, hugepage: Hugepage) -> bool {
        let (word, bit) = bit_of(&self.map, hugepage);
        // Only the thread that turns the bit from 1 to 0 holds the hugepage.
        word.fetch_and(!bit, Acquire) & bit != 0
    }

    /// Gives `count` whole hugepages back. Dies if one of them is free already.
    pub(in crate::page) fn give_hugepages(&self, first: Hugepage, count: usize, now: u32) {
        for stamp in &self.freed_at[first.index()..first.index() + count] {
            stamp.store(now, Relaxed);
        }
        self.set_map(first.index(), count);
    }

    /// Sets `count` map bits from `first` on, a word at a time.
    pub(super) fn set_map(&self, first: usize, count: usize) {
        let mut at = first;
        while at < first + count {
            let bit = at % HUGEPAGES_PER_MAP_WORD;
            let here = (HUGEPAGES_PER_MAP_WORD - bit).min(first + count - at);
            let mask = bit_range(bit as u32, here);
            let release = seed::weaken(Seed::MapRelaxed, Release);
            let old = self.map[at / HUGEPAGES_PER_MAP_WORD].fetch_or(mask, release);
            if old & mask != 0 {
                let twice = at - bit + (old & mask).trailing_zeros() as usize;
                death::double_free(self.address(Hugepage(twice as u32).granule(0)));
            }
            at += here;
        }
    }

    /// Adds hugepages that were just mapped; they are free and zero.
    pub(in crate::page) fn add(&self, first: Hugepage, count: usize) {
        for at in first.index()..first.index() + count {
            self.ours[at / HUGEPAGES_PER_MAP_WORD]
                .fetch_or(1 << (at % HUGEPAGES_PER_MAP_WORD), Relaxed);
        }
        self.give_hugepages(first, count, 0);
    }
}
