//! M10: pages of free objects are released while others take from the span and give to it.
//! `src/span/shed.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Stock;
use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::units::GRANULE;

/// Two objects in a span, each of two pages.
const TWO: Class = Class::from_index(1);

/// What one thread has to say: the pages it released, or how many objects it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Shed(usize),
    Gave,
    Took(usize),
}

/// Releases what pages hold free objects only. The system checks that they are in nobody's hands.
fn shed(stock: &Stock) -> Answer {
    Answer::Shed(stock.spans.shed() / TWO.size())
}

fn give(stock: &Stock) -> Answer {
    stock.give(TWO, &[stock.objects[0]]);
    Answer::Gave
}

fn take(stock: &Stock) -> Answer {
    Answer::Took(stock.take(TWO, 1).len())
}

/// A span of which one object is free and one is main's.
fn half() -> Stock {
    let stock = Stock::new(TWO, 2);
    assert_eq!(GRANULE / TWO.size(), 2);
    stock.give(TWO, &[stock.objects[1]]);
    stock
}

/// How much was released.
fn outcome(stock: &Stock, answers: &[Answer]) -> usize {
    let got = |answer: &Answer| if let Answer::Took(count) = answer { *count } else { 0 };
    let takes = answers.iter().filter(|answer| matches!(answer, Answer::Took(_))).count();
    assert_eq!(answers.iter().map(got).sum::<usize>(), takes, "there was an object for each");
    stock.close(TWO);
    let released = |answer: &Answer| if let Answer::Shed(count) = answer { *count } else { 0 };
    answers.iter().map(released).sum()
}

static TAKE: Model<Stock, Answer, usize> = Model {
    name: "M10 shed and take",
    setup: half,
    threads: &[("shed", shed), ("take", take)],
    crowd: &[("shed", shed), ("take", take), ("give", give), ("shed", shed), ("take", take)],
    outcome,
    expected: &[0, 1, 2],
    bound: Some(2),
    long: Some(3),
    schedules: 10_000,
};

#[test]
fn no_page_is_released_under_an_object() {
    TAKE.holds();
}

red!(red_when_a_span_is_shed_unowned: TAKE, ShedUnowned,
    "two hands" | "nobody's hands" | "Causality violation");

static GIVE: Model<Stock, Answer, usize> =
    Model { name: "M10 shed and give", threads: &[("shed", shed), ("give", give)], ..TAKE };

#[test]
fn the_last_object_home_while_its_span_is_shed() {
    GIVE.holds();
}

static ONE_HOME: Model<Stock, Answer, usize> = Model {
    name: "M10 shed what comes home",
    setup: || Stock::new(TWO, 2),
    threads: &[("shed", shed), ("give", give)],
    expected: &[0, 1],
    ..TAKE
};

#[test]
fn a_page_is_released_after_its_user() {
    ONE_HOME.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_a_page_is_released_without_acquiring: ONE_HOME, ShedRelaxed, "Causality violation");
