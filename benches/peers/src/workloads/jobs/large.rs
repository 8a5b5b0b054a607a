//! Group 7: large blocks.

use super::{
    Job,
    block::{Block, log_uniform},
    threads::{on_threads, share},
};
use crate::meter::{Meter, Spent};

/// Blocks alive, over all threads: about 4.6 MiB each.
const LIVE: u64 = 32;

/// Blocks of 32 KiB to 32 MiB, every page written to, random ones replaced. An operation is one
/// replacement.
pub(super) fn churn(job: &Job) -> Spent {
    let each = share(job.amount, job.threads);
    let live = share(LIVE.min(job.amount), job.threads) as usize;
    let meter = Meter::process();
    on_threads(job.threads, &|number| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut blocks: Vec<Option<Block>> = (0..live).map(|_| None).collect();
        for n in 0..each {
            let victim = random.usize(..live);
            // The old one goes first, as in a program that needs its memory.
            blocks[victim] = None;
            let mut block = Block::new(log_uniform(&mut random, 15, 25), n as u32);
            block.touch();
            blocks[victim] = Some(block);
        }
    });
    meter.stop(each * job.threads as u64)
}

/// `vec![0; n]` of the same sizes, of which nothing is read but the first byte.
pub(super) fn zeroed_untouched(job: &Job) -> Spent {
    zeroed(job, |vec| assert_eq!(vec[0], 0, "not zero"))
}

/// `vec![0; n]` of the same sizes; every page is read and written to.
pub(super) fn zeroed_touched(job: &Job) -> Spent {
    zeroed(job, |vec| {
        for byte in vec.iter_mut().step_by(4096) {
            assert_eq!(std::mem::replace(byte, 1), 0, "not zero");
        }
    })
}

fn zeroed(job: &Job, using: fn(&mut [u8])) -> Spent {
    let each = share(job.amount, job.threads);
    let live = share(LIVE.min(job.amount), job.threads) as usize;
    let meter = Meter::process();
    on_threads(job.threads, &|number| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut vecs: Vec<Vec<u8>> = (0..live).map(|_| Vec::new()).collect();
        for _ in 0..each {
            let victim = random.usize(..live);
            vecs[victim] = Vec::new();
            let mut vec = vec![0; log_uniform(&mut random, 15, 25)];
            using(&mut vec);
            vecs[victim] = vec;
        }
    });
    meter.stop(each * job.threads as u64)
}
