//! The one static: every floor standing on the one below.
//!
//! All of it is zero until used, so it lies in `.bss` and needs no initialisation: the first
//! allocation of the process may come before any constructor has run.

use crate::base::classes::Class;
use crate::cache::{Caches, ThreadCache, slot};
use crate::os::linux::Linux;
use crate::page::{Large, PageHeap};
use crate::span::{Objects, SpanTable, Spans};
use crate::transfer::Transfer;
use core::ptr;

/// The floors from top to ground.
pub type Building = Caches<Transfer<Spans<Linux>>>;

/// The allocator of this process.
pub static BUILDING: Building = Caches::new(Transfer::new(Spans::new(PageHeap::new(Linux::new()))));

/// The page heap of this process.
pub fn pages() -> &'static PageHeap<Linux, SpanTable> {
    spans().pages()
}

/// The spans of this process.
pub fn spans() -> &'static Spans<Linux> {
    BUILDING.below().below()
}

unsafe extern "C" fn thread_ends(_: *mut u8) {
    slot::exit(&BUILDING, thread_ends);
}

/// The running thread's cache, if it has one.
pub fn own_cache() -> Option<&'static ThreadCache> {
    slot::own(&BUILDING, thread_ends)
}

/// An object for a thread whose bin is empty, or which has no bins.
#[cold]
#[inline(never)]
pub fn take_slow(class: Class) -> *mut u8 {
    match own_cache() {
        Some(cache) => BUILDING.refill(cache, class),
        None => {
            let mut one = [ptr::null_mut()];
            spans().take(class, &mut one);
            one[0]
        }
    }
}

/// Takes an object back from a thread whose bin is full, or which has no bins.
///
/// # Safety
/// `object` is of this class and the caller gives it up.
#[cold]
#[inline(never)]
pub unsafe fn give_slow(object: *mut u8, class: Class) {
    match own_cache() {
        // SAFETY: the cache is the running thread's, and the object is given up.
        Some(cache) => unsafe { BUILDING.spill(cache, class, object) },
        None => spans().give(class, &mut [object]),
    }
}

/// A block of whole granules or more, or null.
#[cold]
#[inline(never)]
pub fn take_large(size: usize, align: usize) -> *mut u8 {
    large(size, align).map_or(ptr::null_mut(), |large| large.at.as_ptr())
}

/// The same, all zero.
#[cold]
#[inline(never)]
pub fn take_large_zeroed(size: usize, align: usize) -> *mut u8 {
    let Some(large) = large(size, align) else { return ptr::null_mut() };
    if !large.zeroed {
        // SAFETY: a fresh block of at least this size.
        unsafe { large.at.write_bytes(0, size) };
    }
    large.at.as_ptr()
}

fn large(size: usize, align: usize) -> Option<Large> {
    pages().large_alloc(size, align).or_else(|| {
        // What waits between threads may end whole spans.
        BUILDING.below().flush();
        pages().large_alloc(size, align)
    })
}
