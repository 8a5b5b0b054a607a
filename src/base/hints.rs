//! A hint set: which of up to 4096 things per top word *probably* have something to give.
//!
//! Two levels of bits, set after the fact and cleared when found stale. The invariant is one-sided:
//! whatever has something to give is, or is about to be, in the set; a member may have nothing. So a
//! reader that finds a stale member removes it, **looks again**, and puts it back if it was wrong.
//! Leave that second look out and things are stranded for ever (seed `NoHintRecheck`, model M3).
//!
//! # Orderings
//! `insert` releases what the caller wrote to the thing before; `remove` acquires it. Both are
//! read-modify-writes of the same word, so either the remover's comes after the inserter's and the
//! second look sees the change, or it comes before and the bit is set when both are done. This needs
//! the read-modify-write in `insert` even where the bit is set already: a plain load that skips it
//! would lose the race.

use super::seed::{self, Seed};
use super::sync::AtomicU64;
use super::sync::Ordering::{Acquire, Relaxed, Release};
use core::mem;

/// Leaves of one set that lie together: a cache line.
const RUN: usize = if cfg!(spandrel_model) { 1 } else { 8 };

/// A set of up to `LEAVES * 64` indices by itself; `TOPS * 64` is at least `LEAVES`.
#[derive(Debug)]
pub struct Hints<const TOPS: usize, const LEAVES: usize> {
    tops: [AtomicU64; TOPS],
    leaves: [AtomicU64; LEAVES],
}

/// `SETS` sets of up to `RUNS * RUN * 64` indices each. A line of leaves of each, then the next line of each, so
/// that sets with low members only share a few pages, and no two a line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct HintsTable<const SETS: usize, const TOPS: usize, const RUNS: usize> {
    tops: [[AtomicU64; TOPS]; SETS],
    leaves: [[[AtomicU64; RUN]; SETS]; RUNS],
}

/// One set, wherever its words lie.
#[derive(Clone, Copy, Debug)]
pub struct HintSet<'a> {
    tops: &'a [AtomicU64],
    /// From its first leaf on; those of others may lie between.
    leaves: &'a [AtomicU64],
    /// From one run of its leaves to the next, in words.
    stride: usize,
    count: usize,
}

/// Runs of leaves that a set of `indices` needs.
pub const fn runs(indices: usize) -> usize {
    indices.div_ceil(64 * RUN)
}

impl<const TOPS: usize, const LEAVES: usize> Hints<TOPS, LEAVES> {
    const_fn! {
        /// The empty set; all zero bits.
        pub fn new() -> Self {
            assert!(TOPS * 64 >= LEAVES && mem::size_of::<usize>() >= 4);
            Self { tops: array![AtomicU64::new(0); TOPS], leaves: array![AtomicU64::new(0); LEAVES] }
        }
    }

    fn set(&self) -> HintSet<'_> {
        HintSet { tops: &self.tops, leaves: &self.leaves, stride: RUN, count: LEAVES }
    }

    /// See [`HintSet::insert`].
    pub fn insert(&self, index: usize) {
        self.set().insert(index);
    }

    /// See [`HintSet::remove`].
    pub fn remove(&self, index: usize, still_true: impl FnOnce() -> bool) {
        self.set().remove(index, still_true);
    }

    /// See [`HintSet::first`].
    pub fn first(&self, from: usize) -> Option<usize> {
        self.set().first(from)
    }

    /// See [`HintSet::contains`].
    pub fn contains(&self, index: usize) -> bool {
        self.set().contains(index)
    }
}

impl<const SETS: usize, const TOPS: usize, const RUNS: usize> HintsTable<SETS, TOPS, RUNS> {
    const_fn! {
        /// Empty sets; all zero bits.
        pub fn new() -> Self {
            assert!(TOPS * 64 >= RUNS * RUN);
            Self {
                tops: array![array![AtomicU64::new(0); TOPS]; SETS],
                leaves: array![array![array![AtomicU64::new(0); RUN]; SETS]; RUNS],
            }
        }
    }

    /// One of the sets.
    #[inline]
    pub fn set(&self, number: usize) -> HintSet<'_> {
        let leaves = &self.leaves.as_flattened().as_flattened()[number * RUN..];
        HintSet { tops: &self.tops[number], leaves, stride: SETS * RUN, count: RUNS * RUN }
    }
}

impl<const SETS: usize, const TOPS: usize, const RUNS: usize> Default
    for HintsTable<SETS, TOPS, RUNS>
{
    fn default() -> Self {
        Self::new()
    }
}

impl HintSet<'_> {
    fn leaf(&self, index: usize) -> &AtomicU64 {
        &self.leaves[index / RUN * self.stride + index % RUN]
    }

    /// Adds `index`, after the caller has made it true.
    pub fn insert(&self, index: usize) {
        let leaf = index / 64;
        let release = seed::weaken(Seed::InsertRelaxed, Release);
        self.leaf(leaf).fetch_or(1 << (index % 64), release);
        self.tops[leaf / 64].fetch_or(1 << (leaf % 64), Release);
    }

    /// Takes `index` out, then puts it back if `still_true` says it belongs there.
    pub fn remove(&self, index: usize, still_true: impl FnOnce() -> bool) {
        let leaf = index / 64;
        let bit = 1 << (index % 64);
        let acquire = seed::weaken(Seed::RemoveRelaxed, Acquire);
        if self.leaf(leaf).fetch_and(!bit, acquire) & !bit == 0 {
            self.retire_leaf(leaf);
        }
        if !seed::on(Seed::NoHintRecheck) && still_true() {
            self.insert(index);
        }
    }

    /// An empty leaf leaves the top level, by the same protocol.
    fn retire_leaf(&self, leaf: usize) {
        let bit = 1 << (leaf % 64);
        let acquire = seed::weaken(Seed::TopRelaxed, Acquire);
        self.tops[leaf / 64].fetch_and(!bit, acquire);
        // Relaxed, both: the leaf's setter was acquired above, or has yet to set the top itself; and
        // an exchange passes on what it released.
        if !seed::on(Seed::NoTopRecheck) && self.leaf(leaf).load(Relaxed) != 0 {
            self.tops[leaf / 64].fetch_or(bit, Relaxed);
        }
    }

    /// The lowest member that is at least `from`.
    pub fn first(&self, from: usize) -> Option<usize> {
        let mut leaf = from / 64;
        let mut mask = u64::MAX << (from % 64);
        while leaf < self.count {
            let tops = self.tops[leaf / 64].load(Relaxed) & (u64::MAX << (leaf % 64));
            if tops == 0 {
                leaf = (leaf / 64 + 1) * 64;
                mask = u64::MAX;
                continue;
            }
            let next = leaf / 64 * 64 + tops.trailing_zeros() as usize;
            if next != leaf {
                leaf = next;
                mask = u64::MAX;
            }
            if leaf >= self.count {
                return None;
            }
            let word = self.leaf(leaf).load(Relaxed);
            if word & mask != 0 {
                return Some(leaf * 64 + (word & mask).trailing_zeros() as usize);
            }
            if word == 0 {
                self.retire_leaf(leaf);
            }
            leaf += 1;
            mask = u64::MAX;
        }
        None
    }

    /// Whether `index` is in the set, for checks of invariants.
    pub fn contains(&self, index: usize) -> bool {
        self.leaf(index / 64).load(Acquire) & (1 << (index % 64)) != 0
            && self.tops[index / 4096].load(Acquire) & (1 << (index / 64 % 64)) != 0
    }
}

impl<const TOPS: usize, const LEAVES: usize> Default for Hints<TOPS, LEAVES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn behave_as_sets() {
        behaves_as_a_set(Hints::<8, 512>::new().set());
        // The neighbours are full where it is empty, and the other way round.
        let table = HintsTable::<3, 8, 64>::new();
        for other in [0, 2] {
            (0..512 * 64).for_each(|index| table.set(other).insert(index));
        }
        behaves_as_a_set(table.set(1));
        for other in [0, 2] {
            assert!((0..512 * 64).all(|index| table.set(other).contains(index)));
            (0..512 * 64).for_each(|index| table.set(other).remove(index, || false));
            assert_eq!(table.set(other).first(0), None);
        }
        assert!(table.set(1).first(0).is_some());
    }

    fn behaves_as_a_set(hints: HintSet<'_>) {
        let mut model = BTreeSet::new();
        let mut x = 88172645463325252u64;
        for _ in 0..200_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let index = (x >> 20) as usize % (512 * 64);
            if x.is_multiple_of(3) {
                hints.insert(index);
                model.insert(index);
            } else {
                let from = index;
                let found = hints.first(from);
                assert_eq!(found, model.range(from..).next().copied());
                if let Some(found) = found {
                    let keep = x.is_multiple_of(5);
                    hints.remove(found, || keep);
                    if !keep {
                        model.remove(&found);
                    }
                    assert_eq!(hints.contains(found), keep);
                }
            }
        }
        assert!(!model.is_empty());
    }
}
