//! The page map: address to window, and all windows in order of their coming.
//!
//! The root table lies in the one static, zero until used, so a look-up is one load and needs no
//! initialisation. Windows are never unpublished.
//!
//! # Orderings
//! `publish` releases a complete window, `find` and `iter` acquire it (model M6).

use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicUsize};
use crate::base::units::{WINDOW_SHIFT, WINDOWS};
use core::ptr::{self, NonNull};

/// All windows of one page heap.
#[derive(Debug)]
pub struct PageMap<W> {
    /// By number in the address space; null where none is. Any thread.
    table: [AtomicPtr<W>; WINDOWS],
    /// In order of publication; null for a moment after `count` rose. Any thread.
    list: [AtomicPtr<W>; WINDOWS],
    count: AtomicUsize,
}

impl<W> PageMap<W> {
    const_fn! {
        /// The empty map; all zero bits.
        pub fn new() -> Self {
            Self {
                table: array![AtomicPtr::new(ptr::null_mut()); WINDOWS],
                list: array![AtomicPtr::new(ptr::null_mut()); WINDOWS],
                count: AtomicUsize::new(0),
            }
        }
    }

    /// Whether the table has an entry for this address.
    pub fn covers(&self, addr: usize) -> bool {
        addr >> WINDOW_SHIFT < WINDOWS
    }

    /// The window that holds `addr`.
    #[inline]
    pub fn find(&self, addr: usize) -> Option<&W> {
        let entry = self.table.get(addr >> WINDOW_SHIFT)?;
        // SAFETY: an entry is null or a window that was complete when published and lives on.
        unsafe { entry.load(seed::weaken(Seed::FindRelaxed, Acquire)).as_ref() }
    }

    /// Makes `window` the one that holds `addr`; if another thread was first, `Err` is its window.
    pub fn publish(&self, addr: usize, window: NonNull<W>) -> Result<(), &W> {
        let entry = &self.table[addr >> WINDOW_SHIFT];
        if seed::on(Seed::PublishByStore) {
            entry.store(window.as_ptr(), Release);
        } else {
            let success = seed::weaken(Seed::PublishRelaxed, AcqRel);
            let lost = entry.compare_exchange(ptr::null_mut(), window.as_ptr(), success, Acquire);
            if let Err(winner) = lost {
                // SAFETY: a non-null entry is a published window, which lives on.
                return Err(unsafe { &*winner });
            }
        }
        // Every number is published at most once, so the list cannot overflow.
        let slot = self.count.fetch_add(1, Relaxed);
        self.list[slot].store(window.as_ptr(), Release);
        Ok(())
    }

    /// All published windows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        let count = self.count.load(Relaxed).min(WINDOWS);
        self.list[..count].iter().filter_map(|entry| {
            // SAFETY: as in `find`.
            unsafe { entry.load(Acquire).as_ref() }
        })
    }
}

impl<W> Default for PageMap<W> {
    fn default() -> Self {
        Self::new()
    }
}
