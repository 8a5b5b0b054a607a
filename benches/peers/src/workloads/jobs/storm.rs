//! Group 8: many threads that live briefly.

use std::thread;

use super::{Job, block::Block};
use crate::meter::{Meter, Spent};

/// Blocks that each thread takes.
const BLOCKS: u32 = 24;

/// Short threads, so many of them alive at a time, each of which takes two dozen blocks of 16 to
/// 512 bytes, frees most, and leaves the rest to who joins it. An operation is a thread.
pub(super) fn storm(job: &Job) -> Spent {
    let meter = Meter::process();
    let mut started = 0;
    while started < job.amount {
        let volley = (job.threads as u64).min(job.amount - started);
        let threads: Vec<_> =
            (0..volley).map(|n| thread::spawn(move || brief(started + n))).collect();
        for thread in threads {
            let left = thread.join().expect("a block is not as it was left");
            assert_eq!(left.len(), 2);
        }
        started += volley;
    }
    meter.stop(started)
}

fn brief(seed: u64) -> Vec<Block> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut blocks: Vec<_> = (0..BLOCKS).map(|n| Block::new(random.usize(16..=512), n)).collect();
    blocks.truncate(2);
    blocks
}
