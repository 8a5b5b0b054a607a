//! What the span floor keeps per window: descriptor words, free bits, and which spans to look at.

use super::state::State;
use crate::base::classes::{CLASSES, Class};
use crate::base::hints::{HintSet, HintsTable, runs};
use crate::base::sync::{AtomicU64, Ordering};
use crate::base::units::{GRANULE_SHIFT, GRANULES_PER_WINDOW, Granule};
use crate::os::Zeroed;
use crate::page::Window;
use core::ptr;

const HINT_RUNS: usize = runs(GRANULES_PER_WINDOW);
const HINT_TOPS: usize = GRANULES_PER_WINDOW.div_ceil(64 * 64);

/// Objects of this size or more need at most [`WORDS`] words of bits per granule.
const DENSE_BELOW: usize = 64;
/// One cache line of bits per granule, so that one page of bits serves a whole hugepage.
const WORDS: usize = (1 << GRANULE_SHIFT) / DENSE_BELOW / 64 + cfg!(spandrel_model) as usize;
/// Bits per granule for smaller objects.
const DENSE_WORDS: usize = (1usize << GRANULE_SHIFT).div_ceil(8 * 64);

/// The spans of one window. Indexed by the first granule of a span.
#[derive(Debug)]
pub struct SpanTable {
    /// See [`State`]. Any thread.
    states: [AtomicU64; GRANULES_PER_WINDOW],
    /// Per class: which spans probably have free objects. Any thread.
    hints: HintsTable<CLASSES, HINT_TOPS, HINT_RUNS>,
    /// 1 = free. Set by any thread that gives, cleared by the owner alone.
    bits: [[AtomicU64; WORDS]; GRANULES_PER_WINDOW],
    /// The same for classes below [`DENSE_BELOW`].
    dense_bits: [[AtomicU64; DENSE_WORDS]; GRANULES_PER_WINDOW],
}

// SAFETY: nothing but atomics; zero is no span anywhere, no bit free, no hint set.
unsafe impl Zeroed for SpanTable {
    #[cfg(spandrel_model)]
    fn zeroed() -> Self {
        Self {
            states: array![AtomicU64::new(0); GRANULES_PER_WINDOW],
            hints: HintsTable::new(),
            bits: array![array![AtomicU64::new(0); WORDS]; GRANULES_PER_WINDOW],
            dense_bits: array![array![AtomicU64::new(0); DENSE_WORDS]; GRANULES_PER_WINDOW],
        }
    }
}

impl SpanTable {
    /// Which spans of a class probably have free objects.
    pub(super) fn hints(&self, class: Class) -> HintSet<'_> {
        self.hints.set(class.index())
    }
}

/// One span, or a place where one was: a window, a first granule and a class.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    pub(super) window: &'a Window<SpanTable>,
    pub(super) first: Granule,
    pub(super) class: Class,
}

impl<'a> Span<'a> {
    /// The span of `class` that holds `addr`, an address in `window`.
    pub fn at(window: &'a Window<SpanTable>, addr: usize, class: Class) -> Self {
        Self { window, first: Granule::of(addr & !(class.span_bytes() - 1)), class }
    }

    /// The size class it serves.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The descriptor word.
    pub(super) fn word(&self) -> &'a AtomicU64 {
        &self.window.above.states[self.first.index()]
    }

    /// The descriptor word as it stands.
    pub fn state(&self, ordering: Ordering) -> State {
        State(self.word().load(ordering))
    }

    /// The hints of its class in its window.
    pub(super) fn hints(&self) -> HintSet<'a> {
        self.window.above.hints(self.class)
    }

    /// Its free bits, exactly as many words as its objects need.
    pub fn bits(&self) -> &'a [AtomicU64] {
        let shape = self.class.shape();
        let granules = self.first.index()..self.first.index() + (1 << shape.span_order);
        let table = &self.window.above;
        let words = if self.class.size() < DENSE_BELOW {
            table.dense_bits[granules].as_flattened()
        } else {
            table.bits[granules].as_flattened()
        };
        &words[..shape.objects.div_ceil(64) as usize]
    }

    /// The object with this index.
    #[inline]
    pub(super) fn object(&self, start: usize, index: u32) -> *mut u8 {
        ptr::with_exposed_provenance_mut(start + index as usize * self.class.size())
    }

    /// The address of its first object.
    pub fn start(&self) -> usize {
        self.window.address(self.first)
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn bits_fit_every_class() {
        for class in Class::all() {
            let shape = class.shape();
            let per_granule = if class.size() < DENSE_BELOW { DENSE_WORDS } else { WORDS };
            let words = per_granule << shape.span_order;
            assert!(shape.objects.div_ceil(64) as usize <= words, "{class:?}");
        }
        assert_eq!(WORDS * 8, 64, "one cache line a granule");
    }
}
