//! What the front calls, handed out to the consumers whose bit is set.

use super::{ledger, mode, stacks};
use core::ptr::NonNull;

/// What becomes of a block that the program frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// It goes back to the heap.
    Free,
    /// A consumer keeps it back, and will release it later.
    Kept,
}

/// A block was handed out for `size` bytes at `align`.
pub fn born(at: NonNull<u8>, size: usize, align: usize) {
    let mode = mode::get();
    if mode & mode::LEDGER != 0 {
        enter(mode, at, size, align);
    }
}

/// A block is about to be freed. Where the call said so, its size and alignment.
pub fn dying(at: NonNull<u8>, layout: Option<(usize, usize)>) -> Fate {
    let mode = mode::get();
    let _ = layout;
    if mode & mode::LEDGER != 0 {
        strike(mode, at);
    }
    Fate::Free
}

/// A block of `old_size` bytes has `new_size` now, and may be somewhere else; then the answer says what
/// becomes of where it was.
pub fn resized(
    old_at: NonNull<u8>,
    old_size: usize,
    new_at: NonNull<u8>,
    new_size: usize,
    align: usize,
) -> Fate {
    let mode = mode::get();
    let _ = old_size;
    if mode & mode::LEDGER != 0 {
        if old_at != new_at {
            strike(mode, old_at);
        }
        enter(mode, new_at, new_size, align);
    }
    Fate::Free
}

/// Consumers for which stacks are kept in the ledger.
const STACKS: u64 = mode::CHECK_STACKS | mode::LEAKS;

fn stack(mode: u64) -> u32 {
    if mode & STACKS != 0 { stacks::capture() } else { 0 }
}

fn enter(mode: u64, at: NonNull<u8>, size: usize, align: usize) {
    if let Some(block) = ledger::find(at.addr().get()) {
        // Without room for a record the block is served all the same.
        block.born(size, align, 0, stack(mode));
    }
}

fn strike(mode: u64, at: NonNull<u8>) {
    if let Some(block) = ledger::find(at.addr().get()) {
        // That it is freed twice is the checker's business.
        let _ = block.died(if mode & mode::CHECK_STACKS != 0 { stack(mode) } else { 0 });
    }
}
