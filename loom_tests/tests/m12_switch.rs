//! M12: observed mode is switched on while owners store bounds of their bins, or another mode while they open
//! them. `src/cache/switch.rs`, and the slow paths of `src/cache/mod.rs` and `src/cache/rungs.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Ground;
use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::seed;
use spandrel::base::units::WINDOW;
use spandrel::cache::{Caches, ThreadCache};
use spandrel::span::Objects;
use std::ptr;

const CLASS: Class = Class::from_index(0);
const OBJECTS: usize = 6;

/// The mode in which every call is seen, and the one in which some allocations need not be.
const ALL: u64 = 1;
const LIGHT: u64 = 2;

/// What one thread has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Switched,
    /// Of its calls, so many went the fast way.
    Fast(usize),
}

/// How many calls were over before anybody watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    AllSeen,
    SomeUnseen,
    NoneSeen,
}

struct Office {
    caches: Caches<Ground>,
    /// A cache of main's, whose bin has no array yet.
    mine: *const ThreadCache,
}

// SAFETY: the pointer is that of a cache in `caches`; one thread has its ownership.
unsafe impl Send for Office {}
// SAFETY: as above.
unsafe impl Sync for Office {}

fn office() -> Office {
    office_on(Ground::new())
}

/// Bins keep apart what was freed.
fn thin_office() -> Office {
    office_on(Ground::thin())
}

fn office_on(ground: Ground) -> Office {
    seed::see(true);
    let caches = Caches::new(ground);
    let mut all: [_; OBJECTS] =
        std::array::from_fn(|i| ptr::with_exposed_provenance_mut(WINDOW + i * CLASS.size()));
    caches.below().give(CLASS, &mut all);
    let mine = ptr::from_ref(caches.adopt().unwrap());
    Office { caches, mine }
}

/// Takes two objects and gives them back, as the front does; answers how many calls were fast.
fn calls(office: &Office, cache: &ThreadCache) -> usize {
    let bin = cache.bin(CLASS);
    let mut fast = 0;
    let mut held = Vec::new();
    for _ in 0..2 {
        // SAFETY: the caller owns the cache.
        let object = match unsafe { bin.pop() } {
            Some(object) => {
                fast += 1;
                object
            }
            None => office.caches.refill(cache, CLASS),
        };
        assert!(!object.is_null(), "an object is lost");
        held.push(object);
    }
    for object in held {
        // SAFETY: the caller owns the cache and gives up what it took.
        if unsafe { bin.push(object) } {
            fast += 1;
        } else {
            // SAFETY: as above.
            unsafe { office.caches.spill(cache, CLASS, object) };
        }
    }
    fast
}

fn work(office: &Office) -> Answer {
    // SAFETY: main adopted it for this thread.
    Answer::Fast(calls(office, unsafe { &*office.mine }))
}

/// A thread that begins meanwhile.
fn begin(office: &Office) -> Answer {
    let cache = office.caches.adopt().expect("there is memory for a cache");
    Answer::Fast(calls(office, cache))
}

fn switch(office: &Office) -> Answer {
    office.caches.switch_on(|_| ALL);
    Answer::Switched
}

/// A mode whose watcher need not see all allocations is on, and the bin holds objects.
fn light_office() -> Office {
    let office = office();
    office.caches.switch_on(|_| LIGHT);
    // SAFETY: main adopted it, and no other thread is there yet.
    calls(&office, unsafe { &*office.mine });
    office
}

/// Takes two objects, and in between lets allocations go the fast way.
fn open(office: &Office) -> Answer {
    // SAFETY: main adopted it for this thread.
    let cache = unsafe { &*office.mine };
    let mut fast = 0;
    for _ in 0..2 {
        // SAFETY: this thread owns the cache.
        let object = match unsafe { cache.bin(CLASS).pop() } {
            Some(object) => {
                fast += 1;
                object
            }
            None => office.caches.refill(cache, CLASS),
        };
        if office.caches.mode() == LIGHT {
            office.caches.open(cache, CLASS, 0, LIGHT);
        }
        office.caches.below().give(CLASS, &mut [object]);
    }
    Answer::Fast(fast)
}

fn outcome(office: &Office, answers: &[Answer]) -> Outcome {
    let mut held = 0;
    for cache in office.caches.registry().iter() {
        let bin = cache.bin(CLASS);
        assert!(bin.has_pinned_bounds(), "a pin is lost");
        held += bin.len();
    }
    let below = office.caches.below().kept().len();
    assert_eq!(held + below, OBJECTS, "objects lost or made");
    // Off, the owner's next calls put the bounds right.
    office.caches.change_mode(|_| Some(0)).unwrap();
    // SAFETY: as above.
    let mine = unsafe { &*office.mine };
    calls(office, mine);
    if office.caches.below().is_thin(CLASS) {
        assert_eq!(
            calls(office, mine),
            1,
            "of two allocations one needs a refill, and all frees go the slow way"
        );
    } else {
        assert!(!mine.bin(CLASS).is_pinned(), "a bin stays pinned");
        assert_eq!(calls(office, mine), 4, "a call goes the slow way for no reason");
    }
    seed::see(false);
    let fast = answers.iter().map(|answer| match answer {
        Answer::Fast(fast) => *fast,
        Answer::Switched => 0,
    });
    match fast.sum() {
        0 => Outcome::AllSeen,
        3.. => Outcome::NoneSeen,
        _ => Outcome::SomeUnseen,
    }
}

static SWITCH: Model<Office, Answer, Outcome> = Model {
    name: "M12 switch",
    setup: office,
    threads: &[("work", work), ("switch", switch)],
    crowd: &[("work", work), ("switch", switch), ("begin", begin)],
    outcome,
    expected: &[Outcome::AllSeen, Outcome::SomeUnseen, Outcome::NoneSeen],
    bound: Some(3),
    long: Some(5),
    schedules: 10_000,
};

static BEGIN: Model<Office, Answer, Outcome> = Model {
    name: "M12 begin",
    setup: office,
    threads: &[("begin", begin), ("switch", switch)],
    crowd: &[("begin", begin), ("switch", switch), ("begin", begin)],
    outcome,
    expected: &[Outcome::AllSeen, Outcome::SomeUnseen, Outcome::NoneSeen],
    bound: Some(3),
    long: Some(4),
    schedules: 10_000,
};

static APART: Model<Office, Answer, Outcome> = Model {
    name: "M12 apart",
    setup: thin_office,
    threads: &[("work", work), ("switch", switch)],
    crowd: &[("work", work), ("switch", switch), ("begin", begin)],
    outcome,
    expected: &[Outcome::AllSeen, Outcome::SomeUnseen],
    bound: Some(3),
    long: Some(5),
    schedules: 10_000,
};

static OPEN: Model<Office, Answer, Outcome> = Model {
    name: "M12 open",
    setup: light_office,
    threads: &[("open", open), ("switch", switch)],
    crowd: &[("open", open), ("switch", switch), ("begin", begin)],
    outcome,
    expected: &[Outcome::AllSeen, Outcome::SomeUnseen],
    bound: Some(3),
    long: Some(5),
    schedules: 10_000,
};

#[test]
fn no_pin_of_an_open_bin_is_lost() {
    OPEN.holds();
}

#[test]
fn no_pin_of_a_bin_that_keeps_apart_is_lost() {
    APART.holds();
}

#[test]
fn no_pin_is_lost() {
    SWITCH.holds();
}

#[test]
fn no_pin_of_a_new_cache_is_lost() {
    BEGIN.holds();
}

red!(red_without_a_look: SWITCH, NoLook, "a pin is lost");
red!(red_when_pins_come_before_the_mode: SWITCH, PinsFirst, "a pin is lost");
red!(red_without_a_look_at_what_is_apart: APART, NoLook, "a pin is lost");
red!(red_when_a_bin_is_opened_unseen: OPEN, OpenUnseen, "a pin is lost");
#[cfg(spandrel_loom)]
red!(red_when_the_look_comes_before_the_store: SWITCH, LookUnfenced, "a pin is lost");
