//! Group 3: a server's churn, in the manner of Larson and Krishnan.

use std::thread;

use super::{Job, block::Block, threads::share};
use crate::meter::{Meter, Spent};

/// Blocks live, over all threads.
const LIVE: u64 = 16_000;
/// Threads that every block sees, at most.
const GENERATIONS: u64 = 10;

/// Each thread replaces random blocks of its own, of 16 to 1024 bytes; when it ends, a new thread
/// takes over what it leaves. An operation is one replacement.
pub(super) fn churn(job: &Job) -> Spent {
    let each = share(job.amount, job.threads).div_ceil(GENERATIONS);
    let live = share(LIVE.min(job.amount), job.threads);
    let meter = Meter::process();
    let mut estates: Vec<Vec<Block>> = (0..job.threads).map(|_| Vec::new()).collect();
    for generation in 0..GENERATIONS {
        estates = thread::scope(|scope| {
            let heirs: Vec<_> = estates
                .into_iter()
                .enumerate()
                .map(|(number, blocks)| {
                    let seed = generation << 32 | number as u64;
                    scope.spawn(move || serve(blocks, seed, live as usize, each))
                })
                .collect();
            heirs.into_iter().map(|h| h.join().expect("a block is not as it was left")).collect()
        });
        // Not to the same seat: blocks wander over the threads.
        estates.rotate_left(1);
    }
    drop(estates);
    meter.stop(each * GENERATIONS * job.threads as u64)
}

fn serve(mut blocks: Vec<Block>, seed: u64, live: usize, replacements: u64) -> Vec<Block> {
    let mut random = fastrand::Rng::with_seed(seed);
    while blocks.len() < live {
        blocks.push(Block::new(random.usize(16..=1024), random.u32(..)));
    }
    for _ in 0..replacements {
        let victim = random.usize(..live);
        blocks[victim] = Block::new(random.usize(16..=1024), random.u32(..));
    }
    blocks
}
