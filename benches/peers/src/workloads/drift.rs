//! Group 10: sizes that drift while about as many bytes stay live: fragmentation.

use super::{Job, block::Block};
use crate::meter::{Meter, Resident, Spent};

/// Bytes live.
const LIVE: usize = 128 << 20;
/// Points of the curve.
const POINTS: u64 = 200;
/// Times the sizes go up and down again.
const CYCLES: f64 = 4.0;
/// The binary logarithms between which the smallest size moves; the largest is four times it.
const SMALLEST: [f64; 2] = [5.0, 13.0];

/// Replaces random blocks by blocks whose sizes drift from 32..128 B to 8..32 KiB and back, four
/// times, while 128 MiB stay live; every page is written to. Prints what is resident beside what
/// is live as it goes. An operation is a block, allocated and freed.
pub(super) fn drift(job: &Job) -> Spent {
    let mut random = fastrand::Rng::with_seed(10);
    // As many as there are while the blocks are smallest, and some.
    let mut blocks: Vec<Block> = Vec::with_capacity(LIVE >> 5);
    let (mut live, mut most) = (0, 0);
    let meter = Meter::process();
    for op in 0..job.amount {
        let phase = op as f64 / job.amount as f64 * CYCLES * std::f64::consts::TAU;
        let [low, high] = SMALLEST;
        let smallest = low + (high - low) * (1.0 - phase.cos()) / 2.0;
        let size = (smallest + 2.0 * random.f64()).exp2() as usize;
        while live + size > LIVE {
            let victim = random.usize(..blocks.len());
            live -= blocks.swap_remove(victim).size();
        }
        let mut block = Block::new(size, op as u32);
        block.touch();
        live += size;
        blocks.push(block);
        most = most.max(blocks.len());
        if (op + 1) % (job.amount / POINTS).max(1) == 0 {
            // The table is live, too, as far as it was ever written to.
            let live = (live + most * size_of::<Block>()) as u64 >> 10;
            println!("{}", Point { ops: op + 1, live, rss: Resident::read().now });
        }
    }
    drop(blocks);
    meter.stop(job.amount)
}

/// A moment of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Operations so far.
    pub ops: u64,
    /// KiB that the program holds.
    pub live: u64,
    /// KiB that are resident.
    pub rss: u64,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "point ops={} live={} rss={}", self.ops, self.live, self.rss)
    }
}

impl Point {
    /// Reads the line that `Display` writes.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("point ")?.split_whitespace();
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.parse().ok();
        Some(Self { ops: value("ops=")?, live: value("live=")?, rss: value("rss=")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_parsed_as_printed() {
        let point = Point { ops: 1, live: 2, rss: 3 };
        assert_eq!(Point::parse(&point.to_string()), Some(point));
        assert_eq!(Point::parse("ops=1"), None);
    }
}
