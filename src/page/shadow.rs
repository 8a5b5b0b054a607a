//! The shadow: whether the object at an address is held, in a byte for each 16 of a window and apart from it.
//!
//! A bin does not know what it holds twice, and a span hears of a free long after the call. Where the
//! shadow is kept (feature `shadow`, the C door's), the byte of an object is 1 while the program has it. The byte of
//! anything else is 0, as it is in fresh memory; so nobody writes but who hands an object out or takes it
//! back, and what is free can be forgotten with the memory it belongs to.
//!
//! Objects of [shadowed](crate::base::classes::Class::is_shadowed) classes have bytes of their own. The others, and windows that
//! came in pieces because address space is short, have none, and are looked at as without a shadow.
//!
//! # Orderings
//! Who begins a window's shadow releases it, and who finds it begun acquires it. Beyond that none: an object
//! comes to its holder, and to whoever frees it, by hands that order what was done before, its byte and its
//! window's shadow included. Of two that free one object at the same moment both may see it held; then its
//! span sees the second (model M13).

use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicU8};
use crate::base::units::{WINDOW, WINDOW_SHIFT};
use crate::os::{Os, Zeroed, metadata_bytes};
use core::ptr::{self, NonNull};

/// log2 of the bytes that share a byte of the shadow.
pub const SHIFT: u32 = 4;

/// 1 where the process's page heap keeps shadows, else 0.
pub const KEPT: usize = cfg!(feature = "shadow") as usize;

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
    /// There is none.
    Nothing,
    /// No object is held that starts in these 16 bytes.
    Free,
    /// An object is.
    Held,
}

/// The shadow of one window, or (`N` is 0) room for none.
///
/// Where its bytes would begin if the window began at address 0, so that an address needs no masking; null
/// while there is none. Begun before the window gets memory, and never taken back.
#[derive(Debug)]
pub struct Shadow<const N: usize>([AtomicPtr<AtomicU8>; N]);

impl<const N: usize> Shadow<N> {
    const_fn! {
        /// None so far; all zero bits.
        pub fn new() -> Self {
            Self(array![AtomicPtr::new(ptr::null_mut()); N])
        }
    }

    /// Begins the shadow of the window with this number, unless it is begun or there is no room. Answers how many
    /// bytes were mapped, and how many the system would not take back.
    pub fn begin<O: Os>(&self, os: &O, number: usize) -> (usize, usize) {
        let Some(entry) = self.0.first() else { return (0, 0) };
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

    #[inline(always)]
    fn base(&self) -> *mut AtomicU8 {
        self.0.first().map_or(ptr::null_mut(), |entry| entry.load(Relaxed))
    }

    /// An object at `addr` is handed out.
    ///
    /// # Safety
    /// `addr` lies in the window.
    #[inline(always)]
    pub unsafe fn hold(&self, addr: usize) {
        // SAFETY: the caller's promise.
        if let Some(byte) = unsafe { self.byte(addr >> SHIFT) } {
            byte.get().store(1, Relaxed);
        }
    }

    /// The byte of the object at 16 times `index`, if there are any.
    ///
    /// # Safety
    /// That address lies in the window.
    #[inline(always)]
    pub unsafe fn byte(&self, index: usize) -> Option<Byte> {
        let base = self.base();
        (!base.is_null()).then(|| Byte(base.wrapping_add(index)))
    }

    /// What is known of an address. Of an object whose class is not shadowed, whatever it says means nothing.
    ///
    /// # Safety
    /// `addr` lies in the window.
    pub unsafe fn look(&self, addr: usize) -> Said {
        // SAFETY: the caller's promise.
        match unsafe { self.byte(addr >> SHIFT) }.map(|byte| byte.get().load(Relaxed)) {
            None => Said::Nothing,
            Some(0) => Said::Free,
            Some(_) => Said::Held,
        }
    }

    /// Returns the memory behind the shadow of free memory: as much of it as is whole pages.
    ///
    /// # Safety
    /// The addresses lie in the window; no object in them is held, and none is handed out meanwhile.
    pub unsafe fn forget<O: Os>(&self, os: &O, addr: usize, bytes: usize) {
        let base = self.base();
        if base.is_null() {
            return;
        }
        let first = base.wrapping_add(addr >> SHIFT).addr();
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

/// The byte of one object: an address in a window names a byte of its shadow, which lives on. A pointer, because
/// the compiler would look whether a reference is null.
#[derive(Debug)]
pub struct Byte(*mut AtomicU8);

impl Byte {
    #[inline(always)]
    fn get(&self) -> &AtomicU8 {
        // SAFETY: the type's promise.
        unsafe { &*self.0 }
    }

    /// The object is taken back: whether it was held. Now it is not.
    #[inline(always)]
    pub fn let_go(self) -> bool {
        // Volatile, because the compiler does not compare an atomic where it lies.
        #[cfg(not(spandrel_model))]
        // SAFETY: a byte is read whole.
        let held = unsafe { self.get().as_ptr().read_volatile() };
        #[cfg(spandrel_model)]
        let held = self.get().load(Relaxed);
        if held == 0 {
            return false;
        }
        if !seed::on(Seed::HeldForEver) {
            self.get().store(0, Relaxed);
        }
        true
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
    use crate::base::classes::Class;
    use crate::base::units::HUGEPAGE;
    use crate::os::fake::Fake;

    /// Some window; nothing is mapped there, and nothing has to be.
    const BASE: usize = 77 * WINDOW;

    fn begun(page_size: usize) -> (Fake, Shadow<1>) {
        let (os, shadow) = (Fake::new(page_size), Shadow::new());
        assert_eq!(shadow.begin(&os, 77), (WINDOW >> SHIFT, 0));
        assert_eq!(shadow.begin(&os, 77), (0, 0), "it is begun");
        (os, shadow)
    }

    #[test]
    fn every_object_is_told_from_its_neighbours() {
        let (_, shadow) = begun(4096);
        for class in Class::all().filter(|class| class.is_shadowed()) {
            let first = BASE + 3 * class.span_bytes();
            // SAFETY: addresses in the window, multiples of 16.
            unsafe {
                (0..4).for_each(|i| shadow.hold(first + i * class.size()));
                for at in (first..first + 4 * class.size()).step_by(16) {
                    let start = (at - first).is_multiple_of(class.size());
                    assert_eq!(shadow.look(at) == Said::Held, start, "{class:?}");
                    let let_go = || shadow.byte(at >> SHIFT).unwrap().let_go();
                    assert_eq!((let_go(), let_go()), (start, false), "{class:?}");
                    assert_eq!(shadow.look(at), Said::Free);
                }
            }
        }
    }

    #[test]
    fn a_refusal_leaves_a_window_without() {
        let (os, shadow) = (Fake::new(4096), Shadow::<1>::new());
        os.fail(0, 1);
        assert_eq!(shadow.begin(&os, 77), (0, 0));
        // SAFETY: an address in the window.
        unsafe {
            shadow.hold(BASE);
            assert_eq!(shadow.look(BASE), Said::Nothing);
        }
        assert_eq!(shadow.begin(&os, 77), (WINDOW >> SHIFT, 0));
        assert_eq!(Shadow::<0>::new().begin(&os, 77), (0, 0));
    }

    #[test]
    fn what_is_forgotten_is_whole_pages_and_no_more() {
        for page_size in [4 << 10, 16 << 10, 64 << 10] {
            let (os, shadow) = begun(page_size);
            let held = [BASE + HUGEPAGE - 16, BASE + 2 * HUGEPAGE];
            let purges = os.counts().purges;
            // SAFETY: addresses in the window; nothing between the two is held.
            unsafe {
                held.iter().for_each(|&at| shadow.hold(at));
                shadow.forget(&os, BASE + HUGEPAGE, HUGEPAGE);
                assert_eq!(os.counts().purges, purges + 1);
                // Less than a page of the shadow.
                shadow.forget(&os, BASE + HUGEPAGE + 64, page_size << SHIFT);
                assert_eq!(os.counts().purges, purges + 1);
                assert!(held.iter().all(|&at| shadow.look(at) == Said::Held));
            }
        }
    }
}
