//! Whether an object starts at an address, by one multiplication.
//!
//! An offset in a span, below 2^18, is a multiple of the size exactly if its product with
//! `ceil(2^64 / size)`, modulo 2^64, is below that number (Lemire, Kaser, Kurz, "Faster remainder by
//! direct computation", 2019). For what is no span the number is 0, and nothing is below it.

use crate::base::classes::{CLASSES, Class, STRIDE, USES};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};

/// By class word. Filled in before the first window is published and constant from then on; it lies
/// beside the page map's table and not in a constant, so that one base address serves both.
#[derive(Debug)]
pub struct Checks([Check; USES]);

#[derive(Debug)]
#[repr(C, align(32))]
struct Check {
    magic: AtomicU64,
    /// Turns an address into its offset in the span.
    mask: AtomicUsize,
}

const _: () = assert!(size_of::<Check>() == STRIDE);

impl Checks {
    /// Nothing is an object yet; all zero bits.
    pub const fn new() -> Self {
        Self([const { Check { magic: AtomicU64::new(0), mask: AtomicUsize::new(0) } }; USES])
    }

    /// Fills the table in, with the same numbers whoever does it, and each of them once: who publishes a
    /// second window must not write, not even the same, to what is read without an atomic by then.
    pub fn fill(&self) {
        for class in Class::all() {
            let check = &self.0[class.index() + 1];
            let magic = (1u128 << 64).div_ceil(class.size() as u128);
            // Acquire where it is there: who publishes a window passes it on.
            if check.magic.load(Acquire) == 0 {
                let _ = check.magic.compare_exchange(0, magic as u64, Release, Acquire);
            }
            if check.mask.load(Acquire) == 0 {
                let _ = check.mask.compare_exchange(0, class.span_bytes() - 1, Release, Acquire);
            }
        }
        debug_assert!(self.0[CLASSES + 1].magic.load(Relaxed) == 0, "a large block is no object");
    }

    /// Whether `addr` is a multiple of an object's size away from its span's start, if the page map
    /// says `word` of it.
    #[inline(always)]
    pub fn is_start(&self, word: usize, addr: usize) -> bool {
        // SAFETY: there is a check for every class word, STRIDE bytes apart.
        let check = unsafe { &*self.0.as_ptr().byte_add(word) };
        // Volatile and read twice, so that both readings are operands of what is done with them.
        // SAFETY: an address has a class word only after the table was filled in, and it does not
        // change any more.
        let (mask, magic) = unsafe {
            (check.mask.as_ptr().read_volatile(), || check.magic.as_ptr().read_volatile())
        };
        ((addr & mask) as u64).wrapping_mul(magic()) < magic()
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::classes::Use;

    #[test]
    fn starts_of_objects_and_nothing_else() {
        let checks = Checks::new();
        let far = 0x7f12_3456_0000 & !((1 << 18) - 1);
        for usage in [Use::None, Use::Large, Use::Mapping] {
            checks.fill();
            assert!(!checks.is_start(usage.pack() as usize, far));
        }
        for class in Class::all() {
            let word = Use::Span(class).pack() as usize;
            for offset in 0..class.span_bytes() {
                let start = offset.is_multiple_of(class.size());
                assert_eq!(checks.is_start(word, far + offset), start, "{class:?} {offset}");
            }
        }
    }
}
