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

/// A set of up to `LEAVES * 64` indices; `TOPS * 64` is at least `LEAVES`.
#[derive(Debug)]
pub struct Hints<const TOPS: usize, const LEAVES: usize> {
    tops: [AtomicU64; TOPS],
    leaves: [AtomicU64; LEAVES],
}

impl<const TOPS: usize, const LEAVES: usize> Hints<TOPS, LEAVES> {
    const_fn! {
        /// The empty set; all zero bits.
        pub fn new() -> Self {
            assert!(TOPS * 64 >= LEAVES && mem::size_of::<usize>() >= 4);
            Self { tops: array![AtomicU64::new(0); TOPS], leaves: array![AtomicU64::new(0); LEAVES] }
        }
    }

    /// Adds `index`, after the caller has made it true.
    pub fn insert(&self, index: usize) {
        let leaf = index / 64;
        let release = seed::weaken(Seed::InsertRelaxed, Release);
        self.leaves[leaf].fetch_or(1 << (index % 64), release);
        self.tops[leaf / 64].fetch_or(1 << (leaf % 64), Release);
    }

    /// Takes `index` out, then puts it back if `still_true` says it belongs there.
    pub fn remove(&self, index: usize, still_true: impl FnOnce() -> bool) {
        let leaf = index / 64;
        let bit = 1 << (index % 64);
        let acquire = seed::weaken(Seed::RemoveRelaxed, Acquire);
        if self.leaves[leaf].fetch_and(!bit, acquire) & !bit == 0 {
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
        if !seed::on(Seed::NoTopRecheck) && self.leaves[leaf].load(Relaxed) != 0 {
            self.tops[leaf / 64].fetch_or(bit, Relaxed);
        }
    }

    /// The lowest member that is at least `from`.
    pub fn first(&self, from: usize) -> Option<usize> {
        let mut leaf = from / 64;
        let mut mask = u64::MAX << (from % 64);
        while leaf < LEAVES {
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
            let word = self.leaves.get(leaf)?.load(Relaxed);
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
        self.leaves[index / 64].load(Acquire) & (1 << (index % 64)) != 0
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
    fn behaves_as_a_set() {
        let hints = Hints::<8, 512>::new();
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
