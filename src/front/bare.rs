//! Calls that bring no `Layout`: what C has.
//!
//! A free finds the block's class by its address: page map, window, class word. Two loads and a
//! multiplication tell an object's start from any other address, so an address that was never handed
//! out is seen before anything is done with it, and nothing behind it is ever read. Where a shadow is kept
//! it is asked first: it knows besides whether somebody holds the object.

use super::building::{
    BUILDING, LARGEST_RUN, give_found, give_object, give_slow_bare, pages, resize_run, take_large,
    take_large_zeroed, take_slow,
};
use super::{Spandrel, held, observed, sampled};
use crate::base::classes::{C_ALIGN, Class, MIN_ALIGN, Use};
use crate::base::death;
use crate::cache::slot;
use crate::watch::claim::Claim;
use crate::watch::{check, mode};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// A block as the page map knows it.
pub(super) enum Block {
    Object(Class),
    /// A large block or a mapping of its own, and its bytes.
    Large(Use, usize),
}

/// The block that starts at `addr`, if one does.
pub(super) fn block_at(addr: usize) -> Option<Block> {
    if let Some(word) = pages().object_at(addr) {
        let class = Class::from_word(word);
        let shape = class.shape();
        // Behind the last object a span may have room that is none.
        let at = shape.index_of(addr & (class.span_bytes() - 1));
        return (at < shape.objects).then_some(Block::Object(class));
    }
    pages().large_at(addr).map(|(usage, bytes)| Block::Large(usage, bytes))
}

/// `size` bytes, aligned for any type that fits into them, if the thread has them at hand.
#[inline(always)]
pub fn alloc_fast(size: usize) -> Option<*mut u8> {
    let class = Class::of_c(size)?;
    // SAFETY: the bin is the running thread's own, or pinned.
    let object = unsafe { slot::current().bin(class).pop() }?;
    held::goes_out(object, class);
    Some(object)
}

/// `size` bytes, aligned for any type that fits into them.
#[inline(always)]
pub fn alloc(size: usize) -> *mut u8 {
    alloc_fast(size).unwrap_or_else(|| alloc_slow(size))
}

/// The same where [`alloc_fast`] has none.
#[cold]
#[inline(never)]
pub fn alloc_slow(size: usize) -> *mut u8 {
    match Class::of_c(size) {
        Some(class) => take_slow(observed::c_layout(size), class),
        None => take_large(size, C_ALIGN),
    }
}

/// The same, all zero.
#[inline(always)]
pub fn alloc_zeroed(size: usize) -> *mut u8 {
    if Class::of_c(size).is_none() {
        return take_large_zeroed(size, C_ALIGN);
    }
    let at = alloc(size);
    if !at.is_null() {
        // SAFETY: a fresh object of at least this size.
        unsafe { at.write_bytes(0, size) };
    }
    at
}

/// Whether any block of `size` bytes is aligned to `align`.
fn is_aligned_anyway(size: usize, align: usize) -> bool {
    align <= MIN_ALIGN || (align <= C_ALIGN && size >= C_ALIGN)
}

/// The alignment of a block that was asked for with this one, as who watches knows it; 0 stays what it is.
pub fn kept_align(size: usize, align: usize) -> usize {
    match align {
        0 => 0,
        _ if is_aligned_anyway(size, align) => observed::c_align(size),
        _ => align,
    }
}

/// The class that serves `size` bytes at `align`.
pub fn class_of(size: usize, align: usize) -> Option<Class> {
    if is_aligned_anyway(size, align) { Class::of_c(size) } else { Class::of(size, align) }
}

/// `size` bytes at a multiple of `align`, a power of two.
pub fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
    if is_aligned_anyway(size, align) {
        return alloc(size);
    }
    match Layout::from_size_align(size, align) {
        // SAFETY: any layout may be asked for, size 0 included.
        Ok(layout) => unsafe { Spandrel.alloc(layout) },
        // More than any system has.
        Err(_) => ptr::null_mut(),
    }
}

/// Takes a block back; null is none.
///
/// # Safety
/// `at` is null or a block that nobody uses any more. An address that is neither dies by name.
#[inline(always)]
pub unsafe fn free(at: *mut u8) {
    if held::NOTED {
        // SAFETY: the caller's promise.
        return unsafe { free_noted(at) };
    }
    // SAFETY: the caller's promise.
    unsafe { free_found(at) }
}

/// What the shadow says is held is an object's start; what it does not know is looked up.
///
/// # Safety
/// As [`free`].
#[inline(always)]
unsafe fn free_noted(at: *mut u8) {
    let Some(word) = held::comes_back(at) else {
        // SAFETY: the caller's promise.
        return unsafe { free_unnoted(at) };
    };
    // SAFETY: the bin is the running thread's own, or pinned; the caller gives the object up.
    if !unsafe { slot::current().bin_of_word(word).push(at) } {
        // SAFETY: as above.
        unsafe { give_slow_bare(at, Class::from_word(word)) };
    }
}

#[cold]
#[inline(never)]
unsafe fn free_unnoted(at: *mut u8) {
    if let Some(block) = NonNull::new(at) {
        if held::is_free(at.addr()) {
            held::freed_again(block, None);
        }
        if held::is_nothing(at.addr()) && BUILDING.mode() == 0 {
            pages().not_a_block(at.addr());
        }
        // SAFETY: the caller's promise.
        unsafe { free_found(at) }
    }
}

/// Where no shadow is: the block is found by the page map.
///
/// # Safety
/// As [`free`].
#[inline(always)]
unsafe fn free_found(at: *mut u8) {
    let Some(word) = pages().object_at(at.addr()) else {
        // SAFETY: the caller's promise.
        return unsafe { free_rest(at) };
    };
    // SAFETY: the bin is the running thread's own, or pinned; the caller gives the object up.
    if !unsafe { slot::current().bin_of_word(word).push_once(at) } {
        // SAFETY: as above.
        unsafe { give_slow_bare(at, Class::from_word(word)) };
    }
}

/// As [`free`], of a block of which the caller says something. Looked at while somebody watches.
///
/// # Safety
/// As [`free`].
pub unsafe fn free_said(at: *mut u8, said: Claim) {
    if BUILDING.mode() != 0
        && let Some(block) = NonNull::new(at)
    {
        let said = said.aligned_to(kept_align(said.size, said.align));
        if held::is_free(at.addr()) {
            held::freed_again(block, Some(said));
        }
        // SAFETY: the caller's promise.
        return unsafe { observed::give_said(block, said) };
    }
    // SAFETY: the caller's promise.
    unsafe { free(at) }
}

/// Looks at what C++'s sized `delete` says of a block that it is about to free, in checked mode.
pub fn look_at_said(at: *const u8, size: usize, align: usize) {
    if mode::has(mode::CHECK) {
        check::deleted(at.addr(), size, align);
    }
}

/// What is no object: null, a large block, a mistake.
#[cold]
#[inline(never)]
unsafe fn free_rest(at: *mut u8) {
    let Some(block) = NonNull::new(at) else { return };
    if BUILDING.mode() != 0 {
        // SAFETY: the caller's promise.
        return unsafe { observed::give(block, None) };
    }
    match block_at(at.addr()) {
        // SAFETY: the caller gives up an object of this class.
        Some(Block::Object(class)) => unsafe { give_object(at, class) },
        // SAFETY: the caller gives up this block.
        Some(Block::Large(usage, bytes)) => unsafe { give_found(block, usage, bytes) },
        None => pages().not_a_block(at.addr()),
    }
}

/// Bytes of the block that starts at `at`, all of which may be used; 0 for null. Dies by name if none
/// does.
pub fn usable_size(at: *const u8) -> usize {
    let Some(block) = NonNull::new(at.cast_mut()) else { return 0 };
    if BUILDING.mode() != 0
        && let Some(size) = observed::usable_size(block)
    {
        return size;
    }
    if held::is_free(at.addr()) {
        death::no_block(at.addr());
    }
    match block_at(at.addr()) {
        Some(Block::Object(class)) => class.size(),
        Some(Block::Large(_, bytes)) => bytes,
        None => death::no_block(at.addr()),
    }
}

/// A block of `size` bytes that begins with what `at` holds; `at` is gone. Null: nothing has changed.
///
/// # Safety
/// `at` is a block of the caller's. An address that is none dies by name.
pub unsafe fn resize(at: NonNull<u8>, size: usize) -> *mut u8 {
    if BUILDING.mode() != 0
        && !(sampled::may_stay() && pages().object_at(at.addr().get()).is_some())
    {
        // SAFETY: the caller's promise.
        return unsafe { observed::resize(at, None, size) };
    }
    if held::is_free(at.addr().get()) {
        death::no_block(at.addr().get());
    }
    let (old, wanted) = match block_at(at.addr().get()) {
        None => death::no_block(at.addr().get()),
        Some(Block::Object(class)) => {
            // Freed, and by this thread last: seen here because nothing else of it is looked at.
            if slot::current().bin(class).is_on_top(at.as_ptr()) {
                death::no_block(at.addr().get());
            }
            // A block that shrinks by less than half stays.
            if size <= class.size() && (size > class.size() / 2 || Class::of_c(size) == Some(class))
            {
                return at.as_ptr();
            }
            (class.size(), size)
        }
        Some(Block::Large(usage, bytes)) => {
            if usage == Use::Large || bytes > LARGEST_RUN {
                // SAFETY: the caller's block, as the page map knows it.
                let resized = unsafe { resize_run(at, bytes, size, 1) };
                if let Some(resized) = resized {
                    if BUILDING.mode() != 0 {
                        observed::taken_unseen(resized.as_ptr(), size, observed::c_align(size));
                    }
                    return resized.as_ptr();
                }
            }
            // One that had to move once will grow again: an eighth more, so that growing by a little
            // at a time copies each byte a few times in all.
            (bytes, if size > bytes { size.saturating_add(size / 8) } else { size })
        }
    };
    let mut new = alloc(wanted);
    if new.is_null() && wanted != size {
        new = alloc(size);
    }
    if !new.is_null() {
        // SAFETY: both blocks are that long and disjoint; the old one is given up afterwards.
        unsafe {
            ptr::copy_nonoverlapping(at.as_ptr(), new, old.min(size));
            free(at.as_ptr());
        }
    }
    new
}
