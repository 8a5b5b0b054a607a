//! Pages inside spans: what a few objects, live or in the cache of a thread that sleeps, keep of memory
//! when everything else is gone.
//!
//! A span in use cannot go back, but pages of it that hold free objects only can. Whoever sheds a span
//! owns it meanwhile, as a taker does: nobody else can take its free objects, so they stay free, and
//! nobody waits, because a taker that finds it owned takes from another (model M10). Done once when the
//! heap has come to rest, and by [`purge`](crate::purge).
//!
//! # Orderings
//! The bits are read with Acquire, which pairs with the givers' `fetch_or`: their users' last writes come
//! before the release of the page. Letting go releases, and the next owner acquires: its objects' users
//! come after.

use super::{Owning, Span, SpanTable, Spans};
use crate::base::classes::Use;
use crate::base::seed::{self, Seed};
use crate::base::sync::AtomicU64;
use crate::base::sync::Ordering::{Acquire, Relaxed};
use crate::base::units::*;
use crate::os::Os;
use crate::page::Window;
use core::ptr::{self, NonNull};

/// So few runs taken and given while the heap decays are rest.
const REST: u64 = 64;

/// When the heap was last busy. Any thread, relaxed: a lost update costs one look.
#[derive(Debug)]
pub(super) struct Rest {
    /// Runs taken and given when the present rest began, and when that was.
    began_at: AtomicU64,
    since: AtomicU64,
    /// Runs taken and given when spans were shed last.
    shed_at: AtomicU64,
}

impl Rest {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                began_at: AtomicU64::new(0),
                since: AtomicU64::new(0),
                shed_at: AtomicU64::new(0),
            }
        }
    }
}

impl<O: Os> Spans<O> {
    /// Whether something was taken or given since spans were shed last, and they will be again.
    pub fn will_shed(&self) -> bool {
        self.pages().policy().decay_ms().is_some()
            && self.activity() != self.rest.shed_at.load(Relaxed)
    }

    fn activity(&self) -> u64 {
        let counts = self.pages().counts();
        counts.takes + counts.gives
    }

    /// Sheds once the heap has been at rest for as long as parts of hugepages stay.
    pub(super) fn shed_at_rest(&self, now: u64) {
        let Some(decay) = self.pages().policy().decay_ms() else { return };
        let (activity, began_at) = (self.activity(), self.rest.began_at.load(Relaxed));
        if self.rest.since.load(Relaxed) == 0 || activity > began_at + REST {
            self.rest.began_at.store(activity, Relaxed);
            self.rest.since.store(now.max(1), Relaxed);
        } else if now >= self.rest.since.load(Relaxed) + u64::from(decay) * 3 / 4
            && self.rest.shed_at.swap(activity, Relaxed) != activity
        {
            self.shed();
        }
    }

    /// Returns the memory of all pages that hold free objects only. Answers how many bytes those pages
    /// have; some may have been returned before.
    pub fn shed(&self) -> usize {
        let mut bytes = 0;
        for window in self.pages().windows() {
            for hugepage in (0..HUGEPAGES_PER_WINDOW as u32).map(Hugepage) {
                let view = window.look(hugepage);
                if view.whole
                    || view.free == WHOLE
                    || !self.pages().may_break(window, hugepage, || self.live_in(window, hugepage))
                {
                    continue;
                }
                for granule in (0..GRANULES_PER_HUGEPAGE as u32).map(|bit| hugepage.granule(bit)) {
                    if let Some(span) = span_at(window, granule) {
                        bytes += self.shed_span(span);
                    }
                }
                self.pages().broke(window, hugepage);
            }
        }
        self.pages().note_shed(bytes);
        bytes
    }

    /// Bytes of a hugepage that are held by the program or by threads' caches.
    fn live_in(&self, window: &Window<SpanTable>, hugepage: Hugepage) -> usize {
        let mut bytes = 0;
        let mut bit = 0;
        while bit < GRANULES_PER_HUGEPAGE as u32 {
            let granule = hugepage.granule(bit);
            bit += 1;
            if let Some(span) = span_at(window, granule) {
                bytes += span.state(Relaxed).live() as usize * span.class().size();
            } else if window.usage(granule) == Use::Large {
                let left = GRANULES_PER_HUGEPAGE - granule.bit() as usize;
                bytes += window.length(granule).min(left) * GRANULE;
            }
        }
        // A block that began before this hugepage.
        let first = hugepage.granule(0);
        if window.usage(first) == Use::None && window.look(hugepage).free & 1 == 0 {
            return HUGEPAGE;
        }
        bytes
    }

    fn shed_span(&self, span: Span<'_>) -> usize {
        if free_pages(&span, self.os_page()).next().is_none() {
            return 0;
        }
        if !seed::on(Seed::ShedUnowned) && !matches!(self.own(span, true), Owning::Mine) {
            return 0;
        }
        if !seed::on(Seed::ShedUnowned) {
            // Owning listed it, and whoever gives to a listed span leaves the hint alone.
            span.hints().insert(span.first.index());
        }
        let mut bytes = 0;
        for (start, end) in free_pages(&span, self.os_page()) {
            let at = NonNull::new(ptr::with_exposed_provenance_mut(start));
            // SAFETY: these pages hold free objects only, and nobody takes them while we own the span.
            if at.is_some_and(|at| unsafe { self.pages().os().purge(at, end - start) }) {
                bytes += end - start;
            }
        }
        if !seed::on(Seed::ShedUnowned) {
            self.let_go(span);
        }
        bytes
    }

    fn os_page(&self) -> usize {
        self.pages().os().page_size()
    }
}

/// The span that starts at this granule.
fn span_at(window: &Window<SpanTable>, granule: Granule) -> Option<Span<'_>> {
    let Use::Span(class) = window.usage(granule) else { return None };
    let span = Span::at(window, window.address(granule), class);
    (span.start() == window.address(granule)).then_some(span)
}

/// The runs of whole pages of a span that hold free objects only, as addresses.
fn free_pages<'a>(span: &'a Span<'_>, page: usize) -> impl Iterator<Item = (usize, usize)> + 'a {
    let (class, start) = (span.class(), span.start());
    let (size, objects) = (class.size(), class.shape().objects as usize);
    let end = start + objects * size;
    let free = move |at: usize| {
        let (first, last) = ((at - start) / size, (at + page - 1 - start) / size);
        last < objects && all_free(span.bits(), first, last)
    };
    let mut at = start.next_multiple_of(page);
    core::iter::from_fn(move || {
        while at + page <= end && !free(at) {
            at += page;
        }
        let from = at;
        while at + page <= end && free(at) {
            at += page;
        }
        (from < at).then_some((from, at))
    })
}

/// Whether all of these bits are set.
fn all_free(bits: &[AtomicU64], first: usize, last: usize) -> bool {
    (first / 64..=last / 64).all(|word| {
        let low = if word == first / 64 { first % 64 } else { 0 };
        let high = if word == last / 64 { last % 64 } else { 63 };
        let mask = bit_range(low as u32, high - low + 1);
        bits[word].load(seed::weaken(Seed::ShedRelaxed, Acquire)) & mask == mask
    })
}
