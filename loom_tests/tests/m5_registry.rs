//! M5: threads end and begin while others report and trim. `src/cache/registry.rs`, the slow paths
//! of `src/cache/mod.rs`, and `flush` of `src/transfer/mod.rs`.
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
/// All objects there are.
const OBJECTS: usize = 4;
/// The most one bin may hold: four batches of two.
const LONGEST: usize = 8;

/// What one thread has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Done,
    /// It got the cache of the thread that ended.
    Adopted,
    /// A report counted this many objects.
    Saw(usize),
}

struct Office {
    caches: Caches<Transfer<Ground>>,
    /// The cache of a thread that is about to end; it holds one object.
    ending: *const ThreadCache,
}

// SAFETY: the pointer is that of a cache in `caches`; the models pass its ownership on.
unsafe impl Send for Office {}
// SAFETY: as above.
unsafe impl Sync for Office {}

impl Office {
    fn os(&self) -> &<Ground as Objects>::System {
        self.caches.below().os()
    }

    fn own(&self, cache: &ThreadCache) -> Option<usize> {
        // SAFETY: the caller adopted the cache.
        let object =
            unsafe { cache.bin(CLASS).pop() }.unwrap_or_else(|| self.caches.refill(cache, CLASS));
        (!object.is_null()).then(|| {
            self.os().hold(object.addr(), CLASS.size());
            object.addr()
        })
    }

    fn disown(&self, cache: &ThreadCache, object: usize) {
        self.os().release(object, CLASS.size());
        let object = ptr::with_exposed_provenance_mut(object);
        // SAFETY: the caller adopted the cache and gives the object up.
        if !unsafe { cache.bin(CLASS).push(object) } {
            // SAFETY: as above.
            unsafe { self.caches.spill(cache, CLASS, object) };
        }
    }
}

fn office() -> Office {
    let caches = Caches::new(Transfer::new(Ground::new()));
    for i in 0..OBJECTS / 2 {
        let mut pair =
            [0, 1].map(|j| ptr::with_exposed_provenance_mut(WINDOW + (2 * i + j) * CLASS.size()));
        caches.below().below().give(CLASS, &mut pair);
    }
    let ending = ptr::from_ref(caches.adopt().unwrap());
    let office = Office { caches, ending };
    // SAFETY: adopted above.
    let cache = unsafe { &*ending };
    let object = office.own(cache).unwrap();
    office.disown(cache, object);
    office
}

/// A thread ends.
fn end(office: &Office) -> Answer {
    // SAFETY: main adopted this cache for the one thread that runs this body.
    office.caches.retire(unsafe { &*office.ending });
    Answer::Done
}

/// A thread begins, works and ends. Whether it got the cache of the one that ended.
fn live(office: &Office) -> Answer {
    let cache = office.caches.adopt().expect("there is memory for a cache");
    if let Some(object) = office.own(cache) {
        office.disown(cache, object);
    }
    office.caches.retire(cache);
    if ptr::eq(cache, office.ending) { Answer::Adopted } else { Answer::Done }
}

/// Reads every bin of every cache, as a snapshot does.
fn report(office: &Office) -> Answer {
    let mut seen = 0;
    for cache in office.caches.registry().iter() {
        let held = cache.held(CLASS);
        assert!(held <= LONGEST, "a report counts {held} objects in one bin");
        seen += held;
    }
    let (caches, idle) = office.caches.registry().counts();
    assert!(caches <= 3 && idle <= 3, "{idle} of {caches} caches are idle");
    Answer::Saw(seen)
}

/// Reads the shelf, as a snapshot does.
fn count(office: &Office) -> Answer {
    let objects = office.caches.below().counts(CLASS).objects;
    assert!(objects <= 2 * OBJECTS, "a report counts {objects} objects on a shelf");
    Answer::Saw(objects)
}

/// Gives what waits between threads to the floor below.
fn trim(office: &Office) -> Answer {
    office.caches.below().flush();
    Answer::Done
}

/// All objects came home once, all caches are idle and empty. What the second role answered.
fn close(office: &Office, answers: &[Answer]) -> Answer {
    let (caches, idle) = office.caches.registry().counts();
    assert_eq!(caches, idle, "a cache is lost");
    let walked = office.caches.registry().iter().filter(|cache| !cache.in_use());
    assert_eq!(walked.count(), caches, "the list and the count differ");
    for cache in office.caches.registry().iter() {
        assert!(cache.bin(CLASS).is_empty(), "a retired cache holds objects");
    }
    office.caches.below().flush();
    let all: Vec<usize> = (0..OBJECTS).map(|i| WINDOW + i * CLASS.size()).collect();
    assert_eq!(office.caches.below().below().kept(), all, "objects were lost or doubled");
    answers[1]
}

/// The same where the cache of main's thread has not ended yet; under shuttle it has.
fn close_after_end(office: &Office, answers: &[Answer]) -> Answer {
    // SAFETY: main adopted it, and all threads have joined.
    let cache = unsafe { &*office.ending };
    if cache.in_use() {
        office.caches.retire(cache);
    }
    close(office, answers)
}

static ADOPTION: Model<Office, Answer, Answer> = Model {
    name: "M5 end and begin",
    setup: office,
    threads: &[("end", end), ("live", live)],
    crowd: &[
        ("end", end),
        ("live", live),
        ("report", report),
        ("live", live),
        ("count", count),
        ("trim", trim),
    ],
    outcome: close,
    expected: &[Answer::Done, Answer::Adopted],
    bound: Some(3),
    long: None,
    schedules: 10_000,
};

#[test]
fn a_cache_has_one_owner() {
    ADOPTION.holds();
}

red!(red_when_offered_early: ADOPTION, OfferEarly,
    "Causality violation" | "lost or doubled" | "two hands" | "a cache is lost" | "signal");
#[cfg(spandrel_loom)]
red!(red_when_adopting_does_not_acquire: ADOPTION, AdoptRelaxed, "Causality violation");

static REPORT: Model<Office, Answer, Answer> = Model {
    name: "M5 report",
    threads: &[("live", live), ("report", report)],
    outcome: close_after_end,
    expected: &[Answer::Saw(2), Answer::Saw(3), Answer::Saw(4)],
    bound: Some(3),
    long: None,
    ..ADOPTION
};

#[test]
fn a_report_counts_what_there_may_be() {
    REPORT.holds();
}

red!(red_when_a_report_believes_both_ends: REPORT, TornReport, "objects in one bin");

static COUNT: Model<Office, Answer, Answer> = Model {
    name: "M5 report of a shelf",
    threads: &[("end", end), ("count", count), ("trim", trim)],
    outcome: close,
    expected: &[Answer::Saw(0), Answer::Saw(2)],
    ..REPORT
};

#[test]
fn a_report_walks_a_shelf_that_changes() {
    COUNT.holds();
}

static TRIM: Model<Office, Answer, Answer> = Model {
    name: "M5 trim",
    threads: &[("end", end), ("live", live), ("trim", trim)],
    bound: Some(1),
    long: Some(2),
    ..ADOPTION
};

#[test]
fn trimming_loses_nothing() {
    TRIM.holds();
}
