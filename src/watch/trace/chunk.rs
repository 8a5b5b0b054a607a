//! What threads share of a trace: the count of claimed units, and each chunk's count of written bytes.
//!
//! Both lie in the file, mapped, so whoever reads it, at whatever moment the process ended or while it
//! still runs, reads them. Units are claimed by one exchange. A chunk has one writer; its reader is not
//! in this process.
//!
//! # Orderings
//! The written bytes are counted with Release after they are written, so that who acquires the count
//! reads whole records (model M14). Claiming is Relaxed: it hands out numbers.

use super::format::{seal, unseal};
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{AtomicU8, AtomicU64};

/// Takes the next `units` units of a file: the number of the first. `None` if there are no more numbers.
pub fn claim(claimed: &AtomicU64, units: u32) -> Option<u32> {
    add(claimed, units)
}

/// Adds to a sealed count, and answers what it was.
pub fn add(count: &AtomicU64, more: u32) -> Option<u32> {
    let mut was = count.load(Relaxed);
    loop {
        // A file that somebody else has written to holds no counts any more.
        let first = unseal(was)?;
        let next = seal(first.checked_add(more)?);
        if seed::on(Seed::ClaimUnitsByStore) {
            count.store(next, Relaxed);
            return Some(first);
        }
        match count.compare_exchange_weak(was, next, Relaxed, Relaxed) {
            Ok(_) => return Some(first),
            Err(now) => was = now,
        }
    }
}

/// The part of a chunk that records go to.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// Bytes of the chunk that are written, its head included, sealed. The writer; readers of the file.
    pub used: &'a AtomicU64,
    /// Bytes of the head.
    pub head: usize,
    /// What comes behind it.
    pub bytes: &'a [AtomicU8],
}

impl Body<'_> {
    /// Writes a record behind the `at` bytes that are written, and answers how many are then; `None` if
    /// there is no room for it.
    ///
    /// Only the chunk's writer calls this.
    pub fn push(&self, at: usize, record: &[u8]) -> Option<usize> {
        let end = at + record.len();
        let room = self.bytes.get(at..end)?;
        let count = seal((self.head + end) as u32);
        if seed::on(Seed::CountFirst) {
            self.used.store(count, Release);
        }
        for (to, &byte) in room.iter().zip(record) {
            to.store(byte, Relaxed);
        }
        if !seed::on(Seed::CountFirst) {
            self.used.store(count, seed::weaken(Seed::CountRelaxed, Release));
        }
        Some(end)
    }

    /// What is written, as a reader of the file sees it: whole records. Answers how many bytes it put
    /// into `to`; `None` if the count is none.
    pub fn read(&self, to: &mut [u8]) -> Option<usize> {
        let count = unseal(self.used.load(Acquire))? as usize;
        let written = self.bytes.get(..count.checked_sub(self.head)?)?;
        for (to, byte) in to.iter_mut().zip(written) {
            *to = byte.load(Relaxed);
        }
        Some(written.len())
    }
}
