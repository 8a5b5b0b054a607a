//! M3: hints may lag, but nothing is stranded. `src/base/hints.rs` alone, and under the spans that
//! rely on it.
#![cfg(spandrel_model)]

use loom_tests::floors::Stock;
use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::hints::Hints;
use spandrel::base::sync::AtomicU64;
use spandrel::base::sync::Ordering::{Acquire, Relaxed};

// ---- the set alone: one leaf under one top word, and a truth it is a hint of ----

struct Truth {
    hints: Hints<1, 2>,
    /// Which of the things have something to give: bit 1 and bit 2.
    things: AtomicU64,
}

const ONE: usize = 65;
const OTHER: usize = 66;

/// `ONE` is in the set and has nothing to give.
fn stale() -> Truth {
    let truth = Truth { hints: Hints::new(), things: AtomicU64::new(0) };
    truth.hints.insert(ONE);
    truth
}

/// The same, and `OTHER` in the same leaf has something to give.
fn stale_beside_true() -> Truth {
    let truth = stale();
    set(&truth, OTHER);
    truth
}

/// Makes it true, then sets the hint. Relaxed, so that the hint alone carries the order.
fn set(truth: &Truth, index: usize) -> Option<usize> {
    truth.things.fetch_or(1 << (index - 64), Relaxed);
    truth.hints.insert(index);
    None
}

/// Looks for a thing that has something to give; takes stale members out on the way.
fn search(truth: &Truth) -> Option<usize> {
    let mut from = 0;
    while let Some(index) = truth.hints.first(from) {
        let gives = |order| truth.things.load(order) & (1 << (index - 64)) != 0;
        if gives(Relaxed) {
            return Some(index);
        }
        truth.hints.remove(index, || gives(Acquire));
        from = index + 1;
    }
    None
}

/// What has something to give is in the set, on both levels.
fn nothing_stranded(truth: &Truth, found: &[Option<usize>]) -> Vec<usize> {
    let things = truth.things.load(Acquire);
    for index in [ONE, OTHER] {
        if things & (1 << (index - 64)) != 0 {
            assert!(truth.hints.contains(index), "{index} is stranded");
            assert_eq!(truth.hints.first(index), Some(index), "{index} is not found");
        }
    }
    found.iter().flatten().copied().collect()
}

static SAME: Model<Truth, Option<usize>, bool> = Model {
    name: "M3 hint, same thing",
    setup: stale_beside_true,
    threads: &[("search", search), ("set one", |t| set(t, ONE))],
    crowd: &[
        ("search", search),
        ("set one", |t| set(t, ONE)),
        ("search", search),
        ("set other", |t| set(t, OTHER)),
        ("search", search),
    ],
    outcome: |truth, found| nothing_stranded(truth, found).contains(&ONE),
    expected: &[false, true],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn a_hint_set_while_it_is_cleared_stays() {
    SAME.holds();
}

red!(red_without_the_second_look: SAME, NoHintRecheck, "stranded");
#[cfg(spandrel_loom)]
red!(red_when_insert_does_not_release: SAME, InsertRelaxed, "stranded");
#[cfg(spandrel_loom)]
red!(red_when_remove_does_not_acquire: SAME, RemoveRelaxed, "stranded");

static NEIGHBOUR: Model<Truth, Option<usize>, bool> = Model {
    name: "M3 hint, its neighbour",
    setup: stale,
    threads: &[("search", search), ("set other", |t| set(t, OTHER))],
    outcome: |truth, found| nothing_stranded(truth, found).contains(&OTHER),
    ..SAME
};

static THREE: Model<Truth, Option<usize>, bool> = Model {
    name: "M3 hint, two search",
    setup: stale,
    threads: &[("search", search), ("set other", |t| set(t, OTHER)), ("search", search)],
    outcome: |truth, found| nothing_stranded(truth, found).contains(&OTHER),
    bound: Some(1),
    long: Some(2),
    ..SAME
};

#[test]
fn a_leaf_that_two_retire_while_it_fills_stays() {
    THREE.holds();
}

#[test]
fn a_leaf_that_fills_while_it_is_retired_stays() {
    NEIGHBOUR.holds();
}

red!(red_without_the_second_look_at_the_leaf: NEIGHBOUR, NoTopRecheck, "stranded");
#[cfg(spandrel_loom)]
red!(red_when_retiring_does_not_acquire: NEIGHBOUR, TopRelaxed, "stranded");

// ---- spans: the last free object leaves while another comes home ----

/// Spans of four.
const FOUR: Class = Class::from_index(0);

fn give(stock: &Stock, which: usize) -> usize {
    stock.give(FOUR, &[stock.objects[which]]);
    0
}

fn take(stock: &Stock, count: usize) -> usize {
    stock.take(FOUR, count).len()
}

/// The books balance, in which every listed span has its hint; and a search finds what is free.
fn found(stock: &Stock, _: &[usize]) -> u64 {
    let begun = stock.spans.counts().begun;
    stock.close(FOUR);
    begun
}

static EMPTIED: Model<Stock, usize, u64> = Model {
    name: "M3 emptied and refilled",
    setup: || {
        let stock = Stock::new(FOUR, 4);
        stock.give(FOUR, &stock.objects[..1]);
        stock
    },
    threads: &[("take 2", |s| take(s, 2)), ("give 1", |s| give(s, 1))],
    crowd: &[
        ("take", |s| take(s, 1)),
        ("give 1", |s| give(s, 1)),
        ("take", |s| take(s, 1)),
        ("give 2", |s| give(s, 2)),
    ],
    outcome: found,
    expected: &[1, 2],
    bound: Some(3),
    long: None,
    schedules: 20_000,
};

#[test]
fn a_span_that_was_just_emptied_is_found_again() {
    EMPTIED.holds();
}

red!(red_when_the_span_is_not_looked_at_again: EMPTIED, NoHintRecheck, "no hint names a listed span");
#[cfg(spandrel_loom)]
red!(red_when_letting_go_does_not_acquire: EMPTIED, LetGoRelaxed, "not listed");

// ---- in need: no granule is left, and unlisted spans are searched ----

/// The only granule in use holds a full span, and neither the heap nor the system has another.
fn needy() -> Stock {
    let stock = Stock::new(FOUR, 4);
    stock.starve();
    stock
}

static NEED: Model<Stock, usize, usize> = Model {
    name: "M3 in need",
    setup: needy,
    threads: &[
        ("take", |s| take(s, 1)),
        ("give both", |s| {
            s.give(FOUR, &s.objects[..2]);
            0
        }),
    ],
    crowd: &[
        ("take", |s| take(s, 1)),
        ("give both", |s| {
            s.give(FOUR, &s.objects[..2]);
            0
        }),
        ("take", |s| take(s, 1)),
        ("give 2", |s| give(s, 2)),
    ],
    outcome: |stock, got| {
        stock.sate();
        stock.close(FOUR);
        got.iter().sum()
    },
    expected: &[0, 1],
    bound: Some(3),
    long: None,
    schedules: 20_000,
};

#[test]
fn a_span_that_was_searched_in_need_is_found_again() {
    NEED.holds();
}

red!(red_when_need_lists_without_a_hint: NEED, ListUnhinted, "no hint names a listed span");
