//! M6: a window is published while others look for it. `src/page/map.rs`, and growth in
//! `src/page/heap.rs` on a system that gives less than a window at a time, so that two threads map
//! parts of one window.
#![cfg(spandrel_model)]

use loom_tests::floors::Heap;
use loom_tests::{Model, red};
use spandrel::base::classes::Use;
use spandrel::base::units::{GRANULE, Granule, MAX_ORDER, WINDOW};
use std::ptr::{self, NonNull};

/// Takes a granule. Answers that it is one.
fn take(heap: &Heap) -> u64 {
    heap.take(0, 1).map_or(0, |(_, count)| count as u64)
}

/// Looks windows up by address and by the list, and reads what was written before they were
/// published.
fn look(heap: &Heap) -> u64 {
    let found = heap.pages.find(WINDOW);
    assert!(found.is_none_or(|window| window.base() == WINDOW), "a window that is not complete");
    assert!(heap.pages.windows().all(|w| w.base() >= WINDOW), "a window that is not complete");
    2 * u64::from(found.is_some())
}

/// Granules that were taken; every thread that got one asked the system at most once.
fn taken(answers: &[u64]) -> u64 {
    answers.iter().filter(|answer| **answer == 1).sum()
}

static PUBLISH: Model<Heap, u64, (usize, u64)> = Model {
    name: "M6 publish",
    setup: || Heap::fresh(false),
    threads: &[("take", take), ("take", take)],
    crowd: &[("take", take), ("look", look), ("take", take), ("take", take), ("look", look)],
    outcome: |heap, answers| {
        let grows = heap.pages.counts().grows;
        let windows = heap.pages.windows().count();
        assert!(grows <= taken(answers), "the system was asked for too often: {grows}");
        heap.close();
        (windows, grows)
    },
    expected: &[(1, 1), (1, 2)],
    bound: Some(2),
    long: Some(3),
    schedules: 20_000,
};

#[test]
fn one_window_is_published_once() {
    PUBLISH.holds();
}

red!(red_when_a_window_found_is_not_listed: PUBLISH, NotListed, "asked for too often");
red!(red_when_published_by_a_store: PUBLISH, PublishByStore,
    "two windows hold one address" | "do not balance" | "double free");
#[cfg(spandrel_loom)]
red!(red_when_publishing_does_not_release: PUBLISH, PublishRelaxed, "Causality violation");

static LOOK: Model<Heap, u64, bool> = Model {
    name: "M6 look up",
    setup: || Heap::fresh(false),
    threads: &[("take", take), ("look", look)],
    crowd: PUBLISH.crowd,
    outcome: |heap, answers| {
        heap.close();
        answers.contains(&2)
    },
    expected: &[false, true],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn who_finds_a_window_sees_all_of_it() {
    LOOK.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_listing_does_not_release: LOOK, ListRelaxed, "Causality violation");
#[cfg(spandrel_loom)]
red!(red_when_finding_does_not_acquire: LOOK, FindRelaxed, "Causality violation");

// ---- blocks with a mapping of their own ----

/// Too long for granules.
const LONG: usize = (GRANULE << MAX_ORDER) + 1;

/// Gets a block with a mapping of its own. Answers where.
fn map(heap: &Heap) -> u64 {
    heap.pages.large_alloc(LONG, 8, false).map_or(0, |at| at.addr().get() as u64)
}

static RECORD: Model<Heap, u64, (usize, u64)> = Model {
    name: "M6 record",
    setup: || Heap::fresh(false),
    threads: &[("map", map), ("take", take)],
    crowd: &[("map", map), ("take", take), ("take", take), ("look", look)],
    outcome: |heap, answers| {
        let listed = heap.pages.windows().count();
        let grows = heap.pages.counts().grows;
        assert!(grows <= taken(answers), "the system was asked for too often: {grows}");
        for at in answers.iter().filter(|&&answer| answer >= WINDOW as u64) {
            let at = NonNull::new(ptr::with_exposed_provenance_mut(*at as usize)).unwrap();
            assert!(heap.pages.large_at(at.addr().get()).is_some(), "a record is lost");
            // SAFETY: the block is in nobody's hands but these.
            unsafe { heap.pages.large_free(at, LONG, 8) };
        }
        heap.close();
        let others = answers.iter().filter(|&&answer| answer >= WINDOW as u64);
        (listed, others.map(|at| at / WINDOW as u64).sum())
    },
    // One window has granules; the mapping begins in it, or before it.
    expected: &[(1, 1)],
    bound: Some(2),
    long: Some(3),
    schedules: 20_000,
};

#[test]
fn a_mapping_leaves_a_record_beside_what_grows() {
    RECORD.holds();
}

red!(red_when_a_window_of_records_is_stored: RECORD, PublishByStore,
    "a record is lost" | "two windows hold one address" | "do not balance" | "double free");

/// A block that main got, for everybody to give back.
fn give_up(heap: &Heap) -> u64 {
    let window = heap.pages.find(WINDOW).unwrap();
    u64::from(window.unmark(Granule(0), Use::Mapping))
}

static FORGET: Model<Heap, u64, u64> = Model {
    name: "M6 forget",
    setup: || {
        let heap = Heap::fresh(false);
        assert_eq!(map(&heap), WINDOW as u64);
        heap
    },
    threads: &[("give up", give_up), ("give up", give_up)],
    crowd: &[("give up", give_up), ("give up", give_up), ("give up", give_up)],
    outcome: |_, answers| {
        let won = answers.iter().sum();
        assert_eq!(won, 1, "one block was taken back more than once");
        won
    },
    expected: &[1],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn a_block_is_taken_back_once() {
    FORGET.holds();
}

red!(red_when_a_mark_is_stored: FORGET, UnmarkByStore, "more than once");
