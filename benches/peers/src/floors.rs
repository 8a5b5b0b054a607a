//! How far the calls of a run went: Spandrel's own counts, and how many calls there were.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::record::record;

record! {
    /// How often each of Spandrel's floors was asked, from the start of the process.
    "floors" Floors {
        /// Bins that ran empty.
        refills,
        /// Bins that ran full, and surpluses given back.
        spills,
        /// Refills for which no batch waited in the transfer cache.
        transfer_misses,
        /// Spills for which there was no room in the transfer cache.
        transfer_refusals,
        /// Spans begun.
        spans_begun,
        /// Spans whose last object came home.
        spans_died,
        /// Runs of granules taken: spans and large blocks.
        page_takes,
        /// Runs of granules given back.
        page_gives,
        /// Requests to the system: mappings, advice, what was returned.
        system_calls,
    }
}

impl Floors {
    /// Of the process's own Spandrel.
    pub fn of_this_process() -> Self {
        let floors = spandrel::stats().floors;
        let os = floors.os;
        Self {
            refills: floors.cache.refills,
            spills: floors.cache.spills,
            transfer_misses: floors.transfer_misses,
            transfer_refusals: floors.transfer_refusals,
            spans_begun: floors.span.begun,
            spans_died: floors.span.died,
            page_takes: floors.page.takes,
            page_gives: floors.page.gives,
            system_calls: os.maps + os.unmaps + os.purges + os.advices + os.remaps,
        }
    }
}

record! {
    /// What the program asked of its allocator.
    "calls" Calls {
        /// `alloc`.
        allocs,
        /// `dealloc`.
        frees,
        /// `realloc`.
        reallocs,
        /// `alloc_zeroed`.
        zeroed,
    }
}

impl Calls {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.allocs + self.frees + self.reallocs + self.zeroed
    }
}

/// The system allocator, with every call counted.
#[derive(Debug)]
pub struct Counting;

static ALLOCS: AtomicU64 = AtomicU64::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);
static REALLOCS: AtomicU64 = AtomicU64::new(0);
static ZEROED: AtomicU64 = AtomicU64::new(0);

impl Counting {
    /// The calls so far.
    pub fn calls() -> Calls {
        Calls {
            allocs: ALLOCS.load(Relaxed),
            frees: FREES.load(Relaxed),
            reallocs: REALLOCS.load(Relaxed),
            zeroed: ZEROED.load(Relaxed),
        }
    }
}

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCS.fetch_add(1, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        FREES.fetch_add(1, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ZEROED.fetch_add(1, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        REALLOCS.fetch_add(1, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.realloc(block, layout, size) }
    }
}
