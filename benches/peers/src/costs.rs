//! What a step on each of Spandrel's floors costs in processor time, there and back.
//!
//! `w-spandrel costs` prints one line per floor. The floors stand on the real system in a building
//! of their own, so that the process's own allocations do not disturb them. `cargo bench -p floors
//! --bench floors` measures the same steps one by one, with criterion's care.

use std::{hint::black_box, ptr};

use spandrel::{
    base::classes::Class,
    cache::Caches,
    os::{Os, linux::Linux},
    page::PageHeap,
    span::{Objects, Spans},
    transfer::Transfer,
};

use crate::{meter::Meter, record::record};

record! {
    /// Picoseconds of each step.
    "costs" Costs {
        /// One object out of the thread cache and in again.
        cache_ps,
        /// A batch into the transfer cache and out again.
        transfer_ps,
        /// A batch back to its spans, in no order, and out again.
        spans_ps,
        /// A run of one granule out of the page heap and in again.
        page_ps,
        /// Two MiB mapped, their first byte written to, and unmapped.
        system_ps,
    }
}

/// The class whose batches are longest.
const CLASS: Class = Class::of(64, 8).unwrap();

static CACHES: Caches<Transfer<Spans<Linux>>> =
    Caches::new(Transfer::new(Spans::new(PageHeap::new(Linux::new()))));

impl Costs {
    /// Measures all of them: some tenths of a second.
    pub fn measure() -> Self {
        let cache = CACHES.adopt().expect("memory for a cache");
        let bin = cache.bin(CLASS);
        let transfer = CACHES.below();
        let spans: &Spans<Linux> = transfer.below();
        let mut objects = batch(transfer);
        // Another batch keeps the span alive, as in a running program.
        let _held = batch(spans);
        let mut order: Vec<usize> = (0..objects.len()).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut order);
        let mut shuffled = objects.clone();
        Self {
            cache_ps: picos(10_000_000, || {
                // SAFETY: this thread adopted the cache and gives back what it took.
                unsafe {
                    let object = bin.pop().unwrap_or_else(|| CACHES.refill(cache, CLASS));
                    if !bin.push(black_box(object)) {
                        CACHES.spill(cache, CLASS, object);
                    }
                }
            }),
            transfer_ps: picos(300_000, || {
                transfer.give(CLASS, black_box(&mut objects));
                assert_eq!(transfer.take(CLASS, &mut objects), objects.len());
            }),
            spans_ps: picos(100_000, || {
                for (slot, &from) in shuffled.iter_mut().zip(&order) {
                    *slot = objects[from];
                }
                spans.give(CLASS, black_box(&mut shuffled));
                assert_eq!(spans.take(CLASS, &mut objects), objects.len());
            }),
            page_ps: picos(300_000, || {
                let run = spans.pages().take(0, 1).expect("memory");
                spans.pages().give(run.window, run.first, 1);
            }),
            system_ps: picos(1000, || {
                let os = spans.pages().os();
                let at = os.map(2 << 20, 2 << 20).expect("memory");
                // SAFETY: mapped here, unmapped here, and written to in between.
                unsafe {
                    at.write(1);
                    assert!(os.unmap(at, 2 << 20));
                }
            }),
        }
    }
}

fn batch(from: &impl Objects) -> Vec<*mut u8> {
    let mut objects = vec![ptr::null_mut(); CLASS.batch()];
    assert_eq!(from.take(CLASS, &mut objects), objects.len());
    objects
}

/// The least of three runs, per step.
fn picos(steps: u64, mut step: impl FnMut()) -> u64 {
    let mut run = || {
        let meter = Meter::thread();
        for _ in 0..steps {
            step();
        }
        meter.stop(steps).cpu.as_nanos() as u64 * 1000 / steps
    };
    run().min(run()).min(run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floor_costs_something() {
        let costs = Costs::measure();
        assert!(costs.cache_ps > 0 && costs.cache_ps < costs.spans_ps, "{costs}");
        assert!(costs.transfer_ps > 0 && costs.page_ps > 0 && costs.system_ps > 0, "{costs}");
    }
}
