//! The one static: every floor standing on the one below.
//!
//! All of it is zero until used, so it lies in `.bss` and needs no initialisation: the first
//! allocation of the process may come before any constructor has run.

use crate::base::classes::Class;
use crate::base::units::{GRANULE, MAX_ORDER, granules_for};
use crate::cache::{Caches, ThreadCache, slot};
use crate::os::Os;
use crate::os::linux::Linux;
use crate::page::{Extent, PageHeap};
use crate::span::{Objects, SpanTable, Spans};
use crate::transfer::Transfer;
use core::ptr::{self, NonNull};

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
    super::config::attend(true);
    let object = match own_cache() {
        Some(cache) => BUILDING.refill(cache, class),
        None => take_one(class),
    };
    if object.is_null() {
        reclaim();
        return take_one(class);
    }
    object
}

/// An object from between the threads, for a thread without bins.
fn take_one(class: Class) -> *mut u8 {
    let mut one = [ptr::null_mut()];
    BUILDING.below().take(class, &mut one);
    one[0]
}

/// Before the answer is null: what this thread keeps and what waits between threads goes back to
/// the spans, and may end some.
#[cold]
fn reclaim() {
    if let Some(cache) = own_cache() {
        BUILDING.empty(cache);
    }
    BUILDING.below().flush();
}

/// Takes an object back from a thread whose bin is full, or which has no bins.
///
/// # Safety
/// `object` is of this class and the caller gives it up.
#[cold]
#[inline(never)]
pub unsafe fn give_slow(object: *mut u8, class: Class) {
    super::config::attend(false);
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
    large(size, align, false)
}

/// The same, all zero.
#[cold]
#[inline(never)]
pub fn take_large_zeroed(size: usize, align: usize) -> *mut u8 {
    large(size, align, true)
}

fn large(size: usize, align: usize, zero: bool) -> *mut u8 {
    super::config::attend(true);
    if size <= GRANULE << MAX_ORDER && pages().would_grow(granules_for(size)) {
        // A few objects that wait in caches can keep much memory from being whole.
        reclaim();
    }
    let block = pages().large_alloc(size, align, zero).or_else(|| {
        // Spans never make room for a mapping, let alone for what no system has.
        match Extent::of(size, align, pages().os().page_size()) {
            Some(Extent::Granules { .. }) => {
                reclaim();
                pages().large_alloc(size, align, zero)
            }
            _ => None,
        }
    });
    if BUILDING.below().is_growing() {
        BUILDING.below().tick();
    }
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}
