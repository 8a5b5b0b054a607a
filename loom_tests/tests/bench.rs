//! The bench itself: it says no when a bug shows nowhere, when it shows as something else, and when
//! an interleaving that matters was not among those explored.
#![cfg(spandrel_model)]

use loom_tests::Model;
use spandrel::base::hints::Hints;
use spandrel::base::seed::Seed;

type Set = Hints<1, 1>;

fn insert(set: &Set) -> Option<usize> {
    set.insert(3);
    None
}

fn first(set: &Set) -> Option<usize> {
    set.first(0)
}

static MODEL: Model<Set, Option<usize>, Option<usize>> = Model {
    name: "bench",
    setup: Set::new,
    threads: &[("insert", insert), ("first", first)],
    crowd: &[("insert", insert), ("first", first), ("insert", insert)],
    outcome: |_, answers| answers[1],
    expected: &[None, Some(3)],
    bound: None,
    long: None,
    schedules: 1_000,
};

#[test]
fn both_outcomes_are_seen() {
    MODEL.holds();
}

#[test]
#[cfg(spandrel_loom)]
#[should_panic(expected = "other outcomes than expected")]
fn an_outcome_that_was_not_seen_is_missed() {
    static HOPE: Model<Set, Option<usize>, Option<usize>> =
        Model { name: "bench, outcome missed", expected: &[None, Some(3), Some(4)], ..MODEL };
    HOPE.holds();
}

#[test]
#[should_panic(expected = "no interleaving shows FrozenTag")]
fn a_bug_that_shows_nowhere_is_not_red() {
    MODEL.goes_red("a_bug_that_shows_nowhere_is_not_red", Seed::FrozenTag, &["anything"]);
}

#[test]
#[should_panic(expected = "broke something else than expected")]
fn a_bug_that_shows_as_something_else_is_not_red() {
    static BREAKS: Model<Set, Option<usize>, Option<usize>> =
        Model { name: "bench, other break", outcome: |_, _| panic!("broken"), ..MODEL };
    let test = "a_bug_that_shows_as_something_else_is_not_red";
    BREAKS.goes_red(test, Seed::FrozenTag, &["stranded"]);
}
