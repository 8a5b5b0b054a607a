//! M2: give, take, letting go and the end of one span. `src/span/mod.rs`, `src/span/state.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Stock;
use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::units::{GRANULE, WINDOW};
use spandrel::span::Objects;

/// Spans of two objects.
const TWO: Class = Class::from_index(1);
/// Spans of four.
const FOUR: Class = Class::from_index(0);

type Held = Vec<usize>;
/// Up to three places, each a granule and an object in it.
type Places = [Option<(usize, usize)>; 3];

fn give(stock: &Stock, class: Class, which: usize) -> Held {
    stock.give(class, &[stock.objects[which]]);
    Vec::new()
}

/// Where an object lies: the number of its granule, and of itself in there.
fn place(class: Class, objects: &[usize]) -> Places {
    let at = |i| {
        let offset = objects.get(i)? - WINDOW;
        Some((offset / GRANULE, offset % GRANULE / class.size()))
    };
    [at(0), at(1), at(2)]
}

// ---- both objects of a span come home while someone wants one ----

static LAST_HOME: Model<Stock, Held, (u64, Places)> = Model {
    name: "M2 last object home",
    setup: || Stock::new(TWO, 2),
    threads: &[
        ("give 0", |s| give(s, TWO, 0)),
        ("give 1", |s| give(s, TWO, 1)),
        ("take", |s| s.take(TWO, 1)),
    ],
    crowd: &[
        ("give 0", |s| give(s, TWO, 0)),
        ("take", |s| s.take(TWO, 1)),
        ("give 1", |s| give(s, TWO, 1)),
        ("take", |s| s.take(TWO, 1)),
        ("take", |s| s.take(TWO, 1)),
    ],
    outcome: |stock, answers| {
        let begun = stock.spans.counts().begun;
        stock.close(TWO);
        (begun, place(TWO, &answers.concat()))
    },
    expected: &[
        (1, [Some((0, 0)), None, None]),
        (1, [Some((0, 1)), None, None]),
        (2, [Some((0, 0)), None, None]),
        (2, [Some((1, 0)), None, None]),
        (2, [Some((4, 0)), None, None]),
    ],
    bound: Some(2),
    long: Some(3),
    schedules: 10_000,
};

#[test]
fn the_last_object_home_ends_the_span_once() {
    LAST_HOME.holds();
}

red!(red_when_live_falls_before_the_bit_is_set: LAST_HOME, LiveFallsFirst,
    "do not add up" | "two hands" | "double free");
red!(red_when_an_owned_span_is_reaped: LAST_HOME, ReapOwned, "do not balance" | "two hands");
#[cfg(spandrel_loom)]
red!(red_when_the_reaper_does_not_acquire: LAST_HOME, SettleRelaxed, "Causality violation" | "not listed");

// ---- an object comes home to a listed span that is just being emptied ----

/// Two of four are out, two are free.
fn half() -> Stock {
    let stock = Stock::new(FOUR, 4);
    stock.give(FOUR, &stock.objects[..2]);
    stock
}

static HOME_WHILE_OWNED: Model<Stock, Held, Places> = Model {
    name: "M2 home while owned",
    setup: half,
    threads: &[("give 2", |s| give(s, FOUR, 2)), ("take 3", |s| s.take(FOUR, 3))],
    crowd: &[
        ("give 2", |s| give(s, FOUR, 2)),
        ("take 3", |s| s.take(FOUR, 3)),
        ("give 3", |s| give(s, FOUR, 3)),
        ("take 3", |s| s.take(FOUR, 3)),
    ],
    outcome: |stock, answers| {
        stock.close(FOUR);
        place(FOUR, &answers.concat())
    },
    expected: &[
        [Some((0, 0)), Some((0, 1)), Some((0, 2))],
        [Some((0, 0)), Some((0, 1)), Some((1, 0))],
    ],
    bound: Some(3),
    long: None,
    schedules: 10_000,
};

#[test]
fn an_object_comes_home_to_a_span_in_use() {
    HOME_WHILE_OWNED.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_bits_do_not_release: HOME_WHILE_OWNED, BitsRelaxed, "Causality violation");

// ---- two want what one span has ----

static TWO_OWNERS: Model<Stock, Held, Places> = Model {
    name: "M2 two owners",
    setup: half,
    threads: &[("take", |s| s.take(FOUR, 1)), ("take", |s| s.take(FOUR, 1))],
    crowd: &[
        ("take", |s| s.take(FOUR, 1)),
        ("give 2", |s| give(s, FOUR, 2)),
        ("take", |s| s.take(FOUR, 1)),
        ("take", |s| s.take(FOUR, 1)),
    ],
    outcome: |stock, answers| {
        stock.close(FOUR);
        place(FOUR, &answers.concat())
    },
    expected: &[
        [Some((0, 0)), Some((0, 1)), None],
        [Some((0, 0)), Some((1, 0)), None],
        [Some((0, 1)), Some((0, 0)), None],
        [Some((1, 0)), Some((0, 0)), None],
    ],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn no_object_is_taken_twice() {
    TWO_OWNERS.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_owning_does_not_acquire: TWO_OWNERS, OwnRelaxed, "two hands");

// ---- the last live object comes home while the free one leaves ----

static LEAVING: Model<Stock, Held, Places> = Model {
    name: "M2 one leaves, one comes",
    setup: one_home,
    threads: &[("give 1", |s| give(s, TWO, 1)), ("take", |s| s.take(TWO, 1))],
    crowd: &[
        ("give 1", |s| give(s, TWO, 1)),
        ("take", |s| s.take(TWO, 1)),
        ("take", |s| s.take(TWO, 1)),
        ("take", |s| s.take(TWO, 1)),
    ],
    outcome: |stock, answers| {
        stock.close(TWO);
        place(TWO, &answers.concat())
    },
    expected: &[[Some((0, 0)), None, None], [Some((1, 0)), None, None], [Some((4, 0)), None, None]],
    bound: Some(3),
    long: None,
    schedules: 10_000,
};

#[test]
fn a_span_someone_takes_from_lives() {
    LEAVING.holds();
}

red!(red_when_live_rises_late: LEAVING, LiveRisesLate, "do not balance" | "two hands");

// ---- a span begins, and someone else takes from it at once ----

static BEGIN: Model<Stock, Held, Places> = Model {
    name: "M2 begin",
    // A span was here before and left its bits.
    setup: || {
        let stock = Stock::new(FOUR, 4);
        stock.give(FOUR, &stock.objects);
        stock
    },
    threads: &[("take", |s| s.take(FOUR, 1)), ("take", |s| s.take(FOUR, 1))],
    crowd: &[
        ("take", |s| s.take(FOUR, 1)),
        ("take", |s| s.take(FOUR, 1)),
        ("take 3", |s| s.take(FOUR, 3)),
        ("take", |s| s.take(FOUR, 1)),
    ],
    outcome: |stock, answers| {
        stock.close(FOUR);
        place(FOUR, &answers.concat())
    },
    expected: &[
        [Some((0, 0)), Some((0, 1)), None],
        [Some((0, 0)), Some((1, 0)), None],
        [Some((0, 0)), Some((4, 0)), None],
        [Some((0, 1)), Some((0, 0)), None],
        [Some((1, 0)), Some((0, 0)), None],
        [Some((4, 0)), Some((0, 0)), None],
    ],
    bound: Some(2),
    long: Some(3),
    schedules: 10_000,
};

#[test]
fn a_span_that_begins_is_taken_from() {
    BEGIN.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_beginning_does_not_release: BEGIN, BeginRelaxed, "two hands");

// ---- a span's word comes back to a value it had before ----

fn one_home() -> Stock {
    let stock = Stock::new(TWO, 2);
    stock.give(TWO, &stock.objects[..1]);
    stock
}

/// Gives the last object, and uses a granule: perhaps that of the span.
fn give_and_reuse(stock: &Stock) -> Held {
    stock.give(TWO, &stock.objects[1..]);
    let (pages, os) = (stock.spans.pages(), stock.spans.os());
    let Some(run) = pages.take(0, 1) else {
        return Vec::new();
    };
    os.hold(run.address(), GRANULE);
    os.release(run.address(), GRANULE);
    let used = run.address();
    pages.give(run.window, run.first, 1);
    vec![used]
}

/// Takes and gives, and leaves the word as it found it.
fn take_and_give(stock: &Stock) -> Held {
    let got = stock.take(TWO, 1);
    stock.give(TWO, &got);
    Vec::new()
}

static AGAIN: Model<Stock, Held, Places> = Model {
    name: "M2 the same word again",
    // No other granule is to be had: that keeps the model small.
    setup: || {
        let stock = one_home();
        stock.starve();
        stock
    },
    threads: &[("give, reuse", give_and_reuse), ("take, give", take_and_give)],
    crowd: &[
        ("give, reuse", give_and_reuse),
        ("take, give", take_and_give),
        ("take, give", take_and_give),
        ("take, give", take_and_give),
    ],
    outcome: |stock, answers| {
        stock.sate();
        stock.close(TWO);
        place(TWO, &answers.concat())
    },
    expected: &[[None, None, None], [Some((0, 0)), None, None]],
    bound: Some(2),
    long: Some(2),
    schedules: 10_000,
};

#[test]
fn who_ends_a_span_comes_after_all_its_users() {
    AGAIN.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_dying_does_not_acquire: AGAIN, DieRelaxed, "Causality violation");
