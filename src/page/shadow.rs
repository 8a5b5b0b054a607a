//! The shadow: whether the object at an address is held, in a byte for each 16 of a window and apart from it.
//!
//! A bin does not know what it holds twice, and a span hears of a free long after the call. Where the
//! shadow is kept (feature `shadow`, the C door's), the byte of a held object has its class, so that one look
//! tells what a free has to know: that an object starts here, that somebody holds it, and its class. The byte of
//! anything else is 0, as it is in fresh memory; so nobody writes but who hands an object out or takes it
//! back, and what is free can be forgotten with the memory it belongs to.
//!
//! Objects of [`SHADOWED`](Class::is_shadowed) classes have bytes of their own. The others, and windows that
//! came in pieces because address space is short, have none, and are looked at as without a shadow.
//!
//! # Orderings
//! Who begins a window's shadow releases it, and who finds it begun acquires it. Beyond that none: an object
//! comes to its holder, and to whoever frees it, by hands that order what was done before, its byte and its
//! window's shadow included. Of two that free one object at the same moment both may see it held; then its
//! span sees the second (model M13).

use crate::base::classes::{CLASSES, Class};
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicU8};
use crate::base::units::{WINDOW, WINDOW_SHIFT, WINDOWS};
use crate::os::{Os, Zeroed, metadata_bytes};
use core::ptr::{self, NonNull};

/// log2 of the bytes that share a byte of the shadow.
const SHIFT: u32 = 4;

const _: () = assert!(CLASSES <= u8::MAX as usize);

/// Windows of the process's page heap that may have a shadow.
pub const KEPT: usize = if cfg!(feature = "shadow") { WINDOWS } else { 0 };

/// One window's bytes: a 16th of its address space, and memory as far as objects were handed out.
#[derive(Debug)]
pub struct Bytes {
    _all: [AtomicU8; WINDOW >> SHIFT],
}

// SAFETY: atomics, for which zero is a valid value.
unsafe impl Zeroed for Bytes {
    #[cfg(spandrel_model)]
    fn zeroed() -> Self {
        Self { _all: core::array::from_fn(|_| AtomicU8::new(0)) }
    }
}

/// What the shadow says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has no byte for this.
    Nothing,
    /// No object is held that starts in these 16 bytes.
    Free,
    /// An object is.
    Held,
}

/// The shadows of the first `N` windows of the address space.
#[derive(Debug)]
pub struct Shadow<const N: usize> {
    /// By number of the window; null where none is. Less where its window's addresses begin, so that an
    /// address needs no masking. Published before the window gets memory, and never taken back.
    table: [AtomicPtr<AtomicU8>; N],
}

impl<const N: usize> Shadow<N> {
    const_fn! {
        /// No window has one; all zero bits.
        pub fn new() -> Self {
            Self { table: array![AtomicPtr::new(ptr::null_mut()); N] }
        }
    }

    /// Gives the window at `addr` a shadow, unless it has one or there is no room. Answers how many bytes were
    /// mapped, and how many of them the system would not take back.
    pub fn begin<O: Os>(&self, os: &O, addr: usize) -> (usize, usize) {
        let number = addr >> WINDOW_SHIFT;
        let Some(entry) = self.table.get(number) else { return (0, 0) };
        if !entry.load(Acquire).is_null() {
            return (0, 0);
        }
        let bytes = metadata_bytes::<Bytes>(os.page_size());
        let Some(fresh) = os.metadata::<Bytes>() else { return (0, 0) };
        // SAFETY: mapped above. Little of it is touched at a time: large pages would be a waste.
        unsafe { os.advise_hugepages(fresh.cast(), bytes, false) };
        let first = fresh.as_ptr().cast::<AtomicU8>();
        let biased = first.wrapping_sub(number << (WINDOW_SHIFT - SHIFT));
        if seed::on(Seed::ShadowByStore) {
            entry.store(biased, Release);
            return (bytes, 0);
        }
        let release = seed::weaken(Seed::ShadowRelaxed, Release);
        if entry.compare_exchange(ptr::null_mut(), biased, release, Acquire).is_ok() {
            return (bytes, 0);
        }
        // SAFETY: the race is lost, so no other thread has seen this mapping.
        let gone = unsafe { os.unmap(fresh.cast(), bytes) };
        (0, if gone { 0 } else { bytes })
    }

    /// Where the bytes of the window with this number would begin if the first window were at 0; null without
    /// a shadow.
    #[inline(always)]
    fn entry(&self, number: usize) -> *mut AtomicU8 {
        self.table.get(number).map_or(ptr::null_mut(), |entry| entry.load(Relaxed))
    }

    /// An object is handed out.
    ///
    /// # Safety
    /// `addr` is an object's, or null.
    #[inline(always)]
    pub unsafe fn hold(&self, addr: usize, class: Class) {
        if N == 0 || !class.is_shadowed() {
            return;
        }
        // SAFETY: there are as many entries as windows in the page map, and an object lies in one of them.
        let entry = unsafe { self.table.get_unchecked(addr >> WINDOW_SHIFT) }.load(Relaxed);
        if !entry.is_null() {
            // SAFETY: a window's entry and an address in it name a byte of its shadow, which lives on.
            unsafe { &*entry.wrapping_add(addr >> SHIFT) }.store(class.index() as u8, Relaxed);
        }
    }

    /// An object is taken back: its class, if one that starts here is held, and then it is no longer.
    #[inline(always)]
    pub fn let_go(&self, addr: usize) -> Option<Class> {
        // The lowest bits come topmost, where they put the number out of bounds unless they are 0.
        let index = addr.rotate_right(SHIFT);
        let entry = self.entry(index >> (WINDOW_SHIFT - SHIFT));
        if entry.is_null() {
            return None;
        }
        // SAFETY: as in `hold`.
        let byte = unsafe { &*entry.wrapping_add(index) };
        let class = read(byte);
        if class == 0 {
            return None;
        }
        if !seed::on(Seed::HeldForEver) {
            byte.store(0, Relaxed);
        }
        Some(Class::from_shadow(class))
    }

    /// What is known of an address. Of an object whose class is not shadowed, whatever it says means nothing.
    #[inline]
    pub fn look(&self, addr: usize) -> Said {
        let entry = self.entry(addr >> WINDOW_SHIFT);
        if entry.is_null() {
            return Said::Nothing;
        }
        // SAFETY: as in `hold`.
        match read(unsafe { &*entry.wrapping_add(addr >> SHIFT) }) {
            0 => Said::Free,
            _ => Said::Held,
        }
    }

    /// Returns the memory behind the shadow of free memory: as much of it as is whole pages.
    ///
    /// # Safety
    /// No object in these addresses is held, and none is handed out meanwhile.
    pub unsafe fn forget<O: Os>(&self, os: &O, addr: usize, bytes: usize) {
        let entry = self.entry(addr >> WINDOW_SHIFT);
        if entry.is_null() {
            return;
        }
        let first = entry.wrapping_add(addr >> SHIFT).addr();
        let page = os.page_size();
        let start = first.next_multiple_of(page);
        let end = (first + (bytes >> SHIFT)) & !(page - 1);
        if start < end
            && let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(start))
        {
            // SAFETY: whole pages of a shadow, all zero, and zero afterwards.
            unsafe { os.purge(at, end - start) };
        }
    }
}

/// A relaxed load. Volatile, because the compiler extends an atomic in an instruction of its own.
#[inline(always)]
fn read(byte: &AtomicU8) -> u8 {
    #[cfg(spandrel_model)]
    return byte.load(Relaxed);
    #[cfg(not(spandrel_model))]
    // SAFETY: a byte is read whole.
    unsafe {
        byte.as_ptr().read_volatile()
    }
}

impl<const N: usize> Default for Shadow<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use crate::base::units::HUGEPAGE;
    use crate::os::fake::Fake;

    /// Some window; nothing is mapped there, and nothing has to be.
    const BASE: usize = 77 * WINDOW;

    fn begun(page_size: usize) -> (Fake, Box<Shadow<80>>) {
        let (os, shadow) = (Fake::new(page_size), Box::new(Shadow::new()));
        assert_eq!(shadow.begin(&os, BASE + 5 * HUGEPAGE), (WINDOW >> SHIFT, 0));
        assert_eq!(shadow.begin(&os, BASE), (0, 0), "it has one");
        (os, shadow)
    }

    #[test]
    fn every_object_is_told_from_its_neighbours() {
        let (_, shadow) = begun(4096);
        for class in Class::all().filter(|class| class.is_shadowed()) {
            let objects = [0, 1, 2, 3].map(|i| BASE + 3 * class.span_bytes() + i * class.size());
            for at in objects {
                // SAFETY: an address in the window.
                unsafe { shadow.hold(at, class) };
            }
            for at in objects {
                for inside in
                    (at + 1..at + class.size()).step_by(if class.size() > 64 { 8 } else { 1 })
                {
                    assert_eq!(shadow.let_go(inside), None, "{class:?}");
                }
                assert_eq!(shadow.look(at), Said::Held);
                assert_eq!(shadow.let_go(at), Some(class));
                assert_eq!((shadow.look(at), shadow.let_go(at)), (Said::Free, None));
            }
        }
    }

    #[test]
    fn classes_without_bytes_leave_those_of_others_alone() {
        let (_, shadow) = begun(4096);
        let class = Class::from_index(1);
        for other in Class::all().filter(|class| !class.is_shadowed()) {
            for at in [BASE, BASE + 8] {
                // SAFETY: addresses in the window.
                unsafe {
                    shadow.hold(BASE, class);
                    shadow.hold(at, other);
                }
                assert_eq!(shadow.let_go(BASE), Some(class));
            }
        }
    }

    #[test]
    fn addresses_of_no_window_are_unknown() {
        let (_, shadow) = begun(4096);
        for addr in
            [0, 16, BASE - 16, BASE + WINDOW, 80 * WINDOW, usize::MAX, 1 << 63, BASE | 1 << 60]
        {
            assert_eq!(
                (shadow.look(addr), shadow.let_go(addr)),
                (Said::Nothing, None),
                "{addr:#x}"
            );
        }
        assert_eq!(Shadow::<0>::new().let_go(BASE), None);
    }

    #[test]
    fn a_refusal_leaves_a_window_without() {
        let (os, shadow) = (Fake::new(4096), Box::new(Shadow::<80>::new()));
        os.fail(0, 1);
        assert_eq!(shadow.begin(&os, BASE), (0, 0));
        // SAFETY: an address in the window.
        unsafe { shadow.hold(BASE, Class::from_index(1)) };
        assert_eq!((shadow.look(BASE), shadow.let_go(BASE)), (Said::Nothing, None));
        assert_eq!(shadow.begin(&os, BASE), (WINDOW >> SHIFT, 0));
    }

    #[test]
    fn what_is_forgotten_is_whole_pages_and_no_more() {
        for page_size in [4 << 10, 16 << 10, 64 << 10] {
            let (os, shadow) = begun(page_size);
            let (class, held) = (Class::from_index(1), [BASE + HUGEPAGE - 16, BASE + 2 * HUGEPAGE]);
            for at in held {
                // SAFETY: an address in the window.
                unsafe { shadow.hold(at, class) };
            }
            let purges = os.counts().purges;
            // SAFETY: nothing between the two is held.
            unsafe { shadow.forget(&os, BASE + HUGEPAGE, HUGEPAGE) };
            assert_eq!(os.counts().purges, purges + 1);
            // Less than a page of the shadow.
            // SAFETY: as above.
            unsafe { shadow.forget(&os, BASE + HUGEPAGE + 64, page_size << SHIFT) };
            assert_eq!(os.counts().purges, purges + 1);
            assert!(held.iter().all(|&at| shadow.let_go(at) == Some(class)));
        }
    }
}
