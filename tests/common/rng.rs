//! Random numbers whose whole future follows from one printed seed.

/// xorshift64*: enough for tests, and no dependency.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring streams, and the state must not be zero.
        Self(mix(seed) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A size in `1..=most`, every power of two as likely as the next.
    pub fn size(&mut self, most: usize) -> usize {
        let bits = self.below(usize::BITS as usize - most.leading_zeros() as usize) + 1;
        (1 + self.below(1 << bits)).min(most)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A bijection that spreads its input over all 64 bits (the finaliser of splitmix64).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The seed of a run: `SPANDREL_SEED` if that is set, else a fixed one. Printed by those who fail.
pub fn seed() -> u64 {
    match std::env::var("SPANDREL_SEED") {
        Ok(text) => text.parse().expect("SPANDREL_SEED is a number"),
        Err(_) => 20_260_731,
    }
}

/// How much longer than usual to run: `SPANDREL_FACTOR`, 1 by default.
pub fn factor() -> usize {
    match std::env::var("SPANDREL_FACTOR") {
        Ok(text) => text.parse().expect("SPANDREL_FACTOR is a number"),
        Err(_) => 1,
    }
}
