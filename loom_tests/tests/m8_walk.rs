//! M8: from the thread cache to the page heap and back. Every floor below the front, as
//! `src/lib.rs` walks them.
#![cfg(spandrel_model)]

use loom_tests::{Model, red};
use spandrel::base::classes::Class;
use spandrel::base::units::GRANULES_PER_WINDOW;
use spandrel::cache::Caches;
use spandrel::os::fake::Fake;
use spandrel::page::PageHeap;
use spandrel::span::{Objects, Spans};
use spandrel::transfer::Transfer;
use std::ptr;

/// Spans of two objects, batches of two.
const TWO: Class = Class::from_index(1);

struct Building {
    caches: Caches<Transfer<Spans<Fake>>>,
    /// What main took for the threads.
    objects: Vec<usize>,
}

impl Building {
    fn spans(&self) -> &Spans<Fake> {
        self.caches.below().below()
    }

    /// malloc, by a thread without a cache of its own.
    fn hold(&self, object: *mut u8) -> usize {
        self.spans().os().hold(object.addr(), TWO.size());
        object.addr()
    }
}

fn building(objects: usize) -> Building {
    let floors = Transfer::new(Spans::new(PageHeap::new(Fake::new(true))));
    let mut building = Building { caches: Caches::new(floors), objects: Vec::new() };
    let mut out = [ptr::null_mut(); 2];
    let got = building.caches.below().take(TWO, &mut out[..objects]);
    assert_eq!(got, objects);
    building.objects = out[..got].iter().map(|object| building.hold(*object)).collect();
    building
}

/// A thread frees an object main allocated, and ends; what waits between threads goes home.
/// Whether it then saw the span returned.
fn free(building: &Building, which: usize) -> bool {
    let cache = building.caches.adopt().unwrap();
    let object = building.objects[which];
    building.spans().os().release(object, TWO.size());
    // SAFETY: the cache was adopted here, and the object is this thread's to give up.
    unsafe { building.caches.spill(cache, TWO, ptr::with_exposed_provenance_mut(object)) };
    building.caches.retire(cache);
    building.caches.below().flush();
    building.spans().counts().died == 1
}

/// A thread allocates, uses, frees and ends. Whether there was memory.
fn walk(building: &Building) -> bool {
    let cache = building.caches.adopt().unwrap();
    let object = building.caches.refill(cache, TWO);
    if !object.is_null() {
        let held = building.hold(object);
        building.spans().os().release(held, TWO.size());
        // SAFETY: as in `free`.
        unsafe { building.caches.spill(cache, TWO, object) };
    }
    building.caches.retire(cache);
    !object.is_null()
}

/// All came home: every span died once and every granule is free. Answers how many spans there
/// were, and what the threads said.
fn close(building: &Building, answers: &[bool]) -> (u64, bool, bool) {
    building.caches.below().flush();
    assert_eq!(building.spans().check(), Ok(0), "the books do not balance");
    let counts = building.spans().counts();
    assert_eq!(counts.begun, counts.died, "a span is left");
    for window in building.spans().pages().windows() {
        assert_eq!(window.check(), Ok(GRANULES_PER_WINDOW), "granules are missing");
    }
    let (caches, idle) = building.caches.registry().counts();
    assert_eq!(caches, idle, "a cache is lost");
    (counts.begun, answers[0], answers[1])
}

static HOME: Model<Building, bool, (u64, bool, bool)> = Model {
    name: "M8 all come home",
    setup: || building(2),
    threads: &[("free 0", |b| free(b, 0)), ("free 1", |b| free(b, 1))],
    crowd: &[
        ("free 0", |b| free(b, 0)),
        ("walk", walk),
        ("free 1", |b| free(b, 1)),
        ("walk", walk),
    ],
    outcome: close,
    expected: &[(1, false, true), (1, true, false), (1, true, true)],
    bound: Some(2),
    long: Some(3),
    schedules: 10_000,
};

#[test]
fn a_span_is_returned_exactly_once() {
    HOME.holds();
}

red!(red_when_reaped_by_all_who_see_it_empty: HOME, ReapTwice, "double free" | "do not");

static WALK: Model<Building, bool, (u64, bool, bool)> = Model {
    name: "M8 two walks",
    // A window is there, and every granule of it is free.
    setup: || {
        let building = building(2);
        for &object in &building.objects {
            building.spans().os().release(object, TWO.size());
        }
        let mut out = [0, 1].map(|i| ptr::with_exposed_provenance_mut(building.objects[i]));
        building.spans().give(TWO, &mut out);
        building
    },
    threads: &[("walk", walk), ("walk", walk)],
    expected: &[(2, true, true), (3, true, true)],
    crowd: &[("walk", walk), ("walk", walk), ("walk", walk)],
    bound: Some(1),
    long: Some(2),
    ..HOME
};

#[test]
fn two_threads_walk_all_floors() {
    WALK.holds();
}
