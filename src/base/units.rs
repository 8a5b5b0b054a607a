//! Units and geometry: granule, hugepage, window, order, batch.
//!
//! Lengths are powers of two, so every conversion is a shift. Under a model the same code runs on a
//! toy geometry (a window of two hugepages of four granules), because a checker's cost grows with
//! every word it has to track.

use core::fmt;

#[cfg(all(not(target_pointer_width = "64"), not(spandrel_model)))]
compile_error!(
    "spandrel needs 64-bit addresses: its window table and packed words are laid out for them"
);

#[cfg(not(spandrel_model))]
mod geometry {
    pub const GRANULE_SHIFT: u32 = 15;
    pub const HUGEPAGE_ORDER: u32 = 6;
    pub const WINDOW_SHIFT: u32 = 30;
    pub const BATCH: usize = 62;
    #[cfg(target_arch = "x86_64")]
    pub const ADDRESS_BITS: u32 = 47;
    #[cfg(not(target_arch = "x86_64"))]
    pub const ADDRESS_BITS: u32 = 48;
}

#[cfg(spandrel_model)]
mod geometry {
    pub const GRANULE_SHIFT: u32 = 5;
    pub const HUGEPAGE_ORDER: u32 = 2;
    pub const WINDOW_SHIFT: u32 = 8;
    pub const BATCH: usize = 2;
    pub const ADDRESS_BITS: u32 = 11;
}

/// log2 of [`GRANULE`].
pub const GRANULE_SHIFT: u32 = geometry::GRANULE_SHIFT;
/// Bytes in a granule, the page heap's unit: 32 KiB.
pub const GRANULE: usize = 1 << GRANULE_SHIFT;
/// The order of a whole hugepage: 2^6 granules.
pub const HUGEPAGE_ORDER: u32 = geometry::HUGEPAGE_ORDER;
/// Granules in a hugepage, one bit each in a 64-bit word.
pub const GRANULES_PER_HUGEPAGE: usize = 1 << HUGEPAGE_ORDER;
/// log2 of [`HUGEPAGE`].
pub const HUGEPAGE_SHIFT: u32 = GRANULE_SHIFT + HUGEPAGE_ORDER;
/// Bytes in a hugepage: 2 MiB.
pub const HUGEPAGE: usize = 1 << HUGEPAGE_SHIFT;
/// log2 of [`WINDOW`].
pub const WINDOW_SHIFT: u32 = geometry::WINDOW_SHIFT;
/// Bytes in a window, the aligned address range that shares one block of metadata: 1 GiB.
pub const WINDOW: usize = 1 << WINDOW_SHIFT;
/// Hugepages in a window.
pub const HUGEPAGES_PER_WINDOW: usize = 1 << (WINDOW_SHIFT - HUGEPAGE_SHIFT);
/// Granules in a window.
pub const GRANULES_PER_WINDOW: usize = 1 << (WINDOW_SHIFT - GRANULE_SHIFT);
/// Windows that user addresses can name, and one that none is in: a bound that is no power of two is one
/// instruction less to compare with. The topmost, which holds the main thread's stack, is where the first
/// mappings go when addresses are not randomised, under a debugger for one.
pub const WINDOWS: usize = if cfg!(spandrel_model) {
    (1 << (geometry::ADDRESS_BITS - WINDOW_SHIFT)) - 1
} else {
    (1 << (geometry::ADDRESS_BITS - WINDOW_SHIFT)) + 1
};
/// The most objects one batch carries.
pub const BATCH: usize = geometry::BATCH;

/// Hugepages one word of the hugepage map covers.
pub const HUGEPAGES_PER_MAP_WORD: usize =
    if HUGEPAGES_PER_WINDOW < 64 { HUGEPAGES_PER_WINDOW } else { 64 };
/// Words of the hugepage map.
pub const MAP_WORDS: usize = HUGEPAGES_PER_WINDOW / HUGEPAGES_PER_MAP_WORD;
/// The largest order the page heap serves: a whole word of the hugepage map, 128 MiB. Larger blocks
/// have a mapping of their own.
pub const MAX_ORDER: u32 = HUGEPAGE_ORDER + HUGEPAGES_PER_MAP_WORD.ilog2();
/// The word of a hugepage whose granules are all free.
pub const WHOLE: u64 = u64::MAX >> (64 - GRANULES_PER_HUGEPAGE);

/// A granule by its index in its window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Granule(pub u32);

/// A hugepage by its index in its window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hugepage(pub u32);

impl Granule {
    /// The granule that holds `addr`, in the window that holds `addr`.
    #[inline]
    pub const fn of(addr: usize) -> Self {
        Self(((addr >> GRANULE_SHIFT) & (GRANULES_PER_WINDOW - 1)) as u32)
    }

    /// As an index into the window's per-granule tables.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The hugepage it lies in.
    #[inline]
    pub const fn hugepage(self) -> Hugepage {
        Hugepage(self.0 >> HUGEPAGE_ORDER)
    }

    /// Its bit in the hugepage's word.
    #[inline]
    pub const fn bit(self) -> u32 {
        self.0 & (GRANULES_PER_HUGEPAGE as u32 - 1)
    }
}

impl Hugepage {
    /// As an index into the window's per-hugepage tables.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its granule number `bit`.
    #[inline]
    pub const fn granule(self, bit: u32) -> Granule {
        Granule((self.0 << HUGEPAGE_ORDER) + bit)
    }
}

impl fmt::Debug for Granule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "G{}", self.0)
    }
}

impl fmt::Debug for Hugepage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "H{}", self.0)
    }
}

/// Granules that hold `bytes`. Never overflows.
#[inline]
pub const fn granules_for(bytes: usize) -> usize {
    bytes.div_ceil(GRANULE)
}

/// The order of the smallest run that holds `granules` (at least one).
#[inline]
pub const fn order_for(granules: usize) -> u32 {
    granules.next_power_of_two().trailing_zeros()
}

/// A word whose bits `first..first + count` are set; `count` is at least 1 and the range fits.
#[inline]
pub const fn bit_range(first: u32, count: usize) -> u64 {
    (u64::MAX >> (64 - count)) << first
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn geometry_is_the_documented_one() {
        assert_eq!(GRANULE, 32 << 10);
        assert_eq!(HUGEPAGE, 2 << 20);
        assert_eq!(WINDOW, 1 << 30);
        assert_eq!((HUGEPAGES_PER_WINDOW, GRANULES_PER_WINDOW, MAP_WORDS), (512, 32768, 8));
        assert_eq!(MAX_ORDER, 12);
        assert_eq!(GRANULE << MAX_ORDER, 128 << 20);
        assert_eq!(WHOLE, u64::MAX);
    }

    #[test]
    fn conversions() {
        let addr = 5 * WINDOW + 3 * HUGEPAGE + 7 * GRANULE + 11;
        let g = Granule::of(addr);
        assert_eq!((g.hugepage(), g.bit()), (Hugepage(3), 7));
        assert_eq!(g.hugepage().granule(7), g);
        assert_eq!(format!("{g:?} {:?}", g.hugepage()), "G199 H3");
        assert_eq!((granules_for(1), granules_for(GRANULE), granules_for(GRANULE + 1)), (1, 1, 2));
        assert_eq!((order_for(1), order_for(2), order_for(3), order_for(64)), (0, 1, 2, 6));
        assert_eq!((bit_range(0, 64), bit_range(3, 2)), (u64::MAX, 0b11000));
    }
}
