//! The spans in a forked child: what threads that it does not have were in the middle of.

use super::state::State;
use super::{Span, Spans, worth_listing};
use crate::base::classes::Use;
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::units::{GRANULES_PER_WINDOW, Granule};
use crate::os::Os;

impl<O: Os> Spans<O> {
    /// Makes an object that no thread holds free in its span, if it is not. What is no object is left
    /// alone.
    ///
    /// # Safety
    /// No other thread uses the spans; the books are put right by [`Spans::recount`].
    pub unsafe fn restore(&self, object: *mut u8) {
        let addr = object.addr();
        let Some(window) = self.pages().find(addr) else { return };
        let Use::Span(class) = window.usage(Granule::of(addr)) else { return };
        let span = Span::at(window, addr, class);
        let offset = addr - span.start();
        let index = class.shape().index_of(offset);
        if span.state(Relaxed).serves(class)
            && index < class.shape().objects
            && index as usize * class.size() == offset
        {
            span.bits()[index as usize / 64].fetch_or(1 << (index % 64), Relaxed);
        }
    }

    /// Puts every span's books right by its free bits: what is not free is live, nobody owns it, what
    /// is worth it is listed, and an empty one ends.
    ///
    /// # Safety
    /// No other thread uses the spans or the page heap, and the caller owns no span.
    pub unsafe fn recount(&self) {
        for window in self.pages().windows() {
            let mut index = 0;
            while index < GRANULES_PER_WINDOW {
                let first = Granule(index as u32);
                let Use::Span(class) = window.usage(first) else {
                    index += 1;
                    continue;
                };
                let granules = 1 << class.shape().span_order;
                let span = Span { window, first, class };
                if !index.is_multiple_of(granules) || !span.state(Acquire).serves(class) {
                    // A span that was about to begin, or to be returned.
                    window.set_usage(first, 1, Use::None);
                    index += 1;
                    continue;
                }
                let objects = class.shape().objects;
                let free: u32 = span.bits().iter().map(|w| w.load(Relaxed).count_ones()).sum();
                let live = objects - free.min(objects);
                let state = span.state(Relaxed);
                let next: State = if live == 0 {
                    state.died()
                } else {
                    state.recounted(live, free >= worth_listing(objects))
                };
                span.word().store(next.0, Release);
                if live == 0 {
                    self.counters.died.fetch_add(1, Relaxed);
                    window.set_usage(first, granules, Use::None);
                } else if next.listed() {
                    span.hints().insert(index);
                }
                index += granules;
            }
        }
    }
}
