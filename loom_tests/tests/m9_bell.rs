//! M9: who gives wakes who sleeps because there was nothing to return. `src/page/bell.rs`, and `rest`
//! of `src/page/purge.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Heap;
use loom_tests::{Model, red};

/// What one thread has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Gave,
    /// The sleeper found something to do and stayed up.
    Up,
    /// It slept on this value.
    Slept(u32),
}

/// What became of the sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    StayedUp,
    Woken,
}

/// Main holds two granules of two hugepages; nothing else is to be returned.
fn heap() -> Heap {
    let heap = Heap::new(&[(0, 1), (2, 4)]);
    heap.pages.purge_all();
    assert!(!heap.pages.has_idle_memory());
    heap
}

/// What the background thread does when a tick is over.
fn sleep(heap: &Heap) -> Answer {
    if heap.pages.has_idle_memory() {
        return Answer::Up;
    }
    heap.pages.rest().map_or(Answer::Up, Answer::Slept)
}

fn outcome(heap: &Heap, answers: &[Answer]) -> Outcome {
    let slept = answers.iter().find_map(|answer| match answer {
        Answer::Slept(heard) => Some(*heard),
        _ => None,
    });
    let Some(heard) = slept else { return Outcome::StayedUp };
    assert!(heap.pages.has_idle_memory(), "all has been given");
    assert_ne!(heap.pages.bell().heard(), heard, "the sleeper was never woken");
    Outcome::Woken
}

static SLEEP: Model<Heap, Answer, Outcome> = Model {
    name: "M9 sleep",
    setup: heap,
    threads: &[
        ("sleep", sleep),
        ("give", |h| {
            h.give(1);
            Answer::Gave
        }),
    ],
    crowd: &[
        ("sleep", sleep),
        ("give", |h| {
            h.give(1);
            Answer::Gave
        }),
        ("give too", |h| {
            h.give(0);
            Answer::Gave
        }),
    ],
    outcome,
    expected: &[Outcome::StayedUp, Outcome::Woken],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn nobody_sleeps_through_a_give() {
    SLEEP.holds();
}

red!(red_without_a_last_look: SLEEP, NoLastLook, "never woken");
#[cfg(spandrel_loom)]
red!(red_when_a_give_is_counted_without_release: SLEEP, NoteRelaxed, "never woken");
