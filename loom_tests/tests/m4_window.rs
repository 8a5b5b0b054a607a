//! M4: granules of a hugepage, and hugepages of a window. `src/page/window/`, `src/page/hugepage.rs`
//! and the choice between them in `src/page/heap.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Heap;
use loom_tests::{Model, red};
use spandrel::base::units::{GRANULE, HUGEPAGE, WINDOW};
use std::ptr::{self, NonNull};

type Run = Option<(usize, usize)>;

/// Which granules are in the threads' hands; then they come home and the books balance.
fn close<const N: usize>(heap: &Heap, runs: &[Run]) -> [Run; N] {
    heap.close();
    std::array::from_fn(|i| runs[i])
}

// ---- the last granule comes home while someone wants one ----

static PROMOTION: Model<Heap, Run, [Run; 2]> = Model {
    name: "M4 promotion",
    setup: || Heap::new(&[(0, 1)]),
    threads: &[("give", |h| h.give(0)), ("take", |h| h.take(0, 1))],
    crowd: &[
        ("give", |h| h.give(0)),
        ("take", |h| h.take(0, 1)),
        ("take", |h| h.take(0, 1)),
        ("take", |h| h.take(1, 2)),
    ],
    outcome: close,
    expected: &[[None, Some((0, 1))], [None, Some((1, 1))], [None, Some((4, 1))]],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn a_whole_hugepage_goes_up() {
    PROMOTION.holds();
}

// ---- the last granule of a hugepage comes home while a block grows into it ----

struct Growing {
    heap: Heap,
    block: usize,
}

impl Growing {
    fn block(&self) -> NonNull<u8> {
        NonNull::new(ptr::with_exposed_provenance_mut(self.block)).unwrap()
    }
}

/// A large block fills the end of the first hugepage; of the second one, one granule is in use.
fn growing() -> Growing {
    let mut heap = Heap::new(&[(1, 2)]);
    let block = heap.pages.large_alloc(2 * GRANULE, 1, false).unwrap().addr().get();
    heap.pages.os().hold(block, 2 * GRANULE);
    let runs = [(); 2].map(|()| heap.pages.take(0, 1).unwrap().address());
    assert_eq!(runs, [0, 1].map(|i| WINDOW + HUGEPAGE + i * GRANULE));
    for run in runs {
        heap.pages.os().hold(run, GRANULE);
    }
    heap.give_back((runs[0], 1));
    heap.runs.push((runs[1], 1));
    Growing { heap, block }
}

/// Grows the block by one granule; whether there was room.
fn grow(growing: &Growing) -> bool {
    let (pages, addr) = (&growing.heap.pages, growing.block);
    // SAFETY: the block is as long as `growing` made it, and only this thread resizes it.
    let grown = unsafe { pages.large_resize(growing.block(), 2 * GRANULE, 3 * GRANULE, 1) };
    if grown.is_some() {
        pages.os().hold(addr + 2 * GRANULE, GRANULE);
    }
    grown.is_some()
}

static GROWTH: Model<Growing, bool, bool> = Model {
    name: "M4 promotion or growth",
    setup: growing,
    threads: &[("give", |g| g.heap.give(1).is_some()), ("grow", grow)],
    crowd: &[
        ("give", |g| g.heap.give(1).is_some()),
        ("grow", grow),
        ("give", |g| g.heap.give(0).is_some()),
        ("take", |g| g.heap.take(0, 1).is_none()),
    ],
    outcome: |g, answers| {
        let grown = answers[1];
        let bytes = if grown { 3 } else { 2 } * GRANULE;
        g.heap.pages.os().release(g.block, bytes);
        // SAFETY: the block is that long, and nobody uses it any more.
        unsafe { g.heap.pages.large_free(g.block(), bytes, 1) };
        g.heap.close();
        grown
    },
    expected: &[false, true],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn a_whole_hugepage_goes_up_or_is_claimed() {
    GROWTH.holds();
}

red!(red_when_promoted_by_a_store: GROWTH, PromoteByStore,
    "two hands" | "do not balance" | "double free");

/// The granule that the block grows into comes home just then.
static GROWN_INTO: Model<Growing, bool, bool> = Model {
    name: "M4 growth into a given one",
    setup: || {
        let mut growing = growing();
        // Change places: the first granule of the second hugepage is in use, the second one free.
        let mut run = growing.heap.runs[1];
        growing.heap.give_back(run);
        run.0 -= GRANULE;
        assert_eq!(growing.heap.hold(0, 1), Some(run));
        growing.heap.runs[1] = run;
        growing
    },
    threads: &[("give", |g| g.heap.give(1).is_some()), ("grow", grow)],
    ..GROWTH
};

#[test]
fn a_block_grows_into_what_was_just_given() {
    GROWN_INTO.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_growing_does_not_acquire: GROWN_INTO, ExtendRelaxed, "Causality violation");

// ---- a granule comes home while someone wants one ----

static GIVEN: Model<Heap, Run, [Run; 2]> = Model {
    name: "M4 given and taken",
    setup: || Heap::new(&[(0, 1), (0, 1), (1, 2)]),
    expected: &[[None, Some((0, 1))], [None, Some((4, 1))]],
    ..PROMOTION
};

#[test]
fn a_granule_changes_hands() {
    GIVEN.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_a_give_does_not_release: GIVEN, GranulesRelaxed, "Causality violation");

// ---- two give the last granules, a third wants the whole ----

static LAST_TWO: Model<Heap, Run, [Run; 3]> = Model {
    name: "M4 last two granules",
    setup: || Heap::new(&[(0, 1), (0, 1)]),
    threads: &[("give 0", |h| h.give(0)), ("give 1", |h| h.give(1)), ("take 2", |h| h.take(1, 2))],
    crowd: &[
        ("give 0", |h| h.give(0)),
        ("take 2", |h| h.take(1, 2)),
        ("give 1", |h| h.give(1)),
        ("take 4", |h| h.take(2, 4)),
        ("take", |h| h.take(0, 1)),
    ],
    outcome: close,
    expected: &[[None, None, Some((0, 2))], [None, None, Some((2, 2))], [None, None, Some((4, 2))]],
    bound: Some(2),
    long: Some(3),
    schedules: 20_000,
};

#[test]
fn one_of_two_givers_promotes() {
    LAST_TWO.holds();
}

/// Goes by no hint, so that only the promotion passes on what the two givers wrote.
static WHOLE: Model<Heap, Run, [Run; 3]> = Model {
    name: "M4 the whole of it",
    threads: &[("give 0", |h| h.give(0)), ("give 1", |h| h.give(1)), ("take 4", |h| h.take(2, 4))],
    expected: &[[None, None, Some((0, 4))], [None, None, Some((4, 4))]],
    ..LAST_TWO
};

#[test]
fn who_takes_it_whole_comes_after_all_givers() {
    WHOLE.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_promotion_does_not_acquire: WHOLE, PromoteRelaxed, "Causality violation");

// ---- runs are split for two at once ----

static SPLIT: Model<Heap, Run, [Run; 2]> = Model {
    name: "M4 split",
    setup: || Heap::new(&[(1, 2)]),
    threads: &[("take 2", |h| h.take(1, 2)), ("take", |h| h.take(0, 1))],
    crowd: &[
        ("take 2", |h| h.take(1, 2)),
        ("take", |h| h.take(0, 1)),
        ("take 3", |h| h.take(2, 3)),
        ("give", |h| h.give(0)),
    ],
    outcome: close,
    expected: &[[Some((2, 2)), Some((4, 1))], [Some((4, 2)), Some((2, 1))]],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn runs_never_overlap() {
    SPLIT.holds();
}

red!(red_when_claimed_by_a_store: SPLIT, ClaimByStore, "two hands" | "do not balance" | "double free");

// ---- a whole hugepage is cut for two at once ----

static CUT: Model<Heap, Run, [Run; 2]> = Model {
    name: "M4 cut",
    setup: || Heap::new(&[]),
    threads: &[("take 3", |h| h.take(2, 3)), ("take", |h| h.take(0, 1))],
    crowd: &[
        ("take 3", |h| h.take(2, 3)),
        ("take", |h| h.take(0, 1)),
        ("take", |h| h.take(0, 1)),
        ("take 2", |h| h.take(1, 2)),
    ],
    expected: &[
        [Some((0, 3)), Some((3, 1))],
        [Some((0, 3)), Some((4, 1))],
        [Some((4, 3)), Some((0, 1))],
    ],
    bound: Some(3),
    ..SPLIT
};

#[test]
fn unused_tails_serve_others() {
    CUT.holds();
}
