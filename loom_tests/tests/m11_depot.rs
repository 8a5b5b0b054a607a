//! M11: one stack, one number, and a number that leads to its stack. `src/watch/stacks/depot.rs`.
#![cfg(spandrel_model)]

use loom_tests::{Model, red};
use spandrel::os::fake::Fake;
use spandrel::watch::stacks::depot::Depot;

struct Office {
    os: Fake,
    depot: Depot<4, 24>,
}

const A: [usize; 2] = [11, 12];
const B: [usize; 2] = [21, 22];
const FIRST: [usize; 1] = [9];

impl Office {
    /// The number of this stack; it leads back at once.
    fn bring(&self, stack: &[usize]) -> u32 {
        let id = self.depot.insert(&self.os, stack);
        assert_ne!(id, 0, "no number");
        assert_eq!(self.look(id), stack, "a number that leads elsewhere");
        id
    }

    fn look(&self, id: u32) -> Vec<usize> {
        let mut out = [0; 2];
        let length = self.depot.frames(id, &mut out);
        out[..length.min(2)].to_vec()
    }
}

/// A depot that has met one stack, in the slot that all want first.
fn office() -> Office {
    let office = Office { os: Fake::new(true), depot: Depot::new() };
    office.bring(&FIRST);
    office
}

/// Whose record came first in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    First,
    Second,
    /// A record that lost the race left its words unused.
    Gap,
}

fn outcome(office: &Office, ids: &[u32]) -> Outcome {
    assert_eq!(office.bring(&FIRST), 1, "the first stack's number");
    let (a, b) = (office.bring(&A), office.bring(&B));
    assert_ne!(a, b, "two stacks, one number");
    assert_eq!(ids[0], a, "one stack, two numbers");
    assert!(ids[1] == a || ids[1] == b, "one stack, two numbers");
    assert_eq!(office.depot.holdings().stacks, 3, "one stack, two numbers");
    match (a.min(b), a.max(b)) {
        (3, 6) if a < b => Outcome::First,
        (3, 6) => Outcome::Second,
        _ => Outcome::Gap,
    }
}

static SAME: Model<Office, u32, Outcome> = Model {
    name: "M11 the same stack",
    setup: office,
    threads: &[("a", |o| o.bring(&A)), ("a", |o| o.bring(&A))],
    crowd: &[("a", |o| o.bring(&A)), ("a too", |o| o.bring(&A)), ("b", |o| o.bring(&B))],
    outcome,
    expected: &[Outcome::First, Outcome::Gap],
    bound: None,
    long: None,
    schedules: 10_000,
};

static OTHER: Model<Office, u32, Outcome> = Model {
    name: "M11 another stack",
    setup: office,
    threads: &[("a", |o| o.bring(&A)), ("b", |o| o.bring(&B))],
    crowd: &[("a", |o| o.bring(&A)), ("b", |o| o.bring(&B)), ("a too", |o| o.bring(&A))],
    outcome,
    expected: &[Outcome::First, Outcome::Second],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn one_stack_one_number() {
    SAME.holds();
}

#[test]
fn two_stacks_two_numbers() {
    OTHER.holds();
}

red!(red_when_a_slot_is_filled_by_a_store: SAME, StackByStore, "one stack, two numbers");
#[cfg(spandrel_loom)]
red!(red_when_a_record_is_named_before_it_is_written: SAME, StackRelaxed, "one stack, two numbers" | "no number" | "leads elsewhere");
#[cfg(spandrel_loom)]
red!(red_when_a_record_is_not_acquired: SAME, StackFoundRelaxed, "one stack, two numbers" | "no number" | "leads elsewhere");
