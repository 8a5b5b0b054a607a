//! Blocks, and lists of them that do not lie in the allocator under test.

use std::alloc::{Layout, alloc, dealloc};

/// A mebibyte.
pub const MIB: usize = 1 << 20;

/// Random numbers (xorshift64*), the same in every run.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * n as u128) >> 64) as usize
    }

    /// A size from `least` to `most`, log-uniform: as many small ones as large ones per doubling.
    pub fn size(&mut self, least: usize, most: usize) -> usize {
        let doublings = (most / least).max(1).ilog2() as usize + 1;
        let low = least << self.below(doublings);
        (low + self.below(low)).min(most)
    }
}

/// A list of blocks in a mapping of its own, so that it is neither counted nor in the way.
#[derive(Debug)]
pub struct Blocks {
    list: *mut (*mut u8, usize),
    room: usize,
    len: usize,
    bytes: usize,
}

// SAFETY: a list and plain memory with one holder.
unsafe impl Send for Blocks {}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid layout")
}

impl Blocks {
    /// An empty list with room for so many blocks; the room costs nothing until it is used.
    ///
    /// # Panics
    /// When the system has no address space.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        let bytes = (room * size_of::<(*mut u8, usize)>()).max(1);
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let list = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        assert!(list != libc::MAP_FAILED, "no address space for a list of {room}");
        Self { list: list.cast(), room, len: 0, bytes: 0 }
    }

    /// Blocks that hold `bytes`, each of a size that `size` says.
    #[must_use]
    pub fn fill(bytes: usize, least: usize, mut size: impl FnMut() -> usize) -> Self {
        let mut blocks = Self::with_room(bytes / least + 1);
        while blocks.bytes < bytes {
            blocks.push(size());
        }
        blocks
    }

    /// Adds a block and touches every page of it.
    ///
    /// # Panics
    /// When there is no room or no memory.
    pub fn push(&mut self, size: usize) {
        assert!(self.len < self.room, "the list is full");
        // SAFETY: `size` is not 0; what is written lies in the block and in the list's room.
        unsafe {
            let at = alloc(layout(size));
            assert!(!at.is_null(), "no memory");
            for offset in (0..size).step_by(4096) {
                at.add(offset).write(1);
            }
            self.list.add(self.len).write((at, size));
        }
        self.len += 1;
        self.bytes += size;
    }

    /// Frees the block at an index; the last one takes its place.
    ///
    /// # Panics
    /// When there is none.
    pub fn swap_remove(&mut self, index: usize) {
        assert!(index < self.len);
        self.len -= 1;
        // SAFETY: both indices are within the list; each block is freed once, with its own layout.
        unsafe {
            let (at, size) = *self.list.add(index);
            *self.list.add(index) = *self.list.add(self.len);
            dealloc(at, layout(size));
            self.bytes -= size;
        }
    }

    /// Frees all, in random order.
    pub fn free_shuffled(mut self, rng: &mut Rng) {
        while self.len > 0 {
            self.swap_remove(rng.below(self.len));
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        while self.len > 0 {
            self.swap_remove(self.len - 1);
        }
        let bytes = (self.room * size_of::<(*mut u8, usize)>()).max(1);
        // SAFETY: the mapping was made by `with_room` and nobody uses it any more.
        unsafe { libc::munmap(self.list.cast(), bytes) };
    }
}

/// Blocks of one size that are threaded together through their first words, in chains of which each new block
/// goes to a random one: freed chain by chain they go in an order that is as good as random, and no list of
/// them needs memory of its own.
#[derive(Debug)]
pub struct Chains {
    size: usize,
    heads: Vec<*mut u8>,
}

impl Chains {
    /// None yet, of blocks of `size` bytes.
    ///
    /// # Panics
    /// When no link fits into a block.
    #[must_use]
    pub fn new(size: usize) -> Self {
        assert!(size >= size_of::<*mut u8>(), "no link fits into {size} bytes");
        Self { size, heads: vec![std::ptr::null_mut(); 1024] }
    }

    /// Adds a block to one of the chains and touches every page of it.
    ///
    /// # Panics
    /// When there is no memory.
    pub fn push(&mut self, rng: &mut Rng) {
        let head = &mut self.heads[rng.below(1024)];
        // SAFETY: `size` is not 0; what is written lies in the block, which is aligned to 8.
        unsafe {
            let at = alloc(layout(self.size));
            assert!(!at.is_null(), "no memory");
            for offset in (0..self.size).step_by(4096) {
                at.add(offset).write(1);
            }
            at.cast::<*mut u8>().write(*head);
            *head = at;
        }
    }
}

impl Drop for Chains {
    fn drop(&mut self) {
        for head in &self.heads {
            let mut next = *head;
            while !next.is_null() {
                let at = next;
                // SAFETY: each block begins with its link, and is freed once, with its own layout.
                unsafe {
                    next = at.cast::<*mut u8>().read();
                    dealloc(at, layout(self.size));
                }
            }
        }
    }
}
