//! Spans: where objects of a class come from, and where they go when no cache wants them.
//!
//! A span is an aligned power-of-two run of granules that serves one class. Whoever gives sets bits
//! with one `fetch_or` per word; whoever takes owns the span for the moment and is the only one to
//! clear bits. A span whose last object came home goes back to the page heap.
//!
//! # Why it is safe
//! A bit is set *before* `live` falls, and `live` rises *before* objects leave, so `live` never
//! under-counts what is outstanding; and the word it lives in is exchanged whole, so exactly one
//! thread sees it reach zero with nobody owning the span, and that one returns the granules.
//!
//! # Orderings
//! - give: the bits' `fetch_or` releases what the last user wrote; the taker's `fetch_and` acquires it.
//! - give: `live`'s `fetch_sub` releases the bits and what was written before them; the exchange that
//!   ends the span acquires all of it, so that whoever gets the granules starts after every old
//!   access. It must acquire although its value was read before: the word can come back to that value
//!   through a take and a give in between (model M2, `DieRelaxed`).
//! - take: owning acquires what the previous owner released when it let go.
//! - take: `live`'s `fetch_add` is Relaxed: whoever later subtracts these objects got them from here
//!   and so comes after it in the word's order.

mod inherit;
mod order;
mod shed;
pub mod state;
mod survey;
pub mod table;

use crate::base::classes::{Class, Use};
use crate::base::death;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::sync::unseen::AtomicU64;
use crate::base::sync::{self, Tally};
use crate::base::units::{GRANULE, GRANULES_PER_WINDOW, Granule};
use crate::os::Os;
use crate::page::{Grain, PageHeap, Window};
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;
pub use order::are_neighbours;
use order::worth_sorting;
use state::{Offer, State};
pub use table::{Span, SpanTable};

/// The two verbs that join the floors which deal in objects.
pub trait Objects {
    /// The system at the bottom, for the metadata of the floors above.
    type System: Os;

    /// The system at the bottom.
    fn os(&self) -> &Self::System;

    /// Fills `out` with objects of `class` from the front; answers how many there were. Caches hand
    /// out from the end, so what should be used first comes last.
    fn take(&self, class: Class, out: &mut [*mut u8]) -> usize;

    /// Takes objects of `class` back; at most a batch of them. Their order is not kept.
    fn give(&self, class: Class, objects: &mut [*mut u8]);

    /// The same, and calls `leaving` right before the first of them may be handed out again.
    fn give_noting(&self, class: Class, objects: &mut [*mut u8], leaving: impl FnOnce()) {
        leaving();
        self.give(class, objects);
    }

    /// As [`Objects::give`] of objects that [are neighbours](are_neighbours).
    fn give_neighbours(&self, class: Class, objects: &mut [*mut u8]) {
        self.give(class, objects);
    }

    /// Called on slow paths, often: now and then, give back what is no longer wanted.
    fn tick(&self) {}

    /// Whether the heap is above its soft limit: then keep less.
    fn pressed(&self) -> bool {
        false
    }

    /// Bytes that got memory behind them so far: how fast the heap grows.
    fn growth(&self) -> u64 {
        0
    }

    /// Whether much is free in the spans of a class: then what is freed goes home before it is handed out
    /// again, so that the last of them end.
    fn is_thin(&self, _: Class) -> bool {
        false
    }
}

/// The span floor over a page heap.
#[derive(Debug)]
pub struct Spans<O> {
    pages: PageHeap<O, SpanTable>,
    rest: shed::Rest,
    survey: survey::Survey,
    counters: CachePadded<Counters>,
}

/// Any thread, relaxed: sums, not states.
#[derive(Debug)]
struct Counters {
    begun: AtomicU64,
    died: AtomicU64,
    last_resorts: AtomicU64,
    retries: Tally,
}

/// The span floor's counts at one moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanCounts {
    /// Spans begun.
    pub begun: u64,
    /// Spans returned to the page heap.
    pub died: u64,
    /// Requests for which unlisted spans were searched.
    pub last_resorts: u64,
    /// Exchanges that another thread made fail.
    pub retries: u64,
}

impl<O: Os> Spans<O> {
    const_fn! {
        /// No spans yet.
        pub fn new(pages: PageHeap<O, SpanTable>) -> Self {
            Self {
                pages,
                rest: shed::Rest::new(),
                survey: survey::Survey::new(),
                counters: CachePadded::new(Counters {
                    begun: AtomicU64::new(0),
                    died: AtomicU64::new(0),
                    last_resorts: AtomicU64::new(0),
                    retries: Tally::new(),
                }),
            }
        }
    }

    /// The floor below.
    pub fn pages(&self) -> &PageHeap<O, SpanTable> {
        &self.pages
    }

    /// What was counted.
    pub fn counts(&self) -> SpanCounts {
        SpanCounts {
            begun: self.counters.begun.load(Relaxed),
            died: self.counters.died.load(Relaxed),
            last_resorts: self.counters.last_resorts.load(Relaxed),
            retries: self.counters.retries.get(),
        }
    }

    /// Checks the books while nobody takes or gives: in every span `live` and the free bits add up
    /// to its objects, no span is owned or empty, and those with free objects are found by their
    /// hints; and the books of the page heap balance. Answers how many objects are not free, or
    /// where the books do not balance.
    pub fn check(&self) -> Result<usize, (Granule, &'static str)> {
        let (mut spans, mut outstanding) = (0, 0);
        for window in self.pages.windows() {
            window.check()?;
            for index in 0..GRANULES_PER_WINDOW {
                let first = Granule(index as u32);
                let Use::Span(class) = window.usage(first) else {
                    continue;
                };
                let shape = class.shape();
                if index % (1 << shape.span_order) != 0 {
                    continue;
                }
                let span = Span { window, first, class };
                let state = span.state(Acquire);
                let free: u32 =
                    span.bits().iter().map(|word| word.load(Acquire).count_ones()).sum();
                let broken = if !state.serves(class) {
                    Some("a class word names no living span")
                } else if state.owned() {
                    Some("a span is owned by nobody")
                } else if state.live() + free != shape.objects {
                    Some("live and free objects do not add up")
                } else if state.live() == 0 {
                    Some("an empty span is not returned")
                } else if !state.listed() && free >= worth_listing(shape.objects) {
                    Some("free objects are not listed")
                } else if state.listed() && !span.hints().contains(index) {
                    Some("no hint names a listed span")
                } else {
                    None
                };
                if let Some(broken) = broken {
                    return Err((first, broken));
                }
                spans += 1;
                outstanding += state.live() as usize;
            }
        }
        let counts = self.counts();
        if counts.begun - counts.died != spans {
            return Err((Granule(0), "spans begun and died do not add up"));
        }
        Ok(outstanding)
    }

    // ---- take ----
    //
    // Caches hand out from the end, and the hardware likes addresses that rise: so the lowest object
    // goes to the end of `out`, and the rest before it.

    /// From spans that hints name.
    fn take_hinted(&self, class: Class, out: &mut [*mut u8]) -> usize {
        let mut got = 0;
        for window in self.pages.windows() {
            let hints = window.above.hints(class);
            let mut from = 0;
            while got < out.len()
                && let Some(index) = hints.first(from)
            {
                let span = Span { window, first: Granule(index as u32), class };
                match self.own(span, false) {
                    Owning::Mine => {
                        let drawn = self.draw(span, before(out, got));
                        self.let_go(span);
                        if seed::on(Seed::LiveRisesLate) {
                            span.word().fetch_add(drawn as u64, Relaxed);
                        }
                        got += drawn;
                    }
                    Owning::Busy => {}
                    Owning::Nothing => hints.remove(index, || {
                        let state = span.state(Acquire);
                        state.serves(class) && state.listed()
                    }),
                }
                from = index + 1;
            }
            if got == out.len() {
                break;
            }
        }
        got
    }

    /// From a span that begins now.
    fn take_new(&self, class: Class, out: &mut [*mut u8]) -> usize {
        let shape = class.shape();
        let granules = 1 << shape.span_order;
        let grain = if class.size() <= DENSE { Grain::Fine } else { Grain::Sparse };
        let Some(run) = self.pages.take_for(grain, shape.span_order, granules) else {
            return 0;
        };
        run.window.set_usage(run.first, granules, Use::Span(class));
        let span = Span { window: run.window, first: run.first, class };
        let start = span.start();
        let taken = out.len().min(shape.objects as usize);
        for (i, slot) in out.iter_mut().rev().take(taken).enumerate() {
            *slot = span.object(start, i as u32);
        }
        for (i, word) in span.bits().iter().enumerate() {
            let objects = from_bit(i, shape.objects as usize);
            word.store(objects & !from_bit(i, taken), Relaxed);
        }
        let listed = taken < shape.objects as usize;
        let state = span.state(Relaxed).begin(class, taken as u32, listed);
        span.word().store(state.0, seed::weaken(Seed::BeginRelaxed, Release));
        if listed {
            span.hints().insert(span.first.index());
        }
        self.counters.begun.fetch_add(1, Relaxed);
        taken
    }

    /// The last resort before the answer is no: every span of the class, listed or not.
    #[cold]
    fn take_unlisted(&self, class: Class, out: &mut [*mut u8]) -> usize {
        self.counters.last_resorts.fetch_add(1, Relaxed);
        let granules = 1 << class.shape().span_order;
        let mut got = 0;
        for window in self.pages.windows() {
            for index in (0..GRANULES_PER_WINDOW).step_by(granules) {
                let span = Span { window, first: Granule(index as u32), class };
                if got < out.len()
                    && window.usage(span.first) == Use::Span(class)
                    && matches!(self.own(span, true), Owning::Mine)
                {
                    // Owning listed it, and whoever gives to a listed span leaves the hint alone.
                    if !seed::on(Seed::ListUnhinted) {
                        span.hints().insert(index);
                    }
                    got += self.draw(span, before(out, got));
                    self.let_go(span);
                }
            }
        }
        got
    }

    fn own(&self, span: Span<'_>, unlisted_too: bool) -> Owning {
        let mut state = span.state(Relaxed);
        loop {
            let owned = match state.offer(span.class, unlisted_too) {
                Offer::Own(owned) => owned,
                Offer::Busy => return Owning::Busy,
                Offer::None => return Owning::Nothing,
            };
            let success = seed::weaken(Seed::OwnRelaxed, Acquire);
            match span.word().compare_exchange_weak(state.0, owned.0, success, Relaxed) {
                Ok(_) => return Owning::Mine,
                Err(now) => {
                    self.counters.retries.note();
                    state = State(now);
                }
            }
        }
    }

    /// Takes free objects of a span the caller owns, lowest first, into `out` from its end.
    fn draw(&self, span: Span<'_>, out: &mut [*mut u8]) -> usize {
        let start = span.start();
        let mut got = 0;
        for (i, word) in span.bits().iter().enumerate() {
            let free = word.load(Relaxed);
            if free == 0 {
                continue;
            }
            // Names first, bits then: a forked child, in which this thread is no more, finds them.
            let mut left = free;
            for slot in before(out, got).iter_mut().rev() {
                *slot = span.object(start, i as u32 * 64 + left.trailing_zeros());
                got += 1;
                left &= left - 1;
                if left == 0 {
                    break;
                }
            }
            let taken = free & !left;
            // Only the owner clears bits, so all of them are still set.
            word.fetch_and(!taken, Acquire);
            if got == out.len() {
                break;
            }
        }
        if !seed::on(Seed::LiveRisesLate) {
            span.word().fetch_add(got as u64, Relaxed);
        }
        got
    }

    /// The owner is done: to the page heap if everything came home, unlisted if full, listed
    /// otherwise. Any give in between changes the word, fails the exchange and is seen.
    fn let_go(&self, span: Span<'_>) {
        let acquire = seed::weaken(Seed::LetGoRelaxed, Acquire);
        let mut state = span.state(acquire);
        loop {
            let empty = state.live() == 0;
            let full = !empty && span.bits().iter().all(|word| word.load(Relaxed) == 0);
            let next = if empty {
                state.died()
            } else if full {
                state.released_full()
            } else {
                state.released()
            };
            match span.word().compare_exchange_weak(state.0, next.0, AcqRel, acquire) {
                Ok(_) if empty => return self.bury(span),
                Ok(_) if full => {
                    return span.hints().remove(span.first.index(), || {
                        let state = span.state(Acquire);
                        state.serves(span.class) && state.listed()
                    });
                }
                Ok(_) => return,
                Err(now) => {
                    self.counters.retries.note();
                    state = State(now);
                }
            }
        }
    }

    // ---- give ----

    /// Gives the objects in `mask` of one word of a span back to it; `word` is one of its words.
    #[inline]
    fn set_bits(&self, span: Span<'_>, bits: &[sync::AtomicU64], word: usize, mask: u64) {
        let order = seed::weaken(Seed::BitsRelaxed, Release);
        let old = bits[word].fetch_or(mask, order);
        if old & mask != 0 {
            let index = word as u32 * 64 + (old & mask).trailing_zeros();
            death::double_free(span.object(span.start(), index).addr());
        }
    }

    /// `count` bits of the span were set: they are not live any more, which may end the span or make
    /// it worth listing.
    fn settle(&self, span: Span<'_>, count: usize) {
        let order = seed::weaken(Seed::SettleRelaxed, Release);
        let before = span.word().fetch_sub(count as u64, order);
        let mut state = State(before - count as u64);
        let generation = state.generation();
        let shape = span.class.shape();
        loop {
            if state.generation() != generation || state.dead() {
                return;
            }
            if state.live() == 0 {
                // An owner sees the zero itself when it lets go.
                if state.owned() && !seed::on(Seed::ReapOwned) {
                    return;
                }
                // Acquire: the word may have come back to this value through a take and a give
                // that this thread knows nothing of, and their user's writes end here too.
                let acquire = seed::weaken(Seed::DieRelaxed, Acquire);
                match span.word().compare_exchange_weak(state.0, state.died().0, acquire, Relaxed) {
                    Ok(_) => return self.bury(span),
                    Err(_) if seed::on(Seed::ReapTwice) => return self.bury(span),
                    Err(now) => {
                        self.counters.retries.note();
                        state = State(now);
                    }
                }
            } else if !state.listed()
                // `live` may exceed the objects for a moment: a bit that was just set was taken
                // before its giver got here.
                && state.live() + worth_listing(shape.objects) <= shape.objects
            {
                let listed = state.with_listing();
                // Relaxed: the givers have released their bits, and exchanges pass that on.
                match span.word().compare_exchange_weak(state.0, listed.0, Relaxed, Relaxed) {
                    Ok(_) => return span.hints().insert(span.first.index()),
                    Err(now) => {
                        self.counters.retries.note();
                        state = State(now);
                    }
                }
            } else {
                return;
            }
        }
    }

    /// The winner of a span's death returns its granules.
    fn bury(&self, span: Span<'_>) {
        let granules = 1 << span.class.shape().span_order;
        self.counters.died.fetch_add(1, Relaxed);
        span.window.set_usage(span.first, granules, Use::None);
        self.pages.give(span.window, span.first, granules);
    }

    /// The window of an object that comes home; `None` if it had a mapping of its own, which is gone
    /// now. Dies if it is none of ours, or not of this class.
    #[inline]
    fn home(&self, class: Class, object: *mut u8) -> Option<&Window<SpanTable>> {
        let addr = object.addr();
        match self.pages.find(addr) {
            Some(window) if window.serves(Granule::of(addr), class) => Some(window),
            _ => {
                self.give_stray(object);
                None
            }
        }
    }

    /// What is no object of a span of this class.
    #[cold]
    #[inline(never)]
    fn give_stray(&self, object: *mut u8) {
        let addr = object.addr();
        let Some(window) = self.pages.find(addr) else { self.pages.not_a_block(addr) };
        match window.usage(Granule::of(addr)) {
            Use::Mapping => {
                // From `PageHeap::large_alloc_apart`, which may stand in for objects.
                let shortest = self.os().page_size().max(GRANULE);
                match (self.pages.large_at(addr), NonNull::new(object)) {
                    (Some((usage, bytes)), Some(at)) if bytes == shortest => {
                        // SAFETY: who gives the object gives up all of its block.
                        unsafe { self.pages.large_free_found(at, usage, bytes) };
                    }
                    _ => death::wrong_class(addr),
                }
            }
            Use::Span(_) | Use::Large => death::wrong_class(addr),
            Use::None => self.pages.not_a_block(addr),
        }
    }
}

/// How owning a span went.
#[must_use]
enum Owning {
    Mine,
    Busy,
    Nothing,
}

impl<O: Os> Objects for Spans<O> {
    type System = O;

    fn os(&self) -> &O {
        self.pages.os()
    }

    fn take(&self, class: Class, out: &mut [*mut u8]) -> usize {
        let mut got = self.take_hinted(class, out);
        while got < out.len() {
            match self.take_new(class, before(out, got)) {
                0 => break,
                more => got += more,
            }
        }
        if got == 0 && !out.is_empty() {
            got = self.take_unlisted(class, out);
        }
        if got < out.len() {
            out.copy_within(out.len() - got.., 0);
        }
        got
    }

    fn tick(&self) {
        let now = self.os().now_ms();
        self.pages.tick(now);
        self.shed_at_rest(now);
        self.survey(now);
    }

    fn pressed(&self) -> bool {
        self.pages.pressed()
    }

    fn growth(&self) -> u64 {
        self.pages.fresh()
    }

    fn is_thin(&self, class: Class) -> bool {
        self.survey.is_thin(class)
    }

    fn give(&self, class: Class, objects: &mut [*mut u8]) {
        if worth_sorting(class, objects) {
            objects.sort_unstable();
        }
        self.give_neighbours(class, objects);
    }

    fn give_neighbours(&self, class: Class, objects: &mut [*mut u8]) {
        let (size, shape, span_bytes) = (class.size(), class.shape(), class.span_bytes());
        let mut rest = &*objects;
        while let Some(&first) = rest.first() {
            let Some(window) = self.home(class, first) else {
                rest = &rest[1..];
                continue;
            };
            let span = Span::at(window, first.addr(), class);
            let (start, bits) = (span.start(), span.bits());
            if seed::on(Seed::LiveFallsFirst) {
                let here = |object: &&*mut u8| object.addr().wrapping_sub(start) < span_bytes;
                self.settle(span, rest.iter().take_while(here).count());
            }
            let (mut here, mut word, mut mask) = (0, 0, 0);
            for object in rest {
                let offset = object.addr().wrapping_sub(start);
                if offset >= span_bytes {
                    break;
                }
                let index = shape.index_of(offset);
                // Behind the last object a span may have room that is none.
                if index as usize * size != offset || index >= shape.objects {
                    death::invalid_free(object.addr());
                }
                let (its, bit) = (index as usize / 64, 1 << (index % 64));
                if its != word {
                    if mask != 0 {
                        self.set_bits(span, bits, word, mask);
                    }
                    (word, mask) = (its, 0);
                }
                if mask & bit != 0 {
                    death::double_free(object.addr());
                }
                mask |= bit;
                here += 1;
            }
            self.set_bits(span, bits, word, mask);
            if !seed::on(Seed::LiveFallsFirst) {
                self.settle(span, here);
            }
            rest = &rest[here..];
        }
    }
}

/// What is left of `out` when its last `got` slots are filled.
fn before(out: &mut [*mut u8], got: usize) -> &mut [*mut u8] {
    let left = out.len() - got;
    &mut out[..left]
}

/// Objects up to this size, a small page, leave no page of a span in use untouched.
const DENSE: usize = 4096;

/// A span with this much free is worth a search; less would list and unlist it for every object.
const fn worth_listing(objects: u32) -> u32 {
    if objects >= 16 { objects / 8 } else { 1 }
}

/// The bits of word number `word` that stand for indices below `count`.
const fn from_bit(word: usize, count: usize) -> u64 {
    let here = count.saturating_sub(word * 64);
    if here >= 64 { u64::MAX } else { (1 << here) - 1 }
}
