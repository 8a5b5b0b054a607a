//! The page map: address to window, and all windows with granules in order of their coming.
//!
//! The root table lies in the one static, zero until used, so a look-up is one load and needs no
//! initialisation. Windows are never unpublished.
//!
//! # Orderings
//! `publish` and `list` release a complete window, `find` and `iter` acquire it (model M6).

use super::shadow::{self, Shadow};
use crate::base::seed::{self, Seed};
use crate::base::sync::AtomicPtr;
#[cfg(not(spandrel_model))]
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::Ordering::{Acquire, Release};
#[cfg(not(spandrel_model))]
use crate::base::units::GRANULE_SHIFT;
use crate::base::units::{GRANULES_PER_WINDOW, WINDOW_SHIFT, WINDOWS};
use core::ptr::{self, NonNull};

/// All windows of one page heap.
#[derive(Debug)]
pub struct PageMap<W> {
    /// By number in the address space; null where none is. Any thread. See [`shift`].
    table: [AtomicPtr<W>; WINDOWS],
    /// As `table`. None is begun before its window is published.
    shadows: [Shadow<{ shadow::KEPT }>; WINDOWS],
    #[cfg(not(spandrel_model))]
    checks: super::check::Checks,
    /// In the order in which they first got granules, without gaps. Any thread.
    list: [AtomicPtr<W>; WINDOWS],
}

/// Windows that share one run of numbers for their granules.
const RUN: usize = 4;

/// How many bytes before a window its entry in the table points.
///
/// Four neighbours are shifted so that the granules of all four, numbered through, find their class
/// words behind one address: [`PageMap::object_at`] takes bits 15..32 of the address as they are.
const fn shift(number: usize) -> usize {
    (number % RUN) * GRANULES_PER_WINDOW * size_of::<u16>()
}

impl<W> PageMap<W> {
    const_fn! {
        /// The empty map; all zero bits.
        pub fn new() -> Self {
            Self {
                table: array![AtomicPtr::new(ptr::null_mut()); WINDOWS],
                shadows: array![Shadow::new(); WINDOWS],
                #[cfg(not(spandrel_model))]
                checks: super::check::Checks::new(),
                list: array![AtomicPtr::new(ptr::null_mut()); WINDOWS],
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
        let entry = entry.load(seed::weaken(Seed::FindRelaxed, Acquire));
        if entry.is_null() {
            return None;
        }
        // SAFETY: an entry is null or that of a window that was complete when published and lives on.
        Some(unsafe { &*Self::window(entry, addr >> WINDOW_SHIFT) })
    }

    #[inline]
    fn window(entry: *mut W, number: usize) -> *mut W {
        entry.wrapping_byte_add(shift(number))
    }

    /// The class word of the granule at `addr` if an object starts there; `offset` is where class words
    /// begin in a window.
    ///
    /// # Safety
    /// A window has a class word for every granule, `offset` bytes from its start.
    #[cfg(not(spandrel_model))]
    #[inline(always)]
    pub unsafe fn object_at(&self, addr: usize, offset: usize) -> Option<usize> {
        let entry = self.table.get(addr >> WINDOW_SHIFT)?.load(Acquire);
        if entry.is_null() {
            return None;
        }
        // SAFETY: the caller's promise, and an entry that is not null.
        let word = unsafe { Self::word(entry, addr, offset) };
        self.checks.is_start(word, addr).then_some(word)
    }

    /// # Safety
    /// As [`PageMap::object_at`], and `entry` is that of the address's window.
    #[cfg(not(spandrel_model))]
    #[inline(always)]
    unsafe fn word(entry: *mut W, addr: usize, offset: usize) -> usize {
        let granule = (addr >> GRANULE_SHIFT) % (RUN * GRANULES_PER_WINDOW);
        // A volatile read, because the compiler extends an atomic in an instruction of its own.
        // SAFETY: entry, offset and granule together name the granule's word. Whoever may free a block
        // was handed it after its word was written; for an address that is no block, any value the
        // word had is a right answer.
        let word = unsafe {
            entry.cast::<u16>().wrapping_byte_add(offset).wrapping_add(granule).read_volatile()
        };
        usize::from(word)
    }

    /// The class word of the object that starts at `addr`, if the shadow says that it is held; then it is no
    /// longer. The word is not read from the shadow: that is in the cache less often, and would be waited for.
    ///
    /// # Safety
    /// As [`PageMap::object_at`].
    #[cfg(not(spandrel_model))]
    #[inline(always)]
    pub unsafe fn let_go(&self, addr: usize, offset: usize) -> Option<usize> {
        // The lowest four bits come topmost, where they put the number out of bounds unless they are 0.
        let index = addr.rotate_right(shadow::SHIFT);
        let number = index >> (WINDOW_SHIFT - shadow::SHIFT);
        // SAFETY: so the address is a multiple of 16 in its window.
        let byte = unsafe { self.shadows.get(number)?.byte(index) }?;
        // SAFETY: the window was published before its shadow was begun. The caller's promise.
        let word = unsafe { Self::word(self.table[number].load(Relaxed), addr, offset) };
        byte.let_go().then_some(word)
    }

    /// An object at `addr` is handed out.
    ///
    /// # Safety
    /// `addr` is in a published window, or null.
    #[inline(always)]
    pub unsafe fn hold(&self, addr: usize) {
        // SAFETY: a published window's number is below WINDOWS, and the shadow is that of the address.
        unsafe { self.shadows.get_unchecked(addr >> WINDOW_SHIFT).hold(addr) };
    }

    /// The shadow of the window at `addr`, begun or not.
    pub fn shadow(&self, addr: usize) -> Option<&Shadow<{ shadow::KEPT }>> {
        self.shadows.get(addr >> WINDOW_SHIFT)
    }

    /// Makes `window` the one that holds `addr`; if another thread was first, `Err` is its window.
    /// Neither is put on the list.
    pub fn publish(&self, addr: usize, window: NonNull<W>) -> Result<(), &W> {
        #[cfg(not(spandrel_model))]
        self.checks.fill();
        let number = addr >> WINDOW_SHIFT;
        let entry = &self.table[number];
        let new = window.as_ptr().wrapping_byte_sub(shift(number));
        if seed::on(Seed::PublishByStore) {
            entry.store(new, Release);
        } else {
            let success = seed::weaken(Seed::PublishRelaxed, Release);
            let lost = entry.compare_exchange(ptr::null_mut(), new, success, Acquire);
            if let Err(winner) = lost {
                // SAFETY: a non-null entry is that of a published window, which lives on.
                return Err(unsafe { &*Self::window(winner, number) });
            }
        }
        Ok(())
    }

    /// Puts a published window on the list, unless it is there. Whoever adds memory to a window does
    /// this first: the one who began it may be stopped half way, and memory in a window that no
    /// search comes by would be asked for again and again. A window that only knows of blocks with a
    /// mapping of their own is not on the list, so no search for granules comes by.
    pub fn list(&self, window: &W) {
        let new = ptr::from_ref(window).cast_mut();
        // Every number is published at most once, so the list cannot overflow. Nobody passes an
        // entry but one that holds another window for good, so no window is listed twice.
        for entry in &self.list {
            let mut there = entry.load(Acquire);
            if there.is_null() {
                let release = seed::weaken(Seed::ListRelaxed, Release);
                match entry.compare_exchange(there, new, release, Acquire) {
                    Ok(_) => return,
                    Err(first) => there = first,
                }
            }
            if there == new {
                return;
            }
        }
    }

    /// All published windows, listed or not, by address.
    pub fn all(&self) -> impl Iterator<Item = &W> {
        (0..WINDOWS).filter_map(|number| self.find(number << WINDOW_SHIFT))
    }

    /// All listed windows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        self.list.iter().map_while(|entry| {
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

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use crate::base::units::WINDOW;

    #[test]
    fn every_address_finds_its_window_and_no_other() {
        static MAP: PageMap<usize> = PageMap::new();
        let windows: Vec<_> = (0..4).map(|i| NonNull::from(Box::leak(Box::new(i)))).collect();
        let numbers = [0, 1, 77, WINDOWS - 1];
        for (number, window) in numbers.into_iter().zip(&windows) {
            assert_eq!(MAP.publish(number * WINDOW + 5, *window), Ok(()));
            assert_ne!(MAP.iter().last(), MAP.find(number * WINDOW), "published, not listed");
            (0..2).for_each(|_| MAP.list(MAP.find(number * WINDOW).unwrap()));
            let winner = MAP.find(number * WINDOW).unwrap();
            assert_eq!(MAP.publish(number * WINDOW, windows[0]), Err(winner));
        }
        for (i, number) in numbers.into_iter().enumerate() {
            for addr in [number * WINDOW, number * WINDOW + WINDOW - 1] {
                assert_eq!(MAP.find(addr), Some(&i));
            }
        }
        for addr in [2 * WINDOW, 76 * WINDOW, 78 * WINDOW, WINDOWS * WINDOW, usize::MAX] {
            assert_eq!(MAP.find(addr), None);
        }
        assert!(MAP.covers(WINDOWS * WINDOW - 1) && !MAP.covers(WINDOWS * WINDOW));
        assert!(MAP.iter().copied().eq(0..4));
    }
}
