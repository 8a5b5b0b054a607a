//! Group 10: sizes that drift while about as many bytes stay live: fragmentation.
//!
//! Time is counted in turnovers: one is as many bytes allocated and freed as are live. A program
//! that replaces its 128 MiB once a second makes 600 in ten minutes, and so does this one, only
//! faster; what returns memory by the clock has less time for it here than it would have there.

use super::{Job, block::Block};
use crate::{
    meter::{Meter, Resident, Spent},
    record::record,
};

/// Bytes live.
const LIVE: usize = 128 << 20;
/// Points of the curve.
const POINTS: u64 = 200;
/// Turnovers in which the sizes go up and down again.
const CYCLE: f64 = 300.0;
/// The binary logarithms between which the smallest size moves; the largest is four times it.
const SMALLEST: [f64; 2] = [8.0, 13.0];

/// Replaces random blocks by blocks whose sizes drift from 256..1024 B to 8..32 KiB and back; every
/// page is written to. Prints what is resident beside what is live as it goes. The amount is in
/// turnovers; an operation is a block, allocated and freed.
pub(super) fn drift(job: &Job) -> Spent {
    let mut random = fastrand::Rng::with_seed(10);
    // As many as there are while the blocks are smallest.
    let mut blocks: Vec<Block> = Vec::with_capacity(LIVE >> 8);
    let (mut live, mut most) = (0, 0);
    let (mut ops, mut allocated) = (0, 0);
    let mut points = 0;
    let until = job.amount as usize * LIVE;
    let meter = Meter::process();
    while allocated < until {
        let size = size(allocated as f64 / LIVE as f64, &mut random);
        while live + size > LIVE {
            let victim = random.usize(..blocks.len());
            live -= blocks.swap_remove(victim).size();
        }
        let mut block = Block::new(size, ops as u32);
        block.touch();
        live += size;
        ops += 1;
        allocated += size;
        blocks.push(block);
        most = most.max(blocks.len());
        if allocated as u64 * POINTS / until as u64 > points {
            points += 1;
            // The table is live, too, as far as it was ever written to.
            let live = (live + most * size_of::<Block>()) as u64 >> 10;
            let allocated = allocated as u64 >> 20;
            println!("{}", Point { allocated, live, rss: Resident::read().now });
        }
    }
    drop(blocks);
    meter.stop(ops)
}

/// A size after so many turnovers: up and down again at constant speed, every doubling alike.
fn size(turnovers: f64, random: &mut fastrand::Rng) -> usize {
    let [low, high] = SMALLEST;
    let up_and_down = 1.0 - (1.0 - 2.0 * (turnovers / CYCLE).fract()).abs();
    let smallest = low + (high - low) * up_and_down;
    (smallest + 2.0 * random.f64()).exp2() as usize
}

record! {
    /// A moment of the run.
    "point" Point {
        /// MiB allocated so far.
        allocated,
        /// KiB that the program holds.
        live,
        /// KiB that are resident.
        rss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_up_and_down() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut range = |turnovers| {
            let sizes: Vec<_> = (0..1000).map(|_| size(turnovers, &mut random)).collect();
            (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap())
        };
        let small = |(least, most)| (256..280).contains(&least) && (950..=1024).contains(&most);
        assert!(small(range(0.0)) && small(range(300.0)));
        let (least, most) = range(450.0);
        assert!((8192..9000).contains(&least) && (30_000..=32_768).contains(&most));
    }
}
