//! The binary buddy system: blocks of powers of two at multiples of their size; one that is too large is
//! halved until it fits, and two free halves of one block become it again. What is free is known apart
//! from the blocks, so a block of 4096 bytes takes 4096. Of the free blocks of a size the lowest is taken.

use super::Strategy;
use std::collections::BTreeSet;

const SMALLEST: u32 = 5;
/// The whole: 2^46 bytes of address space, of which what lies below the highest block ever counts.
const WHOLE: u32 = 46;

pub struct Buddy {
    free: Vec<BTreeSet<u64>>,
    /// Address and order of each of the program's blocks.
    of: Vec<(u64, u32)>,
    top: u64,
}

impl Buddy {
    /// An empty heap for blocks numbered below `blocks`.
    pub fn new(blocks: u32) -> Buddy {
        let mut free = vec![BTreeSet::new(); WHOLE as usize + 1];
        free[WHOLE as usize].insert(0);
        Buddy { free, of: vec![(0, 0); blocks as usize], top: 0 }
    }

    /// How many free blocks there are.
    #[cfg(test)]
    pub fn free_blocks(&self) -> usize {
        self.free.iter().map(BTreeSet::len).sum()
    }

    /// The free bytes, of all orders.
    #[cfg(test)]
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().enumerate().map(|(order, free)| (free.len() as u64) << order).sum()
    }
}

impl Strategy for Buddy {
    fn alloc(&mut self, block: u32, size: u64, align: u64) -> u64 {
        let wanted = size.max(align).clamp(1 << SMALLEST, 1 << (WHOLE - 1));
        let order = wanted.next_power_of_two().trailing_zeros();
        let mut steps = 1;
        let mut from = order;
        while from < WHOLE && self.free[from as usize].is_empty() {
            from += 1;
            steps += 1;
        }
        let at = self.free[from as usize].pop_first().unwrap_or(self.top);
        while from > order {
            from -= 1;
            steps += 1;
            self.free[from as usize].insert(at + (1 << from));
        }
        self.of[block as usize] = (at, order);
        self.top = self.top.max(at + (1 << order));
        steps
    }

    fn free(&mut self, block: u32) -> u64 {
        let (mut at, mut order) = self.of[block as usize];
        let mut steps = 1;
        while order < WHOLE && self.free[order as usize].remove(&(at ^ 1 << order)) {
            at &= !(1 << order);
            order += 1;
            steps += 1;
        }
        self.free[order as usize].insert(at);
        steps
    }

    fn bytes(&self, block: u32) -> u64 {
        1 << self.of[block as usize].1
    }

    fn room(&self, block: u32) -> u64 {
        self.bytes(block)
    }

    fn top(&self) -> u64 {
        self.top
    }
}
