//! The shadow: which bytes are held, and what must be in them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Address ranges that are held, none overlapping another.
#[derive(Debug, Default)]
pub struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// Adds `start..end`; `Err` is a range in the way.
    pub fn insert(&mut self, start: usize, end: usize) -> Result<(), (usize, usize)> {
        if let Some((&from, &to)) = self.0.range(..end).next_back()
            && to > start
        {
            return Err((from, to));
        }
        self.0.insert(start, end);
        Ok(())
    }

    /// Takes `start..end` away, which need not be a whole range, or any.
    pub fn remove(&mut self, start: usize, end: usize) {
        while let Some((&from, &to)) = self.0.range(..end).next_back()
            && to > start
        {
            self.0.remove(&from);
            if to > end {
                self.0.insert(end, to);
            }
            if from < start {
                self.0.insert(from, start);
            }
        }
    }

    /// Whether this is exactly one of them.
    pub fn is_range(&self, start: usize, end: usize) -> bool {
        self.0.get(&start) == Some(&end)
    }

    /// All of them.
    pub fn drain(&mut self) -> impl Iterator<Item = (usize, usize)> {
        std::mem::take(&mut self.0).into_iter()
    }
}

/// The held ranges of one case, for all its threads.
#[derive(Debug, Default)]
pub struct Shadow(Mutex<Ranges>);

/// Up to here a block is filled and checked whole; beyond, at its ends and at some places in between, a
/// whole number of granules apart.
const WHOLE: usize = 8 << 10;
const END: usize = 64;
const STEP: usize = 32 << 10;
const PLACES: usize = 64;
/// Up to here a block that must be zero is read whole; beyond, in every page; beyond that, in every
/// second granule.
const ZERO_WHOLE: usize = 256 << 10;
const ZERO_PAGES: usize = 4 << 20;

impl Shadow {
    /// `size` bytes (at least one) at `at` were handed out.
    #[track_caller]
    pub fn claim(&self, at: *mut u8, size: usize) {
        let (start, end) = (at.addr(), at.addr() + size.max(1));
        let claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(start, end);
        if let Err((from, to)) = claimed {
            panic!("{start:#x}..{end:#x} was handed out while {from:#x}..{to:#x} is held");
        }
    }

    /// They are about to be given back.
    #[track_caller]
    pub fn release(&self, at: *mut u8, size: usize) {
        let (start, end) = (at.addr(), at.addr() + size.max(1));
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(ranges.is_range(start, end), "{start:#x}..{end:#x} is not held");
        ranges.remove(start, end);
    }
}

/// Where a block of `size` bytes is looked at: ranges within it.
fn places(size: usize) -> impl Iterator<Item = (usize, usize)> {
    let whole = size <= WHOLE;
    let first = if whole { (0, size) } else { (0, END) };
    let step = STEP * (size / STEP / PLACES).max(1);
    let steps = (1..size / step).filter(move |_| !whole).map(move |i| (i * step, i * step + 8));
    let last = (!whole).then(|| (size - END, size));
    std::iter::once(first).chain(steps).chain(last)
}

fn byte(tag: u64, offset: usize) -> u8 {
    (tag.rotate_right(offset as u32 % 64) as u8) ^ (offset as u8)
}

/// Writes the pattern of `tag` over a block.
///
/// # Safety
/// The block is held and that long.
pub unsafe fn fill(at: *mut u8, size: usize, tag: u64) {
    for (from, to) in places(size) {
        for offset in from..to {
            // SAFETY: within the block.
            unsafe { at.add(offset).write(byte(tag, offset)) };
        }
    }
}

/// Panics unless the first `upto` bytes of a block of `size` are as [`fill`] left them.
///
/// # Safety
/// The block is held and at least `upto` bytes long.
#[track_caller]
pub unsafe fn check(at: *mut u8, size: usize, tag: u64, upto: usize) {
    for (from, to) in places(size) {
        for offset in from..to.min(upto) {
            // SAFETY: within the block.
            let found = unsafe { at.add(offset).read() };
            let wanted = byte(tag, offset);
            assert_eq!(found, wanted, "byte {offset} of the {size} at {at:p} has changed");
        }
    }
}

/// Panics unless a block reads as zero.
///
/// # Safety
/// The block is held and that long.
#[track_caller]
pub unsafe fn check_zero(at: *mut u8, size: usize) {
    let step = if size <= ZERO_WHOLE {
        1
    } else if size <= ZERO_PAGES {
        4 << 10
    } else {
        2 * STEP
    };
    for offset in (0..size).step_by(step).chain(size.saturating_sub(END)..size) {
        // SAFETY: within the block.
        let found = unsafe { at.add(offset).read() };
        assert_eq!(found, 0, "byte {offset} of the {size} zeroed ones at {at:p}");
    }
}
