//! M1: batch nodes on their stacks. `src/transfer/stack.rs`, `src/transfer/node.rs`, and the two
//! verbs of `src/transfer/mod.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Ground;
use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::units::WINDOW;
use spandrel::os::fake::Fake;
use spandrel::span::Objects;
use spandrel::transfer::Transfer;
use spandrel::transfer::node::Nodes;
use spandrel::transfer::stack::{MAX_COUNT, Stack};
use std::ptr;

// ---- the stack alone: what is popped comes back while another pop is under way ----

struct Bare {
    os: Fake,
    nodes: Nodes,
    full: Stack,
    spare: Stack,
}

fn bare() -> Bare {
    let bare =
        Bare { os: Fake::new(true), nodes: Nodes::new(), full: Stack::new(), spare: Stack::new() };
    for stack in [&bare.full, &bare.full, &bare.spare] {
        let batch = bare.nodes.make(&bare.os).unwrap();
        stack.push(batch, MAX_COUNT).unwrap();
    }
    bare
}

/// Takes one node and keeps it.
fn one(bare: &Bare) -> Vec<u32> {
    let got = bare.full.pop(&bare.nodes);
    got.map(|batch| batch.id().0.get()).into_iter().collect()
}

/// Takes two nodes, puts a third and the first on again, and keeps the second: the stack is as long
/// as before and has the same top, so only the tag tells.
fn churn(bare: &Bare) -> Vec<u32> {
    let first = bare.full.pop(&bare.nodes);
    let second = bare.full.pop(&bare.nodes);
    if let Some(third) = bare.spare.pop(&bare.nodes) {
        bare.full.push(third, MAX_COUNT).unwrap();
    }
    if let Some(first) = first {
        bare.full.push(first, MAX_COUNT).unwrap();
    }
    second.map(|batch| batch.id().0.get()).into_iter().collect()
}

/// Which node the single pop got, 0 for none.
fn all_nodes_once(bare: &Bare, answers: &[Vec<u32>]) -> u32 {
    let mut nodes = answers.concat();
    let held = nodes.len() as u32;
    assert_eq!(bare.full.count() + bare.spare.count() + held, 3, "the counts do not add up");
    for stack in [&bare.full, &bare.spare] {
        while let Some(batch) = stack.pop(&bare.nodes) {
            nodes.push(batch.id().0.get());
            assert!(nodes.len() <= 3, "a node is on the stacks twice: {nodes:?}");
        }
    }
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2, 3], "nodes were lost");
    answers[0].first().copied().unwrap_or(0)
}

static RECYCLE: Model<Bare, Vec<u32>, u32> = Model {
    name: "M1 recycle",
    setup: bare,
    threads: &[("one", one), ("churn", churn)],
    crowd: &[("one", one), ("churn", churn), ("one", one), ("churn", churn)],
    outcome: all_nodes_once,
    expected: &[0, 1, 2, 3],
    bound: None,
    long: None,
    schedules: 20_000,
};

#[test]
fn nodes_are_neither_lost_nor_doubled() {
    RECYCLE.holds();
}

red!(red_with_a_frozen_tag: RECYCLE, FrozenTag, "on the stacks twice" | "nodes were lost");

// ---- two verbs: batches change hands, and their nodes are used again ----

const CLASS: Class = Class::from_index(0);
const FIRST: usize = WINDOW;

fn objects(pair: usize) -> [*mut u8; 2] {
    [0, 1].map(|i| ptr::with_exposed_provenance_mut(FIRST + (2 * pair + i) * CLASS.size()))
}

/// No node was ever made, and the threads hold all objects.
fn fresh() -> Transfer<Ground> {
    let transfer = Transfer::new(Ground::new());
    for object in [objects(0), objects(1)].as_flattened() {
        transfer.os().hold(object.addr(), CLASS.size());
    }
    transfer
}

/// One node waits empty, so its chunk is known to all.
fn used() -> Transfer<Ground> {
    let transfer = fresh();
    transfer.give(CLASS, &mut objects(0));
    assert_eq!(transfer.take(CLASS, &mut [ptr::null_mut(); 2]), 2);
    transfer
}

fn give(transfer: &Transfer<Ground>, pair: usize) -> Vec<usize> {
    let mut batch = objects(pair);
    for object in batch {
        transfer.os().release(object.addr(), CLASS.size());
    }
    transfer.give(CLASS, &mut batch);
    Vec::new()
}

fn take(transfer: &Transfer<Ground>) -> Vec<usize> {
    let mut got = [ptr::null_mut(); 2];
    let count = transfer.take(CLASS, &mut got);
    let got: Vec<usize> = got[..count].iter().map(|object| object.addr()).collect();
    for &object in &got {
        transfer.os().hold(object, CLASS.size());
    }
    got
}

/// How many batches the taker got.
fn all_objects_once(transfer: &Transfer<Ground>, answers: &[Vec<usize>]) -> usize {
    let mut all = answers.concat();
    let taken = all.len();
    let below = transfer.below().kept().len();
    assert_eq!(transfer.counts(CLASS).objects + below + taken, 4, "the counts do not add up");
    transfer.flush();
    all.extend(transfer.below().kept());
    all.sort_unstable();
    let given = [objects(0), objects(1)].concat();
    assert_eq!(all, given.iter().map(|object| object.addr()).collect::<Vec<_>>(), "objects lost");
    taken / 2
}

static HAND_OVER: Model<Transfer<Ground>, Vec<usize>, usize> = Model {
    name: "M1 hand over",
    setup: used,
    threads: &[("give 0", |t| give(t, 0)), ("give 1", |t| give(t, 1)), ("take", take)],
    crowd: &[
        ("give 0", |t| give(t, 0)),
        ("take", take),
        ("give 1", |t| give(t, 1)),
        ("take", take),
        ("take", take),
    ],
    outcome: all_objects_once,
    expected: &[0, 1],
    bound: Some(2),
    long: Some(3),
    schedules: 20_000,
};

#[test]
fn batches_change_hands_whole() {
    HAND_OVER.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_a_push_does_not_release: HAND_OVER, PushRelaxed, "Causality violation");
#[cfg(spandrel_loom)]
red!(red_when_a_pop_does_not_acquire: HAND_OVER, PopRelaxed, "Causality violation");

static FIRST_NODE: Model<Transfer<Ground>, Vec<usize>, usize> = Model {
    name: "M1 first node",
    setup: fresh,
    threads: &[("give 0", |t| give(t, 0)), ("give 1", |t| give(t, 1)), ("take", take)],
    bound: Some(1),
    long: Some(2),
    ..HAND_OVER
};

#[test]
fn the_first_nodes_are_made_once() {
    FIRST_NODE.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_a_name_is_known_before_its_chunk: FIRST_NODE, PushRelaxed, "before its chunk is");
