//! How many objects a thread keeps. Pure functions and constants.
//!
//! A bin climbs a ladder of capacities: 8 (or 4 KiB, at least one), doubled at every miss or overflow up to
//! one batch; then a batch more each time underflow and overflow alternate, up to four batches. What a
//! whole cache may keep is bounded by a budget in bytes of capacity; the first rung is free. Objects of a
//! page and more are kept only while underflow and overflow alternate.

use super::bin::Slot;
use crate::base::classes::{CLASSES, Class};

/// A cache's budget at first, in bytes of capacity above the first rungs.
pub const BUDGET: u32 = 256 << 10;
/// What the budget of a thread that keeps running into it may grow to.
pub const BUDGET_MOST: u32 = 2 << 20;
/// Slow calls between two looks at what lies unused.
pub const SWEEP_EVERY: u32 = 512;
/// Slow calls after which the floors below are asked whether it is time to give something back: a thread that
/// allocates little comes by seldom.
pub const TICK_EVERY: u32 = 16;

/// Objects larger than this are cold in any case when they are used again, and a few scattered ones keep
/// many spans: which of them stay is decided by address.
pub const SCATTERED: usize = 1 << 10;

/// A thread that has given so many bytes more than it got is done with a burst, and keeps nothing of it.
/// One that comes back for them has not been, and may give twice as many the next time, up to its budget.
pub const RELEASE: usize = 32 << 10;

/// Objects and bytes of a first rung.
const FIRST: usize = 8;
const FIRST_BYTES: usize = 4 << 10;
/// Rungs of the longest ladder: 8, 16, 32, 62, 124, 186, 248.
pub const RUNGS: usize = 7;

/// The capacities of a class, in objects; 0 beyond the last.
const fn ladder(batch: usize, size: usize) -> [u16; RUNGS] {
    let mut rungs = [0; RUNGS];
    let mut capacity = FIRST_BYTES / size;
    if capacity > FIRST {
        capacity = FIRST;
    }
    if capacity > batch {
        capacity = batch;
    }
    if capacity == 0 {
        capacity = 1;
    }
    let mut i = 0;
    while i < RUNGS && capacity <= 4 * batch {
        rungs[i] = capacity as u16;
        capacity = if capacity >= batch {
            capacity + batch
        } else if capacity * 2 > batch {
            batch
        } else {
            capacity * 2
        };
        i += 1;
    }
    rungs
}

const LADDERS: [[u16; RUNGS]; CLASSES] = {
    let mut ladders = [[0; RUNGS]; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let its = Class::from_index(class);
        ladders[class] = ladder(its.batch(), its.size());
        class += 1;
    }
    ladders
};

/// Where each rung's array lies in a cache's slots: all first rungs, then all second ones, ..., so
/// that a thread which keeps little touches little memory. The slot before each is never written: a
/// bin may look at what lies below its lowest object.
const OFFSETS: ([[u32; RUNGS]; CLASSES], usize) = {
    let mut offsets = [[0; RUNGS]; CLASSES];
    let (mut at, mut rung) = (0, 0);
    while rung < RUNGS {
        let mut class = 0;
        while class < CLASSES {
            if LADDERS[class][rung] != 0 {
                offsets[class][rung] = at as u32 + 1;
                at += 1 + LADDERS[class][rung] as usize;
            }
            class += 1;
        }
        rung += 1;
    }
    (offsets, at)
};

/// Slots that all arrays of a cache take together.
pub const SLOTS: usize = OFFSETS.1;

/// A rung of a class's ladder: which array, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Its first slot.
    pub offset: usize,
    /// Its length in objects.
    pub capacity: usize,
}

/// Rung number `index` of `class`, from 0; `None` beyond the last.
pub fn rung(class: Class, index: usize) -> Option<Rung> {
    let capacity = *LADDERS[class.index()].get(index)? as usize;
    let offset = OFFSETS.0[class.index()][index] as usize;
    (capacity != 0).then_some(Rung { offset, capacity })
}

/// No bin of `class` holds more objects than this.
pub fn longest(class: Class) -> usize {
    4 * class.batch()
}

/// The length of rung number `index` in objects; 0 beyond the last.
#[inline]
pub fn capacity(class: Class, index: usize) -> usize {
    LADDERS[class.index()].get(index).map_or(0, |&capacity| capacity as usize)
}

/// Bytes of budget that a bin on rung `index` uses.
#[inline]
pub fn cost(class: Class, index: usize) -> u32 {
    let first = LADDERS[class.index()][0] as usize;
    (capacity(class, index).saturating_sub(first) * class.size()) as u32
}

/// What happened to a bin last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Nothing yet.
    None = 0,
    /// It ran empty.
    Underflow,
    /// It ran full.
    Overflow,
}

/// Objects from this size on are kept only where the demand swings, from the first: a thread that merely
/// passes through leaves none behind, and each would keep a span of up to 256 KiB.
const SWINGING: usize = 4096;

/// Whether a bin with this capacity should climb: below a batch always, above when the demand
/// swings.
pub fn wants_more(class: Class, capacity: usize, last: Event, now: Event) -> bool {
    (capacity < class.batch() && class.size() < SWINGING) || (last != Event::None && last != now)
}

/// How many of `unused` objects, which lay below the mark since the last look, go back.
pub fn surplus(unused: usize) -> usize {
    unused - unused / 4
}

/// The budget after a look: more while it stands in the way, less when it does not.
pub fn next_budget(budget: u32, denied: bool) -> u32 {
    if denied { (budget * 2).min(BUDGET_MOST) } else { (budget / 2).max(BUDGET) }
}

/// The room that all slots of a cache need.
pub type Slots = [Slot; SLOTS];

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn ladders_are_the_documented_ones() {
        let rungs = |size| {
            let class = Class::of(size, 8).unwrap();
            (0..RUNGS).map_while(|i| rung(class, i)).map(|r| r.capacity).collect::<Vec<_>>()
        };
        assert_eq!(rungs(64), [8, 16, 32, 62, 124, 186, 248]);
        assert_eq!(rungs(1024), [4, 8, 16, 32, 48, 64]);
        assert_eq!(rungs(4096), [1, 2, 4, 8, 12, 16]);
        assert_eq!(rungs(32768), [1, 2, 4, 6, 8]);
    }

    #[test]
    fn arrays_do_not_overlap() {
        let mut used = vec![false; SLOTS];
        for class in Class::all() {
            for rung in (0..RUNGS).map_while(|i| rung(class, i)) {
                // The slot below is part of it.
                for slot in &mut used[rung.offset - 1..rung.offset + rung.capacity] {
                    assert!(!std::mem::replace(slot, true));
                }
            }
        }
        assert!(used.iter().all(|&slot| slot), "no slot is wasted");
        println!("slots of a cache: {} KiB", (SLOTS * size_of::<Slot>()) >> 10);
    }

    #[test]
    fn budget_grows_under_pressure_and_shrinks_without() {
        let mut budget = BUDGET;
        for _ in 0..5 {
            budget = next_budget(budget, true);
        }
        assert_eq!(budget, BUDGET_MOST);
        for _ in 0..5 {
            budget = next_budget(budget, false);
        }
        assert_eq!(budget, BUDGET);
    }
}
