//! Which classes have much that is free in their spans.
//!
//! Takers go to the lowest spans, so the highest of a class that loses ground would end one after the
//! other, did not the caches hand out again what is freed there before a taker comes to the spans at
//! all: then each of those spans keeps a few objects, in turns, for as long as the class is in use. Of a
//! class that is found thin nothing that was freed stays in the caches until it is not.

use super::{Span, Spans};
use crate::base::classes::{CLASSES, Class, Use};
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::{AtomicU8, AtomicU64};
use crate::base::units::*;
use crate::os::Os;

/// How often to look, at most, in milliseconds, and after how much growth at the latest: bytes, and one
/// part in so many of what is in use.
const EVERY_MS: u64 = 250;
const EVERY_GROWTH: u64 = 2 << 20;
const GROWTH_PART: u64 = 32;
/// Objects up to this size are fetched from spans at a cost that tells.
const LARGE: usize = 256;
/// Free bytes below which no class is thin: what a thin one costs in time is not worth less.
const FREE: usize = 512 << 10;

/// What was found last. Any thread, relaxed: a late look costs memory or time, nothing else.
#[derive(Debug)]
pub(super) struct Survey {
    thin: [AtomicU8; CLASSES],
    looked_at: AtomicU64,
    grown: AtomicU64,
}

impl Survey {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                thin: array![AtomicU8::new(0); CLASSES],
                looked_at: AtomicU64::new(0),
                grown: AtomicU64::new(0),
            }
        }
    }

    /// Whether the class was thin at the last look.
    pub(super) fn is_thin(&self, class: Class) -> bool {
        self.thin[class.index()].load(Relaxed) != 0
    }
}

/// Whether a class with so many bytes of objects, so many of them free, is thin: at an eighth free, and
/// from then on until it is a sixteenth.
fn thin(bytes: usize, free: usize, was: bool) -> bool {
    free >= FREE / (1 + usize::from(was)) && free * (if was { 16 } else { 8 }) > bytes
}

impl<O: Os> Spans<O> {
    /// Looks again if it is time.
    pub(super) fn survey(&self, now: u64) {
        let (survey, fresh) = (&self.survey, self.pages().fresh());
        let last = survey.looked_at.load(Relaxed);
        let in_use: u64 = self.pages().windows().map(|w| u64::from(w.hugepages_in_use())).sum();
        let growth = EVERY_GROWTH.max(in_use * HUGEPAGE as u64 / GROWTH_PART);
        if now < last + EVERY_MS && fresh < survey.grown.load(Relaxed) + growth {
            return;
        }
        survey.grown.store(fresh, Relaxed);
        // One thread per look is enough; the others have no reason to wait for it.
        if survey.looked_at.compare_exchange(last, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let mut sums = [(0, 0); CLASSES];
        for window in self.pages().windows() {
            let mut index = 0;
            for hugepage in window.in_use() {
                let start = hugepage.granule(0).index();
                // A block may have begun before.
                index = index.max(start);
                while index < start + GRANULES_PER_HUGEPAGE {
                    let first = Granule(index as u32);
                    index += match window.usage(first) {
                        Use::Span(class) => {
                            if class.size() > LARGE {
                                let live = Span { window, first, class }.state(Relaxed).live();
                                let (spans, objects) = &mut sums[class.index()];
                                *spans += 1;
                                *objects += live.min(class.shape().objects) as usize;
                            }
                            1 << class.shape().span_order
                        }
                        Use::Large => window.length(first).max(1),
                        _ => 1,
                    };
                }
            }
        }
        for class in Class::all() {
            let (spans, live) = sums[class.index()];
            let all = spans * class.shape().objects as usize;
            let was = survey.is_thin(class);
            let now = thin(all * class.size(), (all - live) * class.size(), was);
            survey.thin[class.index()].store(now.into(), Relaxed);
        }
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn thin_at_an_eighth_until_a_sixteenth() {
        assert!(!thin(32 << 20, 4 << 20, false));
        assert!(thin(32 << 20, (4 << 20) + 1, false));
        assert!(thin(32 << 20, (2 << 20) + 1, true));
        assert!(!thin(32 << 20, 2 << 20, true));
        assert!(!thin(1 << 20, FREE - 1, false));
        assert!(thin(1 << 20, FREE / 2, true));
        assert!(!thin(0, 0, true));
    }
}
