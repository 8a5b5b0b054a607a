//! Threads that share a job.

use std::thread;

/// Runs `work` on so many threads at once, this one among them where there is only one, and hands
/// each its number.
pub(super) fn on_threads(threads: usize, work: &(dyn Fn(usize) + Sync)) {
    if threads == 1 {
        return work(0);
    }
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || work(number));
        }
    });
}

/// The part of `amount` that falls to each of so many threads, at least 1.
pub(super) fn share(amount: u64, threads: usize) -> u64 {
    (amount / threads as u64).max(1)
}
