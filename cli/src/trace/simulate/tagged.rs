//! A heap of blocks with boundary tags, as Knuth has it: every block has a header of 8 bytes, neighbours
//! that are both free become one, and what is too large is split. Which free block serves a request is
//! the strategy.

use super::{Strategy, round};

/// How a free block is found, and where a freed one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The first that is large enough, by address.
    First,
    /// The same, from where the last search ended.
    Next,
    /// The smallest that is large enough: all are looked at, unless one fits exactly.
    Best,
    /// A list for each power of two; the first that is large enough in the request's own list, then in
    /// those of larger blocks. A freed block goes to the front of its list.
    Segregated,
}

const NONE: u32 = u32::MAX;
const HEADER: u64 = 8;
const SMALLEST: u64 = 32;
/// Lists of [`Fit::Segregated`]: blocks from 2^5 bytes on.
const LISTS: usize = 59;

/// A block, free or not.
#[derive(Clone, Copy, Debug)]
struct Block {
    at: u64,
    bytes: u64,
    /// Its neighbours in memory.
    below: u32,
    above: u32,
    /// Its neighbours in its list, if it is free.
    before: u32,
    behind: u32,
    free: bool,
}

/// The heap.
pub struct Tagged {
    fit: Fit,
    blocks: Vec<Block>,
    /// Places in `blocks` that are unused.
    spare: Vec<u32>,
    /// The first and last free block of each list; one list but for [`Fit::Segregated`].
    first: Vec<u32>,
    /// Where [`Fit::Next`] goes on.
    rover: u32,
    /// The block highest in memory.
    highest: u32,
    top: u64,
    /// The block that each of the program's blocks lies in.
    of: Vec<u32>,
}

impl Tagged {
    /// An empty heap for blocks numbered below `blocks`.
    pub fn new(fit: Fit, blocks: u32) -> Tagged {
        Tagged {
            fit,
            blocks: Vec::new(),
            spare: Vec::new(),
            first: vec![NONE; if fit == Fit::Segregated { LISTS } else { 1 }],
            rover: NONE,
            highest: NONE,
            top: 0,
            of: vec![NONE; blocks as usize],
        }
    }

    fn block(&mut self, index: u32) -> &mut Block {
        &mut self.blocks[index as usize]
    }

    fn list(&self, bytes: u64) -> usize {
        if self.fit == Fit::Segregated { (bytes.ilog2() - SMALLEST.ilog2()) as usize } else { 0 }
    }

    fn new_block(&mut self, block: Block) -> u32 {
        match self.spare.pop() {
            Some(index) => {
                *self.block(index) = block;
                index
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() as u32 - 1
            }
        }
    }

    /// Takes a free block off its list.
    fn unlink(&mut self, index: u32) {
        let Block { before, behind, bytes, .. } = *self.block(index);
        match before {
            NONE => {
                let list = self.list(bytes);
                self.first[list] = behind;
            }
            _ => self.block(before).behind = behind,
        }
        if behind != NONE {
            self.block(behind).before = before;
        }
        if self.rover == index {
            self.rover = behind;
        }
    }

    /// Puts a free block on its list, behind `before`.
    fn link(&mut self, index: u32, before: u32) {
        let list = self.list(self.blocks[index as usize].bytes);
        let behind = if before == NONE { self.first[list] } else { self.block(before).behind };
        *self.block(index) = Block { before, behind, free: true, ..*self.block(index) };
        match before {
            NONE => self.first[list] = index,
            _ => self.block(before).behind = index,
        }
        if behind != NONE {
            self.block(behind).before = index;
        }
    }

    /// Puts a free block where the strategy wants it, and answers the steps to there.
    fn insert(&mut self, index: u32) -> u64 {
        let (mut before, mut steps) = (NONE, 1);
        if self.fit != Fit::Segregated {
            let at = self.block(index).at;
            let mut next = self.first[0];
            while next != NONE && self.block(next).at < at {
                (before, next) = (next, self.block(next).behind);
                steps += 1;
            }
        }
        self.link(index, before);
        steps
    }

    /// The first free block from `from` on, up to `end`, of at least so many bytes.
    fn walk(&self, from: u32, end: u32, bytes: u64, steps: &mut u64) -> Option<u32> {
        let mut at = from;
        while at != end {
            let block = &self.blocks[at as usize];
            *steps += 1;
            if block.bytes >= bytes {
                return Some(at);
            }
            at = block.behind;
        }
        None
    }

    fn find(&self, bytes: u64, steps: &mut u64) -> Option<u32> {
        match self.fit {
            Fit::First => self.walk(self.first[0], NONE, bytes, steps),
            Fit::Next => self
                .walk(self.rover, NONE, bytes, steps)
                .or_else(|| self.walk(self.first[0], self.rover, bytes, steps)),
            Fit::Best => {
                let (mut best, mut at) = (None, self.first[0]);
                let mut least = u64::MAX;
                while at != NONE {
                    let block = &self.blocks[at as usize];
                    *steps += 1;
                    if block.bytes >= bytes && block.bytes < least {
                        (best, least) = (Some(at), block.bytes);
                        if least == bytes {
                            break;
                        }
                    }
                    at = block.behind;
                }
                best
            }
            Fit::Segregated => (self.list(bytes)..LISTS).find_map(|list| {
                *steps += 1;
                self.walk(self.first[list], NONE, bytes, steps)
            }),
        }
    }

    /// More memory: a block of this size at the top, joined with a free one there.
    fn grow(&mut self, bytes: u64) -> u32 {
        let highest = self.highest;
        if highest != NONE && self.block(highest).free {
            self.unlink(highest);
            let block = self.block(highest);
            let more = bytes - block.bytes;
            *block = Block { bytes, free: false, ..*block };
            self.top += more;
            return highest;
        }
        let block = Block {
            at: self.top,
            bytes,
            below: highest,
            above: NONE,
            before: NONE,
            behind: NONE,
            free: false,
        };
        let index = self.new_block(block);
        if highest != NONE {
            self.block(highest).above = index;
        }
        self.highest = index;
        self.top += bytes;
        index
    }

    /// Cuts what is more than `bytes` off a block that is being handed out, as a free block.
    fn split(&mut self, index: u32, bytes: u64) -> u64 {
        let block = *self.block(index);
        let rest = block.bytes - bytes;
        let before = block.before;
        if rest < SMALLEST {
            self.unlink(index);
            self.block(index).free = false;
            return 0;
        }
        let roved = self.rover == index;
        self.unlink(index);
        *self.block(index) = Block { bytes, free: false, ..block };
        let cut = Block {
            at: block.at + bytes,
            bytes: rest,
            below: index,
            above: block.above,
            before: NONE,
            behind: NONE,
            free: true,
        };
        let cut = self.new_block(cut);
        self.block(index).above = cut;
        match block.above {
            NONE => self.highest = cut,
            above => self.block(above).below = cut,
        }
        if self.fit == Fit::Segregated {
            self.link(cut, NONE);
        } else {
            // In the order of addresses its place is that of the whole.
            self.link(cut, before);
        }
        if roved {
            self.rover = cut;
        }
        1
    }

    /// Joins a block with the one above it, which goes.
    fn join(&mut self, index: u32) {
        let above = self.block(index).above;
        let gone = *self.block(above);
        let block = self.block(index);
        block.bytes += gone.bytes;
        block.above = gone.above;
        match gone.above {
            NONE => self.highest = index,
            above => self.block(above).below = index,
        }
        self.spare.push(above);
    }

    fn is_free(&self, index: u32) -> bool {
        index != NONE && self.blocks[index as usize].free
    }
}

impl Strategy for Tagged {
    fn alloc(&mut self, block: u32, size: u64, align: u64) -> u64 {
        // Where the alignment is coarse, room to move in.
        let spare = if align > 16 { align } else { 0 };
        let bytes = round(size.saturating_add(HEADER).saturating_add(spare), 16).max(SMALLEST);
        let mut steps = 0;
        let index = match self.find(bytes, &mut steps) {
            Some(index) => {
                if self.fit == Fit::Next {
                    self.rover = index;
                }
                steps += self.split(index, bytes);
                index
            }
            None => {
                steps += 1;
                self.grow(bytes)
            }
        };
        self.of[block as usize] = index;
        steps
    }

    fn free(&mut self, block: u32) -> u64 {
        let index = std::mem::replace(&mut self.of[block as usize], NONE);
        let Block { below, above, .. } = *self.block(index);
        // Both neighbours' tags are read.
        let mut steps = 2;
        let (low, high) = (self.is_free(below), self.is_free(above));
        if self.fit == Fit::Segregated {
            // The list depends on the size, so every join takes blocks off theirs.
            let mut index = index;
            if high {
                self.unlink(above);
                self.join(index);
            }
            if low {
                self.unlink(below);
                self.join(below);
                index = below;
            }
            return steps + self.insert(index);
        }
        match (low, high) {
            (true, true) => {
                self.unlink(above);
                self.join(index);
                self.join(below);
            }
            (true, false) => self.join(below),
            (false, true) => {
                // It takes the other's place in the list.
                let roved = self.rover == above;
                let before = self.block(above).before;
                self.unlink(above);
                self.join(index);
                self.link(index, before);
                if roved {
                    self.rover = index;
                }
            }
            (false, false) => steps += self.insert(index),
        }
        steps
    }

    fn bytes(&self, block: u32) -> u64 {
        self.blocks[self.of[block as usize] as usize].bytes
    }

    fn room(&self, block: u32) -> u64 {
        self.bytes(block) - HEADER
    }

    fn top(&self) -> u64 {
        self.top
    }
}

#[cfg(test)]
impl Tagged {
    /// Checks that the blocks tile memory, that no two neighbours are free, and that exactly the free ones
    /// are on a list, in the right order.
    pub fn check(&self) {
        let mut at = self.highest;
        let (mut end, mut free) = (self.top, 0);
        while at != NONE {
            let block = self.blocks[at as usize];
            assert_eq!(block.at + block.bytes, end);
            assert!(!(block.free && self.is_free(block.below)), "two free neighbours");
            free += usize::from(block.free);
            (end, at) = (block.at, block.below);
        }
        assert_eq!(end, 0);
        let mut listed = 0;
        for (list, &first) in self.first.iter().enumerate() {
            let (mut at, mut before) = (first, NONE);
            while at != NONE {
                let block = self.blocks[at as usize];
                assert!(block.free && block.before == before && self.list(block.bytes) == list);
                if self.fit != Fit::Segregated && before != NONE {
                    assert!(self.blocks[before as usize].at < block.at, "not in order");
                }
                listed += 1;
                (before, at) = (at, block.behind);
            }
        }
        assert_eq!(listed, free);
        assert!(self.rover == NONE || self.is_free(self.rover));
    }
}

#[cfg(test)]
impl Tagged {
    /// Where a block of the program's begins.
    pub fn address(&self, block: u32) -> u64 {
        self.blocks[self.of[block as usize] as usize].at
    }

    /// How many free blocks there are.
    pub fn free_blocks(&self) -> usize {
        self.blocks.len()
            - self.spare.len()
            - self.of.iter().filter(|&&index| index != NONE).count()
    }
}
