//! Threads that share a job.

use std::{sync::Barrier, thread};

/// Runs `work` on so many threads at once, or on this one where one is wanted, and hands each its
/// number. None begins before all are there.
pub(super) fn on_threads(threads: usize, work: &(dyn Fn(usize) + Sync)) {
    if threads == 1 {
        return work(0);
    }
    let all = &Barrier::new(threads);
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || {
                all.wait();
                work(number);
            });
        }
    });
}

/// The part of `amount` that falls to each of so many threads, at least 1.
pub(super) fn share(amount: u64, threads: usize) -> u64 {
    (amount / threads as u64).max(1)
}
