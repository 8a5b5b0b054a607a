//! The depot of stacks: each distinct stack is kept once, under a number of 32 bits.
//!
//! A table of slots leads to records in one arena that only grows; both lie in one mapping, touched as
//! far as there are stacks. A record is the stack's length and its addresses, and its number is where it
//! begins in the arena. Nothing is ever removed, so a number holds for good. Bounded: a stack for which
//! there is no room, or no slot among those it may have, gets no number and is counted.
//!
//! # Orderings
//! A record is written before its slot is: `insert` releases it with the exchange that fills the slot,
//! and whoever reads the slot acquires it (model M11). Of two threads that bring one stack at once, one
//! exchange succeeds; the other finds the winner's record in the slot and takes its number. A number that
//! reaches another thread by way of ordinary data brings the record along, as that data's ordering does;
//! for one that does not, `frames` begins with a load that acquires the record's length.

use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Tally};
use crate::os::{Os, Zeroed};
use core::ptr;

/// A stack's number; 0 is none.
pub type StackId = u32;

/// Slots a stack may be in: so many from the one its hash names.
const REACH: usize = 32;

/// What is mapped.
#[derive(Debug)]
pub struct Shelf<const SLOTS: usize, const WORDS: usize> {
    /// 0, or the upper half of a stack's hash and its number. Filled once; any thread.
    slots: [AtomicU64; SLOTS],
    /// Records. Written by whoever claimed the words, before a slot names them.
    words: [AtomicUsize; WORDS],
}

// SAFETY: atomics are zero when their bytes are.
unsafe impl<const SLOTS: usize, const WORDS: usize> Zeroed for Shelf<SLOTS, WORDS> {
    #[cfg(spandrel_model)]
    fn zeroed() -> Self {
        Self {
            slots: core::array::from_fn(|_| AtomicU64::new(0)),
            words: core::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }
}

/// The stacks that were met.
#[derive(Debug)]
pub struct Depot<const SLOTS: usize, const WORDS: usize> {
    /// Null until the first stack. Any thread.
    shelf: AtomicPtr<Shelf<SLOTS, WORDS>>,
    /// Words claimed, but for the first, which no record has. Any thread.
    used: AtomicU32,
    kept: Tally,
    refused: Tally,
}

/// What a depot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Distinct stacks.
    pub stacks: u64,
    /// Bytes of their records.
    pub bytes: usize,
    /// Stacks that found no room and got no number.
    pub refused: u64,
}

impl<const SLOTS: usize, const WORDS: usize> Depot<SLOTS, WORDS> {
    const_fn! {
        /// The empty depot; all zero bits.
        pub fn new() -> Self {
            Self {
                shelf: AtomicPtr::new(ptr::null_mut()),
                used: AtomicU32::new(0),
                kept: Tally::new(),
                refused: Tally::new(),
            }
        }
    }

    /// The number of this stack, a new one if it was not met before; 0 if it is empty or finds no room.
    #[cfg(not(spandrel_model))]
    pub fn insert(&self, os: &impl Os, frames: &[usize]) -> StackId {
        self.insert_with(|| self.shelf(os), frames)
    }

    /// As in the shipping build; the system owns what it maps.
    #[cfg(spandrel_model)]
    pub fn insert(&self, os: &impl Os, frames: &[usize]) -> StackId
    where
        Self: 'static,
    {
        self.insert_with(|| self.shelf(os), frames)
    }

    fn insert_with<'a>(
        &self,
        shelf: impl FnOnce() -> Option<&'a Shelf<SLOTS, WORDS>>,
        frames: &[usize],
    ) -> StackId {
        if frames.is_empty() {
            return 0;
        }
        let id = shelf().and_then(|shelf| self.intern(shelf, frames));
        id.unwrap_or_else(|| {
            self.refused.note();
            0
        })
    }

    fn intern(&self, shelf: &Shelf<SLOTS, WORDS>, frames: &[usize]) -> Option<StackId> {
        let hash = hash(frames);
        let tag = hash >> 32 << 32;
        let mut record = None;
        for step in 0..REACH.min(SLOTS) {
            let slot = &shelf.slots[(hash as usize).wrapping_add(step) % SLOTS];
            let mut word = slot.load(seed::weaken(Seed::StackFoundRelaxed, Acquire));
            if word == 0 {
                let id = match record {
                    Some(id) => id,
                    None => *record.insert(self.write(shelf, frames)?),
                };
                let new = tag | u64::from(id);
                let release = seed::weaken(Seed::StackRelaxed, Release);
                if seed::on(Seed::StackByStore) {
                    slot.store(new, release);
                    return Some(id);
                }
                match slot.compare_exchange(0, new, release, Acquire) {
                    Ok(_) => {
                        self.kept.note();
                        return Some(id);
                    }
                    Err(theirs) => word = theirs,
                }
            }
            let id = word as u32;
            if word >> 32 << 32 == tag && is(shelf, id, frames) {
                self.unwrite(record, frames);
                return Some(id);
            }
        }
        self.unwrite(record, frames);
        None
    }

    /// Writes a record that nobody knows of yet.
    fn write(&self, shelf: &Shelf<SLOTS, WORDS>, frames: &[usize]) -> Option<StackId> {
        let length = frames.len() as u32 + 1;
        let mut used = self.used.load(Relaxed);
        let id = loop {
            let end = used.checked_add(length).filter(|&end| (end as usize) < WORDS)?;
            match self.used.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                Ok(_) => break used + 1,
                Err(now) => used = now,
            }
        };
        let record = &shelf.words[id as usize..][..length as usize];
        for (word, &frame) in record[1..].iter().zip(frames) {
            word.store(frame, Relaxed);
        }
        record[0].store(frames.len(), Release);
        Some(id)
    }

    /// Gives the words of a record back that nobody will know of, if none were claimed since.
    fn unwrite(&self, record: Option<StackId>, frames: &[usize]) {
        if let Some(id) = record {
            let end = id + frames.len() as u32;
            // Whoever claims them next has written nothing there that another thread knows of.
            let _ = self.used.compare_exchange(end, id - 1, Relaxed, Relaxed);
        }
    }

    /// Writes the addresses of a stack, innermost first, as far as there is room; answers how many it
    /// has. None for a number that [`Depot::insert`] never gave.
    pub fn frames(&self, id: StackId, out: &mut [usize]) -> usize {
        // SAFETY: null, or a shelf that is never unmapped.
        let Some(shelf) = (unsafe { self.shelf.load(Acquire).as_ref() }) else { return 0 };
        if id == 0 {
            return 0;
        }
        let Some(length) = shelf.words.get(id as usize) else { return 0 };
        let length = length.load(Acquire);
        for (out, word) in out.iter_mut().zip(&shelf.words[id as usize + 1..]).take(length) {
            *out = word.load(Relaxed);
        }
        length
    }

    /// What it holds.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            stacks: self.kept.get(),
            bytes: self.used.load(Relaxed) as usize * size_of::<usize>(),
            refused: self.refused.get(),
        }
    }

    #[cfg(not(spandrel_model))]
    fn shelf(&self, os: &impl Os) -> Option<&Shelf<SLOTS, WORDS>> {
        let known = self.shelf.load(Acquire);
        // SAFETY: null, or a shelf that is never unmapped.
        if let Some(known) = unsafe { known.as_ref() } {
            return Some(known);
        }
        let fresh = os.metadata::<Shelf<SLOTS, WORDS>>()?;
        match self.shelf.compare_exchange(ptr::null_mut(), fresh.as_ptr(), Release, Acquire) {
            // SAFETY: fresh metadata is a valid shelf, never unmapped once it is published.
            Ok(_) => Some(unsafe { fresh.as_ref() }),
            Err(winner) => {
                let bytes = crate::os::metadata_bytes::<Shelf<SLOTS, WORDS>>(os.page_size());
                // SAFETY: the race is lost, so no other thread has seen this one.
                unsafe { os.unmap(fresh.cast(), bytes) };
                // SAFETY: as above.
                Some(unsafe { &*winner })
            }
        }
    }

    /// Under a model main makes it before there are threads.
    #[cfg(spandrel_model)]
    fn shelf(&self, os: &impl Os) -> Option<&Shelf<SLOTS, WORDS>>
    where
        Self: 'static,
    {
        let known = self.shelf.load(Acquire);
        let shelf = if known.is_null() { os.metadata()?.as_ptr() } else { known };
        if known.is_null() {
            self.shelf.store(shelf, Release);
        }
        // SAFETY: the system keeps what it mapped.
        Some(unsafe { &*shelf })
    }
}

impl<const SLOTS: usize, const WORDS: usize> Default for Depot<SLOTS, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the record holds this stack.
fn is<const SLOTS: usize, const WORDS: usize>(
    shelf: &Shelf<SLOTS, WORDS>,
    id: StackId,
    frames: &[usize],
) -> bool {
    let record = &shelf.words[id as usize..];
    record[0].load(Relaxed) == frames.len()
        && record[1..].iter().zip(frames).all(|(word, &frame)| word.load(Relaxed) == frame)
}

#[cfg(not(spandrel_model))]
fn hash(frames: &[usize]) -> u64 {
    let step = |hash: u64, &frame: &usize| {
        (hash.rotate_left(23) ^ frame as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let hash = frames.iter().fold(frames.len() as u64, step);
    hash ^ hash >> 29
}

/// Under a model all stacks want one slot, and two of them look alike there.
#[cfg(spandrel_model)]
fn hash(_: &[usize]) -> u64 {
    1 << 32
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use crate::os::linux::Linux;

    fn stack(n: usize, length: usize) -> Vec<usize> {
        (0..length).map(|i| n << 8 | i).collect()
    }

    #[test]
    fn each_stack_once() {
        let (os, depot) = (Linux::new(), Depot::<1024, 8192>::new());
        let ids: Vec<StackId> =
            (0..200).map(|n| depot.insert(&os, &stack(n, n % 30 + 1))).collect();
        for (n, &id) in ids.iter().enumerate() {
            let length = n % 30 + 1;
            assert_ne!(id, 0);
            assert_eq!(depot.insert(&os, &stack(n, length)), id);
            let mut out = [0; 64];
            assert_eq!(depot.frames(id, &mut out), length);
            assert_eq!(out[..length], stack(n, length));
            // As far as there is room.
            assert_eq!(depot.frames(id, &mut out[..1]), length);
        }
        assert_eq!(depot.holdings().stacks, 200);
        assert_eq!(depot.insert(&os, &[]), 0);
        assert_eq!(depot.frames(0, &mut [0; 4]), 0);
        assert_eq!(depot.frames(u32::MAX, &mut [0; 4]), 0);
        assert_eq!(depot.holdings().refused, 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let os = Linux::new();
        let words = Depot::<1024, 64>::new();
        let numbered = (0..100).filter(|&n| words.insert(&os, &stack(n, 9)) != 0).count();
        assert_eq!((numbered, words.holdings().refused), (6, 94));
        // Those that have a number keep it.
        assert_ne!(words.insert(&os, &stack(3, 9)), 0);
        let slots = Depot::<16, 8192>::new();
        let numbered = (0..100).filter(|&n| slots.insert(&os, &stack(n, 9)) != 0).count();
        assert_eq!((numbered, slots.holdings().refused), (16, 84));
        // Their words were given back.
        assert_eq!(slots.holdings().bytes, 16 * 10 * size_of::<usize>());
        assert_eq!(Depot::<16, 64>::new().frames(1, &mut [0; 4]), 0);
    }

    #[test]
    fn threads_that_bring_the_same_stacks_get_the_same_numbers() {
        let (os, depot) = (Linux::new(), Depot::<4096, 65536>::new());
        let all: Vec<Vec<StackId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..1000).map(|n| depot.insert(&os, &stack(n, 20))).collect())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|ids| *ids == all[0] && ids.iter().all(|&id| id != 0)));
        assert_eq!(depot.holdings().stacks, 1000);
    }
}
