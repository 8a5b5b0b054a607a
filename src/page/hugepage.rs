//! The arithmetic of one word of free bits: a buddy allocator with no tree and no lists.
//!
//! Bit = free. A run of order k is 2^k bits at a multiple of 2^k; its buddy is `first ^ (1 << k)`.
//! Two free buddies simply *are* the bigger run, so coalescing is nothing that has to be done. The
//! same arithmetic serves granules in a hugepage and hugepages in a word of the map. Pure functions;
//! the compare-and-swaps around them are in [`window`](super::window).

use crate::base::units::bit_range;

/// `STARTS[k]`: the bits where a run of order k may begin.
const STARTS: [u64; 7] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    1,
];

/// The first bits of all free runs of order `order + 1`, given those of `order`.
const fn double(runs: u64, order: usize) -> u64 {
    runs & (runs >> (1 << order)) & STARTS[order + 1]
}

/// Which orders have a *maximal* free run in `word`: bit k is set if some free run of order k is not
/// half of a free run of order k + 1.
pub const fn orders(word: u64) -> u32 {
    let mut found = 0;
    let mut runs = word;
    let mut order = 0;
    while runs != 0 {
        let bigger = if order < 6 { double(runs, order) } else { 0 };
        let covered = if order < 6 { bigger | (bigger << (1 << order)) } else { 0 };
        if runs & !covered != 0 {
            found |= 1 << order;
        }
        runs = bigger;
        order += 1;
    }
    found
}

/// Whether `word` has a maximal free run of this order: one bit of [`orders`], for less.
pub const fn has(word: u64, order: u32) -> bool {
    let mut runs = word;
    let mut at = 0;
    while at < order as usize {
        runs = double(runs, at);
        at += 1;
    }
    let bigger = if at < 6 { double(runs, at) } else { 0 };
    let covered = if at < 6 { bigger | (bigger << (1 << at)) } else { 0 };
    runs & !covered != 0
}

/// The order of the maximal free run of which that of `order` at `first` is part.
pub const fn merged(word: u64, first: u32, order: u32) -> u32 {
    let (mut first, mut order) = (first, order);
    while order < 6 {
        let buddy = bit_range(first ^ (1 << order), 1 << order);
        if word & buddy != buddy {
            break;
        }
        first &= !(1 << order);
        order += 1;
    }
    order
}

/// The first bit of the free run that best serves `order`: in the smallest maximal run that is big
/// enough, the lowest of those.
pub const fn pick(word: u64, order: u32) -> Option<u32> {
    let mut runs = word;
    let mut at = 0;
    while at < order as usize {
        runs = double(runs, at);
        at += 1;
    }
    while runs != 0 {
        let bigger = if at < 6 { double(runs, at) } else { 0 };
        let covered = if at < 6 { bigger | (bigger << (1 << at)) } else { 0 };
        let maximal = runs & !covered;
        if maximal != 0 {
            return Some(maximal.trailing_zeros());
        }
        runs = bigger;
        at += 1;
    }
    None
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    fn free(word: u64, first: u32, order: u32) -> bool {
        let run = bit_range(first, 1 << order);
        word & run == run
    }

    fn maximal(word: u64, first: u32, order: u32) -> bool {
        free(word, first, order) && (order == 6 || !free(word, first & !(1 << order), order + 1))
    }

    fn words() -> impl Iterator<Item = u64> {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        (0..20_000).map(move |i| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            match i % 5 {
                0 => x,
                1 => x | x.rotate_left(1) | x.rotate_left(2),
                2 => x & x.rotate_left(9) & x.rotate_left(17),
                3 => u64::MAX << (x % 64),
                _ => !(bit_range((x % 64) as u32, 1)),
            }
        })
    }

    #[test]
    fn orders_and_pick_agree_with_the_definition() {
        for word in words().chain([0, u64::MAX, 1, 1 << 63]) {
            for order in 0..=6 {
                let starts = (0..64u32).step_by(1 << order);
                let any = starts.clone().any(|first| maximal(word, first, order));
                assert_eq!(orders(word) >> order & 1 == 1, any, "{word:#x} order {order}");
                assert_eq!(has(word, order), any, "{word:#x} order {order}");
                for first in starts.filter(|&first| free(word, first, order)) {
                    let of = |o: u32| free(word, first & !((1 << o) - 1), o);
                    let most = (order..=6).take_while(|&o| of(o)).last();
                    assert_eq!(Some(merged(word, first, order)), most, "{word:#x} at {first}");
                }
                let best = (order..=6).find_map(|o| {
                    (0..64u32).step_by(1 << o).find(|&first| maximal(word, first, o))
                });
                assert_eq!(pick(word, order), best, "{word:#x} order {order}");
            }
        }
    }
}
