//! The front in observed mode: the same floors, and every call shown to who watches.
//!
//! All bins are pinned then, so that every call ends here. Blocks are found by the page map and not by
//! what the caller says of them: who watches may have laid them out otherwise.

use super::bare::{self, Block};
use super::building::{self, pages};
use crate::base::classes::{C_ALIGN, Class, MIN_ALIGN, Use};
use crate::base::death;
use crate::watch::{self, Fate};
use core::ptr::{self, NonNull};

/// The alignment that C promises for `size` bytes.
pub fn c_align(size: usize) -> usize {
    if size < C_ALIGN { MIN_ALIGN } else { C_ALIGN }
}

/// A block, or null.
#[cold]
#[inline(never)]
pub fn take(size: usize, align: usize, zero: bool) -> *mut u8 {
    let at = place(size, align, zero);
    if let Some(block) = NonNull::new(at) {
        watch::born(block, size, align);
    }
    at
}

/// A block that nobody has been shown yet.
fn place(size: usize, align: usize, zero: bool) -> *mut u8 {
    match Class::of(size, align) {
        Some(class) => building::take_object(class),
        None => building::take_run(size, align, zero),
    }
}

/// Takes a block back, of which the caller may say size and alignment. Dies by name if it is none.
///
/// # Safety
/// The caller gives the block up.
#[cold]
#[inline(never)]
pub unsafe fn give(at: NonNull<u8>, layout: Option<(usize, usize)>) {
    if watch::dying(at, layout) == Fate::Free {
        // SAFETY: the caller's promise.
        unsafe { release(at, layout) }
    }
}

/// Takes back a block that nobody who watches keeps.
///
/// # Safety
/// Nobody uses the block any more.
pub unsafe fn release(at: NonNull<u8>, layout: Option<(usize, usize)>) {
    let addr = at.addr().get();
    let Some(block) = bare::block_at(addr) else { pages().not_a_block(addr) };
    if let Some((size, align)) = layout {
        let fits = match (&block, Class::of(size, align)) {
            (Block::Object(class), its) => its == Some(*class),
            (Block::Large(..), its) => its.is_none(),
        };
        if !fits {
            death::wrong_class(addr);
        }
    }
    // SAFETY: the caller's promise, for each of these.
    unsafe {
        match (block, layout) {
            (Block::Object(class), _) => building::give_object(at.as_ptr(), class),
            (Block::Large(usage, bytes), None) => building::give_found(at, usage, bytes),
            // It checks the length.
            (Block::Large(..), Some((size, align))) => building::give_run(at, size, align),
        }
    }
}

/// Changes the size of a block: in place, by moving its pages, or by a copy. Null: nothing has changed.
///
/// # Safety
/// The block is the caller's; with a layout, one for which it was handed out.
#[cold]
#[inline(never)]
pub unsafe fn resize(at: NonNull<u8>, layout: Option<(usize, usize)>, size: usize) -> *mut u8 {
    let addr = at.addr().get();
    let Some(block) = bare::block_at(addr) else { death::no_block(addr) };
    let usable = match block {
        Block::Object(class) => class.size(),
        Block::Large(_, bytes) => bytes,
    };
    let (old, align) = match layout {
        Some((old, _)) if old > usable => death::wrong_class(addr),
        Some(layout) => layout,
        None => (usable, c_align(size)),
    };
    if matches!(block, Block::Object(class) if Class::of(size, align) == Some(class)) {
        let _ = watch::resized(at, old, at, size, align);
        return at.as_ptr();
    }
    let run = match block {
        Block::Large(Use::Large, _) => true,
        Block::Large(_, bytes) => bytes > building::LARGEST_RUN,
        Block::Object(_) => false,
    };
    if run
        && Class::of(size, align).is_none()
        // SAFETY: the caller's block, as the page map knows it.
        && let Some(new) = unsafe { building::resize_run(at, old, size, align) }
    {
        let _ = watch::resized(at, old, new, size, align);
        return new.as_ptr();
    }
    // One that had to move once will grow again: an eighth more, as in C's door without observers.
    let more = if layout.is_none() && size > old && run { size / 8 } else { 0 };
    let new = place(size.saturating_add(more), align, false);
    let new = if new.is_null() && more != 0 { place(size, align, false) } else { new };
    let Some(new) = NonNull::new(new) else { return ptr::null_mut() };
    // SAFETY: both blocks are that long and disjoint.
    unsafe { ptr::copy_nonoverlapping(at.as_ptr(), new.as_ptr(), old.min(size)) };
    if watch::resized(at, old, new, size, align) == Fate::Free {
        // SAFETY: the caller gives the old block up.
        unsafe { release(at, layout) };
    }
    new.as_ptr()
}
