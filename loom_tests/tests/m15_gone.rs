//! M15: threads that ended without giving their caches back, and those who take these over.
//! `adopt_from_the_dead` of `src/cache/mod.rs`, `src/cache/registry.rs`.
#![cfg(spandrel_model)]

use loom_tests::floors::Ground;
use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::units::WINDOW;
use spandrel::cache::{Caches, ThreadCache};
use spandrel::span::Objects;
use spandrel::transfer::Transfer;
use std::ptr;

const CLASS: Class = Class::from_index(0);
const OBJECTS: usize = 4;
/// The thread that ends, and all others.
const ENDING: u32 = 7;
const LIVING: u32 = 8;

/// What one thread has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Ended,
    /// It got the cache of the thread that ended.
    Inherited,
    /// It got another one.
    New,
}

/// Who got the cache of the thread that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nobody.
    New,
    /// One.
    Inherited,
    /// Several, one after another.
    InTurn,
}

struct Office {
    caches: Caches<Transfer<Ground>>,
    ending: *const ThreadCache,
}

// SAFETY: the pointer is that of a cache in `caches`; its thread's role has its ownership.
unsafe impl Send for Office {}
// SAFETY: as above.
unsafe impl Sync for Office {}

impl Office {
    /// Takes an object, uses it and gives it back.
    fn work(&self, cache: &ThreadCache) {
        let os = self.caches.below().os();
        // SAFETY: the caller owns the cache.
        let object = unsafe { cache.bin(CLASS).pop() };
        let object = object.unwrap_or_else(|| self.caches.refill(cache, CLASS));
        if !object.is_null() {
            os.hold(object.addr(), CLASS.size());
            os.release(object.addr(), CLASS.size());
            // SAFETY: as above, and the object is given up.
            if !unsafe { cache.bin(CLASS).push(object) } {
                // SAFETY: as above.
                unsafe { self.caches.spill(cache, CLASS, object) };
            }
        }
    }
}

/// Main is the thread that will end, with one object at hand.
fn office() -> Office {
    let caches = Caches::new(Transfer::new(Ground::new()));
    let mut all: [_; OBJECTS] =
        std::array::from_fn(|i| ptr::with_exposed_provenance_mut(WINDOW + i * CLASS.size()));
    caches.below().below().give(CLASS, &mut all);
    caches.below().os().be(ENDING);
    let ending = ptr::from_ref(caches.adopt().unwrap());
    let office = Office { caches, ending };
    // SAFETY: adopted above.
    office.work(unsafe { &*ending });
    office.caches.below().os().be(LIVING);
    office
}

/// It is gone, its cache still its own.
fn office_with_a_dead_thread() -> Office {
    let office = office();
    office.caches.below().os().bury(ENDING);
    office
}

/// It gave its cache back in time, and is gone.
fn office_with_an_idle_cache() -> Office {
    let office = office();
    // SAFETY: as in `office`.
    office.caches.retire(unsafe { &*office.ending });
    office.caches.below().os().bury(ENDING);
    office
}

/// A thread ends, its cache still its own.
fn die(office: &Office) -> Answer {
    // SAFETY: main adopted it for this role.
    office.work(unsafe { &*office.ending });
    office.caches.below().os().bury(ENDING);
    Answer::Ended
}

/// A thread begins, works and ends.
fn live(office: &Office) -> Answer {
    let cache = office.caches.adopt().expect("there is memory for a cache");
    office.work(cache);
    office.caches.retire(cache);
    if ptr::eq(cache, office.ending) { Answer::Inherited } else { Answer::New }
}

/// Who got the cache of the thread that ended. All objects are there once and every cache is idle when a last
/// one has taken over what is left.
fn close(office: &Office, answers: &[Answer]) -> Outcome {
    // SAFETY: never unmapped.
    if unsafe { &*office.ending }.in_use() {
        // Behind the idle ones.
        let mut taken: Vec<&ThreadCache> = Vec::new();
        while !taken.last().is_some_and(|cache| ptr::eq(*cache, office.ending)) {
            assert!(taken.len() < 8, "the dead thread's cache is lost");
            taken.push(office.caches.adopt().expect("there is memory for a cache"));
        }
        taken.into_iter().for_each(|cache| office.caches.retire(cache));
    }
    let (caches, idle) = office.caches.registry().counts();
    assert_eq!(caches, idle, "a cache is lost");
    let all: Vec<usize> = (0..OBJECTS).map(|i| WINDOW + i * CLASS.size()).collect();
    office.caches.below().flush();
    assert_eq!(office.caches.below().below().kept(), all, "objects were lost or doubled");
    match answers.iter().filter(|answer| **answer == Answer::Inherited).count() {
        0 => Outcome::New,
        1 => Outcome::Inherited,
        _ => Outcome::InTurn,
    }
}

static DEATH: Model<Office, Answer, Outcome> = Model {
    name: "M15 death",
    setup: office,
    threads: &[("die", die), ("live", live)],
    crowd: &[("die", die), ("live", live), ("live", live), ("live", live)],
    outcome: close,
    expected: &[Outcome::Inherited, Outcome::New],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn a_dead_thread_s_cache_is_taken_over_after_its_last_store() {
    DEATH.holds();
}

#[cfg(spandrel_loom)]
red!(red_when_who_takes_over_does_not_acquire: DEATH, GoneUnfenced,
    "Causality violation" | "lost or doubled");

static HEIRS: Model<Office, Answer, Outcome> = Model {
    name: "M15 heirs",
    setup: office_with_a_dead_thread,
    bound: Some(1),
    long: Some(2),
    ..IDLE
};

#[test]
fn a_dead_thread_has_one_heir() {
    HEIRS.holds();
}

red!(red_when_a_store_takes_over: HEIRS, GoneByStore,
    "Causality violation" | "lost or doubled" | "two hands" | "a cache is lost"
        | "out of range" | "signal");

static IDLE: Model<Office, Answer, Outcome> = Model {
    name: "M15 idle",
    setup: office_with_an_idle_cache,
    threads: &[("live", live), ("live", live)],
    crowd: &[("live", live), ("live", live), ("live", live), ("live", live)],
    expected: &[Outcome::Inherited, Outcome::InTurn],
    bound: Some(2),
    long: Some(3),
    ..DEATH
};

/// Who adopts an idle cache has not put its own number there yet, and the one that is there is a dead thread's.
#[test]
fn an_idle_cache_is_nobody_s_inheritance() {
    IDLE.holds();
}

red!(red_when_an_offered_cache_names_its_last_thread: IDLE, OwnerLeft,
    "Causality violation" | "lost or doubled" | "two hands" | "a cache is lost"
        | "out of range" | "signal");
