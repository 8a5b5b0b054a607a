//! M7: memory is released while others allocate. `src/page/purge.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Heap;
use loom_tests::{Model, red};
use spandrel::base::options::HugepagePolicy;
use spandrel::base::units::{GRANULE, WINDOW};

type Answer = Result<Option<usize>, usize>;

/// Releases whatever is whole, free and dirty. The system checks that it is in nobody's hands.
fn purge(heap: &Heap) -> Answer {
    Err(heap.pages.purge(|_, _| true) / GRANULE)
}

/// Takes, uses and gives back, so that there is something to release again.
fn turn(heap: &Heap, order: u32, count: usize) -> Answer {
    let run = heap.hold(order, count);
    if let Some(run) = run {
        heap.give_back(run);
    }
    Ok(run.map(|(addr, _)| (addr - WINDOW) / GRANULE))
}

/// Takes and keeps.
fn take(heap: &Heap) -> Answer {
    Ok(heap.take(0, 1).map(|(first, _)| first))
}

/// How many granules that were used were released, and which granule the last role got.
fn close(heap: &Heap, answers: &[Answer]) -> (usize, Option<usize>) {
    heap.close();
    let released: usize = answers.iter().filter_map(|answer| answer.err()).sum();
    (released, answers.last().and_then(|answer| answer.ok().flatten()))
}

static PURGE: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 purge",
    setup: || Heap::new(&[]),
    threads: &[("purge", purge), ("take", take)],
    crowd: &[
        ("purge", purge),
        ("turn 4", |h| turn(h, 2, 4)),
        ("purge", purge),
        ("turn 1", |h| turn(h, 0, 1)),
        ("take", take),
    ],
    outcome: close,
    expected: &[(0, Some(0)), (1, Some(0)), (1, Some(4))],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn no_page_is_released_that_someone_holds() {
    PURGE.holds();
}

red!(red_when_released_without_a_claim: PURGE, PurgeUnclaimed,
    "two hands" | "known zeros are not zero" | "nobody's hands" | "Causality violation");
red!(red_when_noted_as_zero_too_late: PURGE_AND_USE, CleanseLate, "known zeros are not zero");
#[cfg(spandrel_loom)]
red!(red_when_a_hugepage_is_given_without_release: PURGE, MapRelaxed, "Causality violation");

// ---- two release at once, and what they release is used and freed meanwhile ----

static PURGE_AND_USE: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 purge, use, take",
    setup: || Heap::new(&[]),
    threads: &[("purge", purge), ("use", |h| turn(h, 0, 1))],
    expected: &[(0, Some(0)), (1, Some(0)), (1, Some(4)), (2, Some(4))],
    bound: Some(3),
    ..PURGE
};

#[test]
fn what_is_known_to_be_zero_is() {
    PURGE_AND_USE.holds();
}

// ---- what is free in a hugepage in use ----

/// Releases what is free in hugepages that are in use.
fn purge_parts(heap: &Heap) -> Answer {
    Err(heap.pages.purge_parts(|_| true) / GRANULE)
}

/// A hugepage of which main holds one granule; two others were used.
fn used() -> Heap {
    let heap = Heap::new(&[(0, 1), (0, 1), (0, 1)]);
    heap.give(1);
    heap.give(2);
    heap
}

static PARTS: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 parts",
    setup: used,
    threads: &[("parts", purge_parts), ("take", take)],
    crowd: &[
        ("parts", purge_parts),
        ("turn 2", |h| turn(h, 1, 2)),
        ("purge", purge),
        ("turn 1", |h| turn(h, 0, 1)),
        ("parts", purge_parts),
        ("take", take),
    ],
    outcome: close,
    expected: &[(1, Some(1)), (2, Some(1)), (2, Some(3))],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn no_part_is_released_that_someone_holds() {
    PARTS.holds();
}

red!(red_when_a_part_is_released_without_a_claim: PARTS, PurgeUnclaimed,
    "two hands" | "known zeros are not zero" | "nobody's hands" | "Causality violation");
red!(red_when_more_is_noted_as_zero_than_was_released: PARTS, CleanseMore,
    "known zeros are not zero");

static PARTS_AND_USE: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 parts, use, take",
    threads: &[("parts", purge_parts), ("use", |h| turn(h, 0, 1))],
    expected: &[(1, Some(1)), (2, Some(1)), (2, Some(3))],
    bound: Some(3),
    ..PARTS
};

#[test]
fn what_is_known_to_be_zero_of_a_part_is() {
    PARTS_AND_USE.holds();
}

red!(red_when_a_part_is_noted_as_zero_too_late: PARTS_AND_USE, CleanseLate,
    "known zeros are not zero");

// ---- of a hugepage that is held as one page, what was never used is released too, once ----

/// The same hugepage, for which the system was asked: one of its granules was never used.
fn used_as_one() -> Heap {
    let heap = used();
    heap.pages.policy().set_hugepages(HugepagePolicy::Always);
    heap
}

static BREAK: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 break",
    setup: used_as_one,
    // Released before, it is not there for who comes late, and who finds nothing goes to the next hugepage.
    expected: &[(1, Some(1)), (2, Some(1)), (2, Some(4))],
    bound: Some(3),
    ..PARTS
};

#[test]
fn what_was_never_used_is_released_when_nobody_holds_it() {
    BREAK.holds();
}

red!(red_when_a_hugepage_is_broken_without_a_claim: BREAK, PurgeUnclaimed,
    "two hands" | "known zeros are not zero" | "nobody's hands" | "Causality violation");

static BREAK_AND_USE: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 break, use, take",
    setup: used_as_one,
    // The last: of the next hugepage, too, what was used and is not whole yet.
    expected: &[(1, Some(1)), (2, Some(1)), (2, Some(4)), (3, Some(4))],
    ..PARTS_AND_USE
};

#[test]
fn what_is_known_to_be_zero_of_a_broken_hugepage_is() {
    BREAK_AND_USE.holds();
}

red!(red_when_a_broken_hugepage_is_noted_as_zero_too_late: BREAK_AND_USE, CleanseLate,
    "known zeros are not zero");

// ---- the last granule comes home while the rest is released ----

static PARTS_AND_HOME: Model<Heap, Answer, (usize, Option<usize>)> = Model {
    name: "M7 parts, last home",
    threads: &[
        ("parts", purge_parts),
        ("home", |h| {
            h.give(0);
            Ok(None)
        }),
    ],
    crowd: &[
        ("parts", purge_parts),
        ("home", |h| {
            h.give(0);
            Ok(None)
        }),
        ("purge", purge),
        ("take", take),
    ],
    expected: &[(0, None), (2, None), (3, None)],
    ..PARTS
};

#[test]
fn a_hugepage_is_whole_again_whoever_comes_last() {
    PARTS_AND_HOME.holds();
}
