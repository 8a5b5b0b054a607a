//! Cost against the size of the live heap.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use super::Job;
use crate::meter::{Meter, Spent};

/// Objects replaced at a time: 10 MiB, more than any cache keeps.
const RUN: usize = 10 << 10;
/// What is on the heap.
const OBJECT: Layout = Layout::new::<[u64; 128]>();

/// 10 MiB live.
pub(super) fn heap_10m(job: &Job) -> Spent {
    replace(job, 10 << 20)
}

/// 100 MiB live.
pub(super) fn heap_100m(job: &Job) -> Spent {
    replace(job, 100 << 20)
}

/// 1 GiB live.
pub(super) fn heap_1g(job: &Job) -> Spent {
    replace(job, 1 << 30)
}

/// 8 GiB live.
pub(super) fn heap_8g(job: &Job) -> Spent {
    replace(job, 8 << 30)
}

/// Builds a heap of objects of 1 KiB and replaces runs of them that lie all over it. An operation
/// is an object allocated and another freed; building, checking and dropping is not counted.
///
/// The objects' contents are left alone meanwhile: what is measured is the allocator's way about
/// the heap, and not that of the program through caches and page tables. At the end each object is
/// written to, and then each is read: if two were one, one of them does not hold its own number.
fn replace(job: &Job, live: usize) -> Spent {
    let mut objects: Vec<NonNull<u64>> = (0..live / OBJECT.size()).map(|_| new()).collect();
    stamp(&objects);
    // The order of the table is no longer that of the addresses.
    fastrand::Rng::with_seed(1).shuffle(&mut objects);

    let mut replace_runs = |runs| {
        let mut fresh = Vec::with_capacity(RUN);
        for n in 0..runs {
            fresh.extend((0..RUN).map(|_| new()));
            let first = n as usize % (objects.len() / RUN) * RUN;
            objects[first..][..RUN].swap_with_slice(&mut fresh);
            for object in fresh.drain(..) {
                // SAFETY: taken by `new`, and in the table no longer.
                unsafe { dealloc(object.cast().as_ptr(), OBJECT) };
            }
        }
    };
    let runs = job.amount.div_ceil(RUN as u64);
    replace_runs(runs.min(20));
    let meter = Meter::process();
    replace_runs(runs);
    let spent = meter.stop(runs * RUN as u64);

    stamp(&objects);
    for (number, object) in (0..).zip(objects) {
        // SAFETY: taken by `new`, written to by `stamp`; gone after this.
        unsafe {
            assert_eq!(object.read(), number, "an object is another one, too");
            dealloc(object.cast().as_ptr(), OBJECT);
        }
    }
    spent
}

fn new() -> NonNull<u64> {
    // SAFETY: the size is not 0.
    let object = unsafe { alloc(OBJECT) };
    NonNull::new(object.cast()).unwrap_or_else(|| handle_alloc_error(OBJECT))
}

/// Writes its number into every object.
fn stamp(objects: &[NonNull<u64>]) {
    for (number, object) in (0..).zip(objects) {
        // SAFETY: taken by `new`, of 1 KiB, 8-aligned, and nobody else's.
        unsafe { object.write(number) };
    }
}
