//! Calls that bring no `Layout`: what C has.
//!
//! A free finds the block's class by its address: page map, window, class word. Two loads and a
//! multiplication tell an object's start from any other address, so an address that was never handed
//! out is seen before anything is done with it, and nothing behind it is ever read.

use super::Spandrel;
use super::building::{
    give_found, give_slow, pages, resize_large, take_large, take_large_zeroed, take_slow,
};
use crate::base::classes::{C_ALIGN, CLASSES, Class, MIN_ALIGN, STRIDE, USES, Use};
use crate::base::death;
use crate::base::units::{GRANULE, Granule, MAX_ORDER};
use crate::cache::slot;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// What tells the start of an object from other addresses in its span, by class word.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Check {
    /// 2^64 over the object's size, rounded up; 0 for what is no span.
    ///
    /// An offset below 2^18 is a multiple of the size exactly if its product with this, modulo 2^64,
    /// is smaller than this (Lemire, Kaser, Kurz, "Faster remainder by direct computation", 2019).
    magic: u64,
    /// Turns an address into its offset in the span.
    mask: usize,
}

const _: () = assert!(size_of::<Check>() == STRIDE);

static CHECKS: [Check; USES] = {
    let mut checks = [Check { magic: 0, mask: 0 }; USES];
    let mut index = 0;
    while index < CLASSES {
        let class = Class::from_index(index);
        let magic = (1u128 << 64).div_ceil(class.size() as u128) as u64;
        checks[index + 1] = Check { magic, mask: class.span_bytes() - 1 };
        index += 1;
    }
    checks
};

impl Check {
    #[inline(always)]
    fn is_start(&self, addr: usize) -> bool {
        // Read twice, so that both readings are operands of what is done with them: an instruction less.
        // SAFETY: a constant.
        let magic = || unsafe { (&raw const self.magic).read_volatile() };
        ((addr & self.mask) as u64).wrapping_mul(magic()) < magic()
    }
}

/// The class word of the object that starts at `addr`; `None` if none does, or something else does.
#[inline(always)]
fn object_at(addr: usize) -> Option<usize> {
    let word = pages().find(addr)?.class_word(Granule::of(addr));
    // SAFETY: there is a check for every class word, STRIDE bytes apart.
    let check = unsafe { &*CHECKS.as_ptr().byte_add(word) };
    check.is_start(addr).then_some(word)
}

/// A block as the page map knows it.
enum Block {
    Object(Class),
    /// A large block or a mapping of its own, and its bytes.
    Large(Use, usize),
}

/// The block that starts at `addr`, if one does.
fn block_at(addr: usize) -> Option<Block> {
    if let Some(word) = object_at(addr) {
        return Some(Block::Object(Class::from_word(word)));
    }
    pages().large_at(addr).map(|(usage, bytes)| Block::Large(usage, bytes))
}

/// `size` bytes, aligned for any type that fits into them, if the thread has them at hand.
#[inline(always)]
pub fn alloc_fast(size: usize) -> Option<*mut u8> {
    // SAFETY: the bin is the running thread's own, or pinned.
    unsafe { slot::current().bin(Class::of_c(size)?).pop() }
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
        Some(class) => take_slow(class),
        None => take_large(size, 1),
    }
}

/// The same, all zero.
#[inline(always)]
pub fn alloc_zeroed(size: usize) -> *mut u8 {
    if Class::of_c(size).is_none() {
        return take_large_zeroed(size, 1);
    }
    let at = alloc(size);
    if !at.is_null() {
        // SAFETY: a fresh object of at least this size.
        unsafe { at.write_bytes(0, size) };
    }
    at
}

/// `size` bytes at a multiple of `align`, a power of two.
pub fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
    if align <= MIN_ALIGN || (align <= C_ALIGN && size >= C_ALIGN) {
        return alloc(size);
    }
    // SAFETY: the front serves every size and power of two, more than a `Layout` may say.
    unsafe { Spandrel.alloc(Layout::from_size_align_unchecked(size, align)) }
}

/// Takes a block back; null is none.
///
/// # Safety
/// `at` is null or a block that nobody uses any more. An address that is neither dies by name.
#[inline(always)]
pub unsafe fn free(at: *mut u8) {
    let Some(word) = object_at(at.addr()) else {
        // SAFETY: the caller's promise.
        return unsafe { free_rest(at) };
    };
    // SAFETY: the bin is the running thread's own, or pinned; the caller gives the object up.
    if !unsafe { slot::current().bin_of_word(word).push_once(at) } {
        // SAFETY: as above.
        unsafe { give_slow(at, Class::from_word(word)) };
    }
}

/// What is no object: null, a large block, a mistake.
#[cold]
#[inline(never)]
unsafe fn free_rest(at: *mut u8) {
    let Some(block) = NonNull::new(at) else { return };
    match block_at(at.addr()) {
        // SAFETY: the caller gives up an object of this class.
        Some(Block::Object(class)) => unsafe { give_slow(at, class) },
        // SAFETY: the caller gives up this block.
        Some(Block::Large(usage, bytes)) => unsafe { give_found(block, usage, bytes) },
        None => pages().not_a_block(at.addr()),
    }
}

/// Bytes of the block that starts at `at`, all of which may be used; 0 for null. Dies by name if none
/// does.
pub fn usable_size(at: *const u8) -> usize {
    if at.is_null() {
        return 0;
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
    let (old, wanted) = match block_at(at.addr().get()) {
        None => death::no_block(at.addr().get()),
        Some(Block::Object(class)) => {
            // A block that shrinks by less than half stays.
            if size <= class.size() && (size > class.size() / 2 || Class::of_c(size) == Some(class))
            {
                return at.as_ptr();
            }
            (class.size(), size)
        }
        Some(Block::Large(usage, bytes)) => {
            if usage == Use::Large || bytes > GRANULE << MAX_ORDER {
                // SAFETY: the caller's block, as the page map knows it.
                let resized = unsafe { resize_large(at, bytes, size, 1) };
                if let Some(resized) = resized {
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
