//! A block of memory that knows what was written into it.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
};

/// A heap block of any size from 16 bytes, stamped at both ends. It checks the stamps when it is
/// dropped, on whatever thread that is: had somebody else been given the same bytes, or had the
/// block moved, one of the two would not find its own.
#[derive(Debug)]
pub(super) struct Block {
    at: NonNull<u64>,
    size: u32,
    serial: u32,
}

// SAFETY: the block is owned, and nothing else points to it.
unsafe impl Send for Block {}

impl Block {
    /// Takes `size` bytes, at least 16; `serial` should be another one for every block.
    pub(super) fn new(size: usize, serial: u32) -> Self {
        assert!((16..=u32::MAX as usize).contains(&size));
        // SAFETY: the size is not 0.
        let at = unsafe { alloc(layout(size)) };
        let Some(at) = NonNull::new(at.cast()) else {
            handle_alloc_error(layout(size));
        };
        let block = Self { at, size: size as u32, serial };
        // SAFETY: there are 8 bytes at either end, `at` is 8-aligned, and
        // nobody else knows them.
        unsafe {
            at.write(block.stamp());
            block.tail().write_unaligned(block.stamp());
        }
        block
    }

    /// Bytes asked for.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// Writes to every page between the ends, so that all of the block is resident.
    pub(super) fn touch(&mut self) {
        for offset in (4096..self.size().saturating_sub(16)).step_by(4096) {
            // SAFETY: inside the block, below the tail, and volatile as nobody reads it.
            unsafe { self.at.cast::<u8>().add(offset).write_volatile(1) };
        }
    }

    fn stamp(&self) -> u64 {
        let words = u64::from(self.serial) << 32 | u64::from(self.size);
        words.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn tail(&self) -> NonNull<u64> {
        // SAFETY: the size is at least 16.
        unsafe { self.at.byte_add(self.size() - 8) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `new` wrote both, and the block is still owned.
        let (head, tail) = unsafe { (self.at.read(), self.tail().read_unaligned()) };
        let intact = head == self.stamp() && tail == self.stamp();
        assert!(intact, "block of {} bytes at {:?}: not as it was left", self.size, self.at);
        // SAFETY: taken by `new` with this layout, and not used again.
        unsafe { dealloc(self.at.cast().as_ptr(), layout(self.size())) };
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a u32 is no overflow")
}

/// A size from 2^`from` to 2^`to` bytes: every doubling equally likely, and evenly distributed
/// within.
pub(super) fn log_uniform(random: &mut fastrand::Rng, from: u32, to: u32) -> usize {
    let least = 1_u64 << random.u32(from..to);
    (least + (random.u64(..) & (least - 1))) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_size_survive() {
        let mut blocks: Vec<Block> =
            (16..200).chain([4096, 5000, 70_000]).zip(0..).map(|(s, n)| Block::new(s, n)).collect();
        blocks.iter_mut().for_each(Block::touch);
        assert_eq!(blocks[0].size(), 16);
    }

    #[test]
    #[should_panic(expected = "not as it was left")]
    fn a_stray_write_is_seen() {
        let block = Block::new(64, 7);
        // SAFETY: inside the block.
        unsafe { block.at.byte_add(60).cast::<u8>().write(0) };
        drop(block);
    }

    #[test]
    fn sizes_span_the_range() {
        let mut random = fastrand::Rng::with_seed(1);
        let sizes: Vec<usize> = (0..10_000).map(|_| log_uniform(&mut random, 4, 16)).collect();
        assert!(sizes.iter().all(|s| (16..65536).contains(s)));
        let small = sizes.iter().filter(|&&s| s < 1024).count();
        assert!((4700..5300).contains(&small), "{small} of 10000 below 1 KiB");
    }
}
