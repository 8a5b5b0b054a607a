//! The front: what a Rust program calls.
//!
//! `Layout` to class is a `const` table look-up that folds when the layout is constant; popping or
//! pushing a pointer is the rest. A free that brings its layout touches no metadata at all.

pub mod bare;
pub mod building;
pub mod c;
pub mod config;
pub mod doors;
mod fork;
mod held;
pub mod map;
pub mod observed;
mod realloc;
mod sampled;
mod trace;

use crate::base::classes::Class;
use crate::base::options::Options;
use crate::cache::slot;
use crate::observe::Stats;
use crate::span::Objects;
use building::{BUILDING, give_slow, pages, spans, take_large, take_large_zeroed, take_slow};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

/// The allocator. Zero-sized; all its state is one static.
///
/// ```
/// #[global_allocator]
/// static A: spandrel::Spandrel = spandrel::Spandrel;
/// # assert_eq!(vec![1, 2, 3].iter().sum::<i32>(), 6);
/// ```
///
/// Every `Layout` is served: sizes from 0 to `isize::MAX`, alignments up to 1 GiB and beyond. What
/// cannot be served is a null pointer, never an abort. Misuse that the allocator sees (an object
/// freed twice, an address it never handed out) stops the process by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spandrel;

#[inline(always)]
fn take(layout: Layout, class: Class) -> *mut u8 {
    // SAFETY: the bin is the running thread's own, or pinned.
    match unsafe { slot::current().bin(class).pop() } {
        Some(object) => {
            held::goes_out(object, class);
            object
        }
        None => take_slow(layout, class),
    }
}

#[inline(always)]
fn give(object: *mut u8, layout: Layout, class: Class) {
    let words = layout.size().div_ceil(8);
    let simple = held::comes_back_as(object, words, layout.align(), class)
        // SAFETY: the bin is the running thread's own, or pinned; the caller of `dealloc` gives up an
        // object of this class.
        && unsafe { slot::current().bin(class).push(object) };
    if !simple {
        // SAFETY: as above.
        unsafe { give_slow(object, words, layout.align(), class) };
    }
}

// SAFETY: blocks are disjoint, aligned and as long as asked, and stay until they are given back;
// nothing here unwinds. The floors' own pages argue why.
unsafe impl GlobalAlloc for Spandrel {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout.size(), layout.align()) {
            Some(class) => take(layout, class),
            None => take_large(layout.size(), layout.align()),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match Class::of(layout.size(), layout.align()) {
            Some(class) => give(at, layout, class),
            // SAFETY: the caller gives up a block it got for this layout.
            None => unsafe { give_large(at, layout) },
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout.size(), layout.align()) {
            Some(class) => {
                let at = take(layout, class);
                if !at.is_null() {
                    // SAFETY: a fresh object of at least this size.
                    unsafe { at.write_bytes(0, layout.size()) };
                }
                at
            }
            None => take_large_zeroed(layout.size(), layout.align()),
        }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let old = Class::of(layout.size(), layout.align());
        if old.is_some() && old == Class::of(new_size, layout.align()) && sampled::may_stay() {
            return at;
        }
        // SAFETY: the caller's promises are those of `realloc`.
        unsafe { realloc::change(at, layout, new_size) }
    }
}

/// The allocator with options of its own, in force from the first byte on. The environment variable
/// `SPANDREL` overrules them.
///
/// ```
/// use spandrel::{Configured, Decay, Options};
///
/// #[global_allocator]
/// static A: Configured = Configured::new(Options::new().decay(Decay::Never));
/// # assert_eq!(vec![1, 2, 3].iter().sum::<i32>(), 6);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Configured(Options);

impl Configured {
    /// The allocator with these options.
    pub const fn new(options: Options) -> Self {
        Self(options)
    }
}

// SAFETY: as `Spandrel`, which does the work.
unsafe impl GlobalAlloc for Configured {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout.size(), layout.align()) {
            // SAFETY: the bin is the running thread's own, or pinned.
            Some(class) => match unsafe { slot::current().bin(class).pop() } {
                Some(object) => {
                    held::goes_out(object, class);
                    object
                }
                None => {
                    config::configure_once(&self.0);
                    take_slow(layout, class)
                }
            },
            None => {
                config::configure_once(&self.0);
                take_large(layout.size(), layout.align())
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { Spandrel.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        config::configure_once(&self.0);
        // SAFETY: the caller's promise.
        unsafe { Spandrel.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { Spandrel.realloc(at, layout, new_size) }
    }
}

#[cold]
#[inline(never)]
unsafe fn give_large(at: *mut u8, layout: Layout) {
    config::attend(false);
    if let Some(at) = NonNull::new(at) {
        // SAFETY: the caller gives up a block it got for this layout.
        unsafe { building::give_large(at, layout.size(), layout.align()) };
    }
}

/// A snapshot of the allocator: where every mapped byte is and what each floor did. Stops no thread
/// and allocates nothing; see [`Stats`] for what holds while other threads go on.
pub fn stats() -> Stats {
    Stats::of(&BUILDING)
}

/// Returns to the system what can be returned now: this thread's cache is emptied (those of ended threads
/// are empty), batches that wait between threads go back to their spans, and all free granules, and all
/// pages of free objects, give up their memory. Answers how many bytes went back. What other running threads keep in their caches stays;
/// [`flush_current_thread`] is theirs to call.
pub fn purge() -> usize {
    let visit = building::Visit::begin(false);
    if visit.aside() {
        return 0;
    }
    if let Some(cache) = visit.cache() {
        BUILDING.empty(cache);
    }
    BUILDING.below().flush();
    pages().purge_all() + spans().shed()
}

/// Gives what this thread keeps free at hand to the other threads, for hooks that run before a thread
/// sleeps for long. What nobody takes there goes back to its spans within seconds. A thread that has
/// never allocated, or is ending, has nothing to give.
///
/// Costs a few hundred nanoseconds, and the thread's next allocation of each size a slow call.
///
/// ```
/// // tokio: Builder::new_multi_thread().on_thread_park(spandrel::flush_current_thread)
/// // rayon: a pool's threads have no such hook; end a large job with
/// // pool.broadcast(|_| spandrel::flush_current_thread());
/// spandrel::flush_current_thread();
/// ```
pub fn flush_current_thread() {
    if slot::existing().is_some()
        && let Some(cache) = building::Visit::begin(false).cache()
    {
        BUILDING.empty(cache);
        BUILDING.below().tick();
    }
}
