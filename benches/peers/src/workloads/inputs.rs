//! The inputs of the loops, computed by the compiler: no allocation precedes the measurement, and
//! every allocator sees the same sizes in the same order in every run.

use std::cell::UnsafeCell;

/// Pairs in a round of `same`.
pub(super) const SAME: u64 = 1000;
/// Objects alive at the top of `lifo100`.
pub(super) const LIFO: usize = 100;
/// Objects alive in `fifo1000`.
pub(super) const FIFO: usize = 1000;
/// Bytes of an object in the shuffled loops.
pub(super) const SHUFFLED_BYTES: usize = 256;

/// Sizes from 8 to 1024 bytes, evenly distributed.
pub(super) static SIZES: [u16; 4096] = {
    let mut sizes = [0; 4096];
    let mut state = 1;
    let mut i = 0;
    while i < sizes.len() {
        let drawn;
        (state, drawn) = split_mix(state);
        sizes[i] = (8 + drawn % (1024 - 8 + 1)) as u16;
        i += 1;
    }
    sizes
};

/// A permutation of 0..16384: the order in which the shuffled loops free.
pub(super) static ORDER: [u16; 16384] = {
    let mut order = [0; 16384];
    let mut i = 0;
    while i < order.len() {
        order[i] = i as u16;
        i += 1;
    }
    let mut state = 2;
    while i > 1 {
        i -= 1;
        let drawn;
        (state, drawn) = split_mix(state);
        order.swap(i, (drawn % (i as u64 + 1)) as usize);
    }
    order
};

/// Where the empty twins write. Any thread may; nobody reads.
pub(super) static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; SHUFFLED_BYTES]));

/// Bytes that an empty twin takes for an object.
#[repr(align(64))]
pub(super) struct Scratch(pub(super) UnsafeCell<[u8; SHUFFLED_BYTES]>);

// SAFETY: the bytes are never read, and the only writers are the single-threaded loops of
// `loops.rs`, of which a worker runs one.
unsafe impl Sync for Scratch {}

/// One step of SplitMix64, written out because it runs at compile time.
const fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_span_the_range() {
        assert!(SIZES.iter().all(|s| (8..=1024).contains(s)));
        let mean = SIZES.iter().map(|&s| f64::from(s)).sum::<f64>() / SIZES.len() as f64;
        assert!((500.0..532.0).contains(&mean), "mean {mean}");
    }

    #[test]
    fn order_is_a_shuffled_permutation() {
        let mut sorted = ORDER;
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &o)| i == usize::from(o)));
        let in_place = (0..ORDER.len()).filter(|&i| ORDER[i] == i as u16).count();
        assert!(in_place < 10, "{in_place} in place");
    }
}
