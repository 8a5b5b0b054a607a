//! Size classes: which class serves a `Layout`, and the shape of the spans that serve a class.
//!
//! The sizes are divisors of the smallest span that holds eight of them: 32 KiB up to a page, so that all
//! memory for small objects is in pieces alike and any piece serves any class. Of log-uniform
//! requests from 8 B to 32 KiB they leave 10.2 % unused; four classes per doubling, 10.7 % (the test
//! `print_the_table` computes both). Every table is a `const`, so a constant `Layout` folds to a constant class at compile
//! time even without link-time optimisation; a `static` would not fold.

use super::units::{BATCH, GRANULE, GRANULE_SHIFT};
use core::fmt;

/// A size class, smallest first.
///
/// Held as its index times [`STRIDE`], so that a run-time size leads from one table look-up straight
/// to the thread cache's bin. With plain indices the pair of calls takes eight instructions more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Class(u16);

/// The distance of two classes' bins, in bytes; the thread cache checks it.
pub const STRIDE: usize = 32;

#[cfg(not(spandrel_model))]
const SIZES: [u32; 50] = [
    8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 288, 336, 384, 448, 512, 592,
    672, 768, 896, 1024, 1152, 1344, 1536, 1792, 2048, 2304, 2688, 3264, 3584, 4096, 4672, 5440,
    6528, 7232, 8192, 9344, 10880, 13056, 14528, 16384, 18688, 21760, 26112, 29056, 32768,
];
/// The toy table of a model: spans of four and of two objects.
#[cfg(spandrel_model)]
const SIZES: [u32; 2] = [8, 16];

/// How many classes there are.
pub const CLASSES: usize = SIZES.len();
/// The largest size that a class serves, in bytes. Above it, whole granules from the page heap.
pub const MAX_SMALL: usize = SIZES[CLASSES - 1] as usize;
/// The coarsest alignment that a class serves.
pub const MAX_SMALL_ALIGN: usize = MAX_SMALL;
/// Every size is a multiple of this, and so is every object's address.
pub const MIN_ALIGN: usize = 8;

/// What C's largest basic types are aligned to (`alignof(max_align_t)`).
pub const C_ALIGN: usize = 16;

/// A span may waste this much at its end: one part in 64.
const MAX_TAIL: usize = 64;
/// Below this many bytes a batch is [`BATCH`] objects; above, as many as fit.
const BATCH_BYTES: usize = 16 << 10;

/// What a class is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of one object.
    pub size: u32,
    /// log2 of the granules of one span.
    pub span_order: u32,
    /// Objects in a span.
    pub objects: u32,
    /// Objects that travel together between the floors.
    pub batch: u32,
    /// `offset * reciprocal >> RECIPROCAL_SHIFT == offset / size` for every offset in a span.
    reciprocal: u64,
}

/// With 32 bits the quotient of some offsets inside the largest objects is one too high.
const RECIPROCAL_SHIFT: u32 = 40;

impl Shape {
    /// The index of the object that holds the byte at `offset`, an offset in a span.
    #[inline(always)]
    pub const fn index_of(&self, offset: usize) -> u32 {
        ((offset as u64 * self.reciprocal) >> RECIPROCAL_SHIFT) as u32
    }
}

const fn shape(size: u32) -> Shape {
    let (mut order, mut best) = (0, 0);
    let mut found = false;
    // The smallest span with at least 8 objects and a short tail; failing that, with at least 4.
    let wanted: [usize; 2] = if cfg!(spandrel_model) { [2, 2] } else { [8, 4] };
    let mut attempt = 0;
    while attempt < 2 && !found {
        order = 0;
        while order <= 3 && !found {
            let bytes = GRANULE << order;
            let objects = bytes / size as usize;
            found =
                objects >= wanted[attempt] && (bytes - objects * size as usize) * MAX_TAIL <= bytes;
            best = objects;
            if !found {
                order += 1;
            }
        }
        attempt += 1;
    }
    assert!(found, "no span of up to 256 KiB suits this size");
    let batch = BATCH_BYTES / size as usize;
    let batch = if batch > BATCH {
        BATCH
    } else if batch < 2 {
        2
    } else {
        batch
    };
    let reciprocal = (1u64 << RECIPROCAL_SHIFT).div_ceil(size as u64);
    Shape { size, span_order: order, objects: best as u32, batch: batch as u32, reciprocal }
}

const SHAPES: [Shape; CLASSES] = {
    let mut shapes = [shape(SIZES[0]); CLASSES];
    let mut i = 1;
    while i < CLASSES {
        assert!(SIZES[i] > SIZES[i - 1] && (SIZES[i] as usize).is_multiple_of(MIN_ALIGN));
        shapes[i] = shape(SIZES[i]);
        i += 1;
    }
    shapes
};

/// Class by size in words of 8 bytes.
const BY_SIZE: [u16; MAX_SMALL / 8 + 1] = {
    let mut table = [0; MAX_SMALL / 8 + 1];
    let (mut words, mut class) = (0, 0);
    while words < table.len() {
        while (SIZES[class] as usize) < words * 8 {
            class += 1;
        }
        table[words] = (class * STRIDE) as u16;
        words += 1;
    }
    table
};

/// Class by size in words of 8 bytes for calls without an alignment, of which C promises that any
/// object of 16 bytes or more may be put there.
const BY_SIZE_FOR_C: [u16; MAX_SMALL / 8 + 1] = {
    let mut table = BY_SIZE;
    // With a shadow the smallest blocks are such as it can tell apart.
    let mut words = if cfg!(feature = "shadow") { 0 } else { 2 };
    while words < table.len() {
        let class = table[words] as usize / STRIDE;
        if !(SIZES[class] as usize).is_multiple_of(C_ALIGN) {
            assert!((SIZES[class + 1] as usize).is_multiple_of(C_ALIGN));
            table[words] = ((class + 1) * STRIDE) as u16;
        }
        words += 1;
    }
    table
};

/// Classes 0 and 2, in one bit: the only ones whose sizes are odd multiples of 8. A model has but the first.
const UNSHADOWED: u16 = if cfg!(spandrel_model) { 0 } else { 2 * STRIDE as u16 };

const _: () = {
    let mut class = 0;
    while class < CLASSES {
        let odd = !(SIZES[class] as usize).is_multiple_of(C_ALIGN);
        assert!(odd == ((class * STRIDE) as u16 & !UNSHADOWED == 0));
        class += 1;
    }
};

const ALIGNS: usize = MAX_SMALL_ALIGN.ilog2() as usize + 1;

/// The first class from a given one on whose size is a multiple of `1 << align`.
const BY_ALIGN: [[u16; CLASSES]; ALIGNS] = {
    let mut table = [[0; CLASSES]; ALIGNS];
    let mut align = 0;
    while align < ALIGNS {
        let mut class = CLASSES;
        let mut next = CLASSES - 1;
        while class > 0 {
            class -= 1;
            if SIZES[class].is_multiple_of(1 << align) {
                next = class;
            }
            table[align][class] = (next * STRIDE) as u16;
        }
        assert!(SIZES[CLASSES - 1].is_multiple_of(1 << align));
        align += 1;
    }
    table
};

impl Class {
    /// The class that serves `size` bytes at `align`, or `None` where only the page heap can.
    /// `align` is a power of two. Size 0 is served by the smallest class.
    #[inline(always)]
    pub const fn of(size: usize, align: usize) -> Option<Self> {
        if size > MAX_SMALL {
            return None;
        }
        let class = Self(BY_SIZE[size.div_ceil(8)]);
        if align <= MIN_ALIGN {
            return Some(class);
        }
        // Keeps the common case free of taken jumps, which cost more here than instructions.
        core::hint::cold_path();
        if align > MAX_SMALL_ALIGN {
            return None;
        }
        Some(Self(BY_ALIGN[align.trailing_zeros() as usize][class.index()]))
    }

    /// The class that serves `malloc(size)`, or `None` where only the page heap can: a multiple of
    /// [`C_ALIGN`] from that size on.
    #[inline(always)]
    pub const fn of_c(size: usize) -> Option<Self> {
        if size > MAX_SMALL {
            return None;
        }
        let class = Self(BY_SIZE_FOR_C[size.div_ceil(8)]);
        if cfg!(feature = "shadow") {
            // SAFETY: the table has no others then.
            unsafe { core::hint::assert_unchecked(class.is_shadowed()) };
        }
        Some(class)
    }

    /// The class with this index.
    ///
    /// # Panics
    /// If `index` is not below [`CLASSES`]; for tests and reports, not for the walk.
    pub const fn from_index(index: usize) -> Self {
        assert!(index < CLASSES);
        Self((index * STRIDE) as u16)
    }

    /// The class of a span with this class word, see [`Use`].
    #[inline(always)]
    pub const fn from_word(word: usize) -> Self {
        // SAFETY: the word of a span is its class plus one stride.
        unsafe { core::hint::assert_unchecked(word >= STRIDE && word <= CLASSES * STRIDE) };
        Self((word - STRIDE) as u16)
    }

    /// Whether each of its objects has bytes of the shadow to itself, its start alone in the first of them:
    /// sizes of whole steps of 16 bytes.
    #[inline(always)]
    pub const fn is_shadowed(self) -> bool {
        self.0 & !UNSHADOWED != 0
    }

    /// All classes, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..CLASSES).map(Self::from_index)
    }

    /// As an index into per-class tables, below [`CLASSES`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        let index = self.0 as usize / STRIDE;
        // SAFETY: every class is made from an index below CLASSES.
        unsafe { core::hint::assert_unchecked(index < CLASSES) };
        index
    }

    /// As an offset into a table with rows of [`STRIDE`] bytes.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        self.0 as usize
    }

    /// What it is made of.
    #[inline(always)]
    pub const fn shape(self) -> Shape {
        SHAPES[self.index()]
    }

    /// Bytes of one object.
    #[inline(always)]
    pub const fn size(self) -> usize {
        SIZES[self.index()] as usize
    }

    /// Objects that travel together.
    #[inline(always)]
    pub const fn batch(self) -> usize {
        SHAPES[self.index()].batch as usize
    }

    /// Bytes of one span.
    #[inline(always)]
    pub const fn span_bytes(self) -> usize {
        1 << (GRANULE_SHIFT + SHAPES[self.index()].span_order)
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C{}", self.size())
    }
}

/// What a window's page map says of a granule, packed into its class word: like a class, a multiple
/// of [`STRIDE`], so that it leads to the bin without arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Free, or not ours.
    None,
    /// Part of a span of this class.
    Span(Class),
    /// The first granule of a large block; the further ones say [`Use::None`].
    Large,
    /// The first granule of a block that has a mapping of its own.
    Mapping,
}

/// How many class words there are.
pub const USES: usize = CLASSES + 3;

impl Use {
    /// The class word.
    #[inline]
    pub const fn pack(self) -> u16 {
        match self {
            Use::None => 0,
            Use::Span(class) => class.0 + STRIDE as u16,
            Use::Large => ((CLASSES + 1) * STRIDE) as u16,
            Use::Mapping => ((CLASSES + 2) * STRIDE) as u16,
        }
    }

    /// Reads a class word.
    #[inline]
    pub const fn unpack(word: u16) -> Self {
        const LARGE: u16 = Use::Large.pack();
        const MAPPING: u16 = Use::Mapping.pack();
        const LAST: u16 = (CLASSES * STRIDE) as u16;
        match word {
            LARGE => Use::Large,
            MAPPING => Use::Mapping,
            1..=LAST if word.is_multiple_of(STRIDE as u16) => {
                Use::Span(Class::from_word(word as usize))
            }
            _ => Use::None,
        }
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    /// The mean unused part of blocks of `high` bytes for requests above `low`, log-uniform.
    fn unused(low: u32, high: u32) -> f64 {
        let (low, high) = (f64::from(low), f64::from(high));
        1.0 - (high - low) / high / (high / low).ln()
    }

    /// The same over a whole table, from its first size to its last.
    fn expected_unused(sizes: &[u32]) -> f64 {
        let weight = |low: u32, high: u32| (f64::from(high) / f64::from(low)).ln();
        let sum: f64 = sizes.windows(2).map(|w| unused(w[0], w[1]) * weight(w[0], w[1])).sum();
        sum / weight(sizes[0], sizes[sizes.len() - 1])
    }

    /// Prints the table with the waste per class: `cargo test print_the_table -- --nocapture`.
    #[test]
    fn print_the_table() {
        println!("class  size  span KiB  objects  batch  tail %  mean unused %");
        let mut previous = 1;
        for class in Class::all() {
            let Shape { size, objects, batch, .. } = class.shape();
            let tail = 1.0 - (objects * size) as f64 / class.span_bytes() as f64;
            println!(
                "{:5} {size:5} {:9} {objects:8} {batch:6} {:7.2} {:14.1}",
                class.index(),
                class.span_bytes() >> 10,
                tail * 100.0,
                unused(previous, size) * 100.0
            );
            assert!(tail <= 1.0 / 64.0, "{class:?} wastes {tail} of its span");
            assert!(
                size > 4096 || class.span_bytes() == GRANULE,
                "{class:?} is not of one granule"
            );
            assert!(objects >= 4 && batch >= 2 && batch as usize <= BATCH);
            previous = size;
        }
        let four_per_doubling: Vec<u32> = [8, 16, 24, 32, 40, 48, 56]
            .into_iter()
            .chain((6..15).flat_map(|k| (4..8).map(move |quarter| quarter << (k - 2))))
            .chain([32768])
            .collect();
        let (ours, theirs) = (expected_unused(&SIZES), expected_unused(&four_per_doubling));
        println!(
            "unused of log-uniform requests, 8 B to 32 KiB: {:.1} % in {CLASSES} classes,",
            ours * 100.0
        );
        println!(
            "{:.1} % in {} classes, four per doubling",
            theirs * 100.0,
            four_per_doubling.len()
        );
        assert!(ours < 0.12);
    }

    #[test]
    fn every_size_gets_the_smallest_class() {
        for size in 0..=MAX_SMALL {
            let class = Class::of(size, 1).unwrap();
            assert!(class.size() >= size);
            assert!(class.index() == 0 || SIZES[class.index() - 1] < size.max(1) as u32);
        }
        assert_eq!(Class::of(MAX_SMALL + 1, 1), None);
        assert_eq!(Class::of(usize::MAX, 1), None);
    }

    #[test]
    fn c_gets_the_first_class_that_suits_every_type() {
        for size in 0..=MAX_SMALL {
            let class = Class::of_c(size).unwrap();
            let short = size < C_ALIGN && !cfg!(feature = "shadow");
            let align = if short { 8 } else { C_ALIGN };
            let class_of_layout = Class::of(size, align).unwrap();
            assert_eq!(class, class_of_layout, "size {size}");
        }
        assert_eq!((Class::of_c(MAX_SMALL + 1), Class::of_c(usize::MAX)), (None, None));
    }

    #[test]
    fn every_alignment_gets_the_first_class_that_is_a_multiple() {
        for shift in 0..=MAX_SMALL_ALIGN.ilog2() {
            let align = 1 << shift;
            for size in (0..=MAX_SMALL).step_by(7).chain([MAX_SMALL]) {
                let class = Class::of(size, align).unwrap();
                let first = Class::all().find(|c| c.size() >= size && c.size() % align == 0);
                assert_eq!(Some(class), first, "size {size}, align {align}");
            }
        }
        assert_eq!(Class::of(8, MAX_SMALL_ALIGN * 2), None);
    }

    #[test]
    fn reciprocal_is_exact_for_every_offset() {
        for class in Class::all() {
            let shape = class.shape();
            for offset in 0..class.span_bytes() {
                assert_eq!(shape.index_of(offset) as usize, offset / class.size(), "{class:?}");
            }
        }
    }

    #[test]
    fn class_words_round_trip() {
        for word in 0..=u16::MAX {
            let usage = Use::unpack(word);
            assert!(usage == Use::None || usage.pack() == word);
            assert!((usage.pack() as usize) < USES * STRIDE);
        }
        for class in Class::all() {
            assert_eq!(Use::unpack(Use::Span(class).pack()), Use::Span(class));
        }
    }

    const _: () = assert!(matches!(Class::of(64, 8), Some(c) if c.size() == 64));
}
