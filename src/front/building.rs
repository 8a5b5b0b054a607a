//! The one static: every floor standing on the one below.
//!
//! All of it is zero until used, so it lies in `.bss` and needs no initialisation: the first
//! allocation of the process may come before any constructor has run.

use super::{config, fork, held, observed, sampled};
use crate::base::classes::{Class, Use};
use crate::base::units::{GRANULE, MAX_ORDER, granules_for};
use crate::cache::switch::Pushed;
use crate::cache::{Caches, ThreadCache, slot};
use crate::os::Os;
use crate::os::linux::Linux;
use crate::page::{Extent, PageHeap};
use crate::span::{Objects, SpanTable, Spans};
use crate::transfer::Transfer;
use crate::watch::{mode, sample};
use core::alloc::Layout;
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

/// One slow call: the running thread's cache, if it has one, and what there is to see to first.
pub struct Visit {
    cache: Option<&'static ThreadCache>,
    aside: bool,
}

impl Visit {
    /// A slow call begins.
    #[inline(always)]
    pub fn begin(allocating: bool) -> Self {
        if let Some(cache) = slot::existing()
            && cache.process() == fork::process()
            && config::is_settled()
        {
            cache.enter();
            return Self { cache: Some(cache), aside: false };
        }
        Self::begin_anew(allocating)
    }

    /// The same where there is something to see to.
    #[cold]
    #[inline(never)]
    fn begin_anew(allocating: bool) -> Self {
        if fork::must_stand_aside() {
            return Self { cache: None, aside: true };
        }
        let cache = slot::own(&BUILDING, thread_ends);
        if let Some(cache) = cache
            && cache.enter() == 0
            && cache.process() != fork::process()
        {
            fork::settle(cache);
        }
        config::attend(allocating);
        Self { cache, aside: false }
    }

    /// The running thread's cache, if it has one.
    pub fn cache(&self) -> Option<&'static ThreadCache> {
        self.cache
    }

    /// Whether the floors must be left alone for the moment.
    pub fn aside(&self) -> bool {
        self.aside
    }
}

impl Drop for Visit {
    #[inline]
    fn drop(&mut self) {
        if let Some(cache) = self.cache {
            cache.leave();
        }
    }
}

/// An object for a thread whose bin is empty or pinned, or which has no bins. The layout is for
/// who watches: the class is its own.
#[cold]
#[inline(never)]
pub fn take_slow(layout: Layout, class: Class) -> *mut u8 {
    if sampled::alone()
        && let Some(object) = sampled::take(layout.size(), class)
    {
        held::goes_out(object, class);
        return object;
    }
    take_long(layout, class)
}

// A function of its own, so that the short way needs no frame.
#[cold]
#[inline(never)]
pub fn take_long(layout: Layout, class: Class) -> *mut u8 {
    let visit = Visit::begin(true);
    let mode = BUILDING.mode();
    if mode == 0 || mode == mode::PROFILE_ALONE {
        let object = take_visiting(&visit, class);
        held::goes_out(object, class);
        drop(visit);
        if BUILDING.mode() != mode {
            observed::taken_unseen(object, layout.size(), layout.align());
        } else if mode != 0 {
            sampled::taken_long(object, layout.size(), class);
        }
        return object;
    }
    drop(visit);
    observed::take(layout.size(), layout.align(), false)
}

/// An object, whoever watches.
pub fn take_object(class: Class) -> *mut u8 {
    take_visiting(&Visit::begin(true), class)
}

fn take_visiting(visit: &Visit, class: Class) -> *mut u8 {
    let object = match visit.cache() {
        Some(cache) => BUILDING.refill(cache, class),
        None if visit.aside() => return take_aside(class.size(), 1),
        None => take_one(class),
    };
    if object.is_null() {
        reclaim(visit);
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

/// A mapping of its own for what would be smaller.
#[cold]
fn take_aside(size: usize, align: usize) -> *mut u8 {
    pages().large_alloc_apart(size, align).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Before the answer is null: what this thread keeps and what waits between threads goes back to
/// the spans, and may end some.
#[cold]
fn reclaim(visit: &Visit) {
    if let Some(cache) = visit.cache() {
        BUILDING.empty(cache);
    }
    BUILDING.below().flush();
}

/// Takes an object back from a thread whose bin is full or pinned, or which has no bins. For who watches
/// comes its size in words of 8 bytes: the fast path has that at hand, and the size itself would cost it an
/// instruction.
///
/// # Safety
/// `object` is of this class, which is that of so many words at `align`, and the caller gives it up.
#[cold]
#[inline(never)]
pub unsafe fn give_slow(object: *mut u8, words: usize, align: usize, class: Class) {
    // SAFETY: the caller's promise, for each of these.
    unsafe {
        match sampled::give(object, class) {
            Pushed::Kept => {}
            Pushed::Due => sampled::give_due(object, class),
            Pushed::NotOpen => give_long(object, words, align, class),
        }
    }
}

// As `take_long`.
#[cold]
#[inline(never)]
unsafe fn give_long(object: *mut u8, words: usize, align: usize, class: Class) {
    let visit = Visit::begin(false);
    // SAFETY: the caller's promise.
    if unsafe { give_unwatched(&visit, object, class) } {
        return;
    }
    drop(visit);
    if let Some(block) = NonNull::new(object) {
        // SAFETY: the caller's promise.
        unsafe { observed::give(block, Some((words * 8, align))) }
    }
}

/// Takes an object back if nobody watches, or the heap profile alone.
///
/// # Safety
/// As [`give_slow`].
#[inline(always)]
unsafe fn give_unwatched(visit: &Visit, object: *mut u8, class: Class) -> bool {
    let mode = BUILDING.mode();
    if mode != 0 && mode != mode::PROFILE_ALONE {
        return false;
    }
    if mode != 0 {
        sample::gone(object.addr());
    }
    // SAFETY: the caller's promise.
    unsafe { give_visiting(visit, object, class) };
    if mode != 0 {
        sampled::reopen(class);
    }
    true
}

/// The same where the caller knows no size: the class is the page map's.
///
/// # Safety
/// As [`give_slow`].
#[cold]
#[inline(never)]
pub unsafe fn give_slow_bare(object: *mut u8, class: Class) {
    // SAFETY: the caller's promise, for each of these.
    unsafe {
        match sampled::give(object, class) {
            Pushed::Kept => {}
            Pushed::Due => sampled::give_due(object, class),
            Pushed::NotOpen => give_long_bare(object, class),
        }
    }
}

// As `take_long`.
#[cold]
#[inline(never)]
unsafe fn give_long_bare(object: *mut u8, class: Class) {
    let visit = Visit::begin(false);
    // SAFETY: the caller's promise.
    if unsafe { give_unwatched(&visit, object, class) } {
        return;
    }
    drop(visit);
    if let Some(block) = NonNull::new(object) {
        // SAFETY: the caller's promise.
        unsafe { observed::give(block, None) }
    }
}

/// Takes an object back, whoever watches.
///
/// # Safety
/// As [`give_slow`].
pub unsafe fn give_object(object: *mut u8, class: Class) {
    // SAFETY: the caller's promise.
    unsafe { give_visiting(&Visit::begin(false), object, class) }
}

/// # Safety
/// As [`give_slow`].
unsafe fn give_visiting(visit: &Visit, object: *mut u8, class: Class) {
    match visit.cache() {
        // SAFETY: the cache is the running thread's, and the object is given up.
        Some(cache) => unsafe { BUILDING.spill(cache, class, object) },
        None if visit.aside() => {}
        None => spans().give(class, &mut [object]),
    }
}

/// The longest block that is not a mapping of its own.
pub const LARGEST_RUN: usize = GRANULE << MAX_ORDER;

/// A block of whole granules or more, or null.
#[cold]
#[inline(never)]
pub fn take_large(size: usize, align: usize) -> *mut u8 {
    take_large_as(size, align, false)
}

/// The same, all zero.
#[cold]
#[inline(never)]
pub fn take_large_zeroed(size: usize, align: usize) -> *mut u8 {
    take_large_as(size, align, true)
}

#[inline(always)]
fn take_large_as(size: usize, align: usize, zero: bool) -> *mut u8 {
    let visit = Visit::begin(true);
    if BUILDING.mode() != 0 {
        drop(visit);
        return observed::take(size, align, zero);
    }
    let block = run_visiting(&visit, size, align, zero);
    drop(visit);
    if BUILDING.mode() != 0 {
        observed::taken_unseen(block, size, align);
    }
    block
}

/// A block of whole granules or more, whoever watches; if `zero`, all zero.
pub fn take_run(size: usize, align: usize, zero: bool) -> *mut u8 {
    run_visiting(&Visit::begin(true), size, align, zero)
}

fn run_visiting(visit: &Visit, size: usize, align: usize, zero: bool) -> *mut u8 {
    if visit.aside() {
        return take_aside(size, align);
    }
    if size <= LARGEST_RUN && pages().would_grow(granules_for(size)) {
        // A few objects that wait in caches can keep much memory from being whole.
        reclaim(visit);
    }
    let block = pages().large_alloc(size, align, zero).or_else(|| {
        // Spans never make room for a mapping, let alone for what no system has.
        match Extent::of(size, align, pages().os().page_size()) {
            Some(Extent::Granules { .. }) => {
                reclaim(visit);
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

/// A mapping of its own for a block of `size` bytes, whatever that is, and whoever watches; or null.
pub fn take_own(size: usize, align: usize) -> *mut u8 {
    let visit = Visit::begin(true);
    if visit.aside() {
        return take_aside(size, align);
    }
    pages().large_alloc_own(size, align).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Takes a large block back.
///
/// # Safety
/// `at` was handed out for `size` and `align` and nobody uses it any more.
pub unsafe fn give_large(at: NonNull<u8>, size: usize, align: usize) {
    let visit = Visit::begin(false);
    if BUILDING.mode() == 0 {
        if !visit.aside() {
            // SAFETY: the caller's promise.
            unsafe { pages().large_free(at, size, align) }
        }
        return;
    }
    drop(visit);
    // SAFETY: the caller's promise.
    unsafe { observed::give(at, Some((size, align))) }
}

/// The same, whoever watches.
///
/// # Safety
/// As [`give_large`].
pub unsafe fn give_run(at: NonNull<u8>, size: usize, align: usize) {
    if !Visit::begin(false).aside() {
        // SAFETY: the caller's promise.
        unsafe { pages().large_free(at, size, align) }
    }
}

/// Takes back what the page map says is a block, whoever watches.
///
/// # Safety
/// Nobody uses the block any more.
pub unsafe fn give_found(at: NonNull<u8>, usage: Use, bytes: usize) {
    if !Visit::begin(false).aside() {
        // SAFETY: the caller's promise.
        unsafe { pages().large_free_found(at, usage, bytes) }
    }
}

/// Resizes a large block without copying it, or changes nothing; whoever watches.
///
/// # Safety
/// As [`PageHeap::large_resize`].
pub unsafe fn resize_run(
    at: NonNull<u8>,
    old: usize,
    new: usize,
    align: usize,
) -> Option<NonNull<u8>> {
    if Visit::begin(true).aside() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { pages().large_resize(at, old, new, align) }
}
