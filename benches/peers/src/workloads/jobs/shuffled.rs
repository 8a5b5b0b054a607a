//! Group 1, the part that is larger than any cache: shuffled frees over 256 MiB.

use std::sync::Barrier;

use super::{
    Job,
    block::Block,
    threads::{on_threads, share},
};
use crate::meter::{Meter, Spent};

/// Objects of 256 bytes, twice allocated in order, stamped, and freed in shuffled order. An
/// operation is one object.
pub(super) fn shuffled(job: &Job) -> Spent {
    const TIMES: u64 = 2;
    let objects = share(job.amount / TIMES, job.threads);
    let meter = Meter::process();
    let filled = Barrier::new(job.threads);
    on_threads(job.threads, &|number| {
        let mut order: Vec<u32> = (0..objects as u32).collect();
        fastrand::Rng::with_seed(number as u64).shuffle(&mut order);
        let mut slots: Vec<Option<Block>> = (0..objects).map(|_| None).collect();
        for _ in 0..TIMES {
            for (n, slot) in (0..).zip(&mut slots) {
                *slot = Some(Block::new(256, n));
            }
            filled.wait();
            for &n in &order {
                drop(slots[n as usize].take());
            }
        }
    });
    meter.stop(objects * TIMES * job.threads as u64)
}
