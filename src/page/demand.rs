//! What the last peaks of demand say will be asked for again.
//!
//! A program that works in bursts frees what it takes again a moment later. Two peaks in a row, no
//! further apart than free memory stays anyway, are taken for a habit: what the lower of them needed
//! is kept until it has stayed its whole time. One peak alone is none, and is given back along the
//! decay from its end.
//!
//! Written by whoever wins a tick, one thread a quarter of a second; a lost update costs a guess.

use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::AtomicU32;

/// A rise or a fall by less than this many hugepages is noise.
const NOISE: u32 = 4;

/// Hugepages in use over time, as far as it matters.
#[derive(Debug)]
pub struct Demand {
    /// The highest since demand last rose, or the lowest since it last fell.
    turn: AtomicU32,
    /// 1 while it falls.
    falling: AtomicU32,
    /// The last two peaks: how high, and when demand had left them, in milliseconds.
    last: [AtomicU32; 2],
    before: [AtomicU32; 2],
}

impl Demand {
    const_fn! {
        /// No demand yet; all zero bits.
        pub fn new() -> Self {
            Self {
                turn: AtomicU32::new(0),
                falling: AtomicU32::new(0),
                last: array![AtomicU32::new(0); 2],
                before: array![AtomicU32::new(0); 2],
            }
        }
    }

    /// Notes that `used` hugepages are in use; answers how many free ones to keep beside them.
    pub fn note(&self, used: u32, now: u32, decay: u32) -> u32 {
        let turn = self.turn.load(Relaxed);
        if self.falling.load(Relaxed) == 0 {
            if used + (turn / 4).max(NOISE) <= turn {
                for (to, from) in self.before.iter().zip(&self.last) {
                    to.store(from.load(Relaxed), Relaxed);
                }
                self.last[0].store(turn, Relaxed);
                self.last[1].store(now, Relaxed);
                self.falling.store(1, Relaxed);
                self.turn.store(used, Relaxed);
            } else {
                self.turn.store(turn.max(used), Relaxed);
            }
        } else if used >= turn + (turn / 4).max(NOISE) {
            self.falling.store(0, Relaxed);
            self.turn.store(used, Relaxed);
        } else {
            self.turn.store(turn.min(used), Relaxed);
        }
        self.expected(now, decay).saturating_sub(used)
    }

    /// How many hugepages will be asked for again soon.
    fn expected(&self, now: u32, decay: u32) -> u32 {
        let [last, ended] = [0, 1].map(|i| self.last[i].load(Relaxed));
        let [before, ended_before] = [0, 1].map(|i| self.before[i].load(Relaxed));
        let habit = ended.wrapping_sub(ended_before) <= decay && now.wrapping_sub(ended) < decay;
        if habit { last.min(before) } else { 0 }
    }
}

impl Default for Demand {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    /// A tick every 250 ms: `high` hugepages for `up` ms, none for `down` ms, `rounds` times. Answers
    /// what was to be kept at each tick.
    fn bursts(demand: &Demand, start: u32, high: u32, up: u32, down: u32, rounds: u32) -> Vec<u32> {
        let ticks = rounds * (up + down) / 250;
        let used = |tick: u32| if tick * 250 % (up + down) < up { high } else { 0 };
        (0..ticks).map(|t| demand.note(used(t), start + t * 250, 10_000)).collect()
    }

    #[test]
    fn one_burst_is_no_habit() {
        let demand = Demand::new();
        assert!(bursts(&demand, 50_000, 500, 2_000, 30_000, 1).iter().all(|&kept| kept == 0));
    }

    #[test]
    fn a_second_burst_soon_after_is_one_until_it_has_been_too_long() {
        let demand = Demand::new();
        let first = bursts(&demand, 50_000, 500, 1_000, 3_000, 1);
        assert!(first.iter().all(|&kept| kept == 0));
        let kept = bursts(&demand, 54_000, 400, 1_000, 30_000, 1);
        assert_eq!(kept[3], 0, "all of it is in use");
        assert!(kept[5..40].iter().all(|&kept| kept == 400), "{kept:?}");
        assert!(kept[45..].iter().all(|&kept| kept == 0), "{kept:?}");
    }

    #[test]
    fn bursts_far_apart_are_none() {
        let demand = Demand::new();
        assert!(bursts(&demand, 50_000, 500, 1_000, 15_000, 5).iter().all(|&kept| kept == 0));
    }

    #[test]
    fn steady_demand_with_noise_has_no_peaks() {
        let demand = Demand::new();
        for tick in 0..1000 {
            assert_eq!(demand.note(100 + tick % 7, tick * 250, 10_000), 0);
        }
    }
}
