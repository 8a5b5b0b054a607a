//! A block under test: entered in the ledger, filled with a pattern of its own, checked before it is
//! resized and before it is freed.

use super::ledger;
use super::rng::mix;
use spandrel::Spandrel;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

/// Bytes after which a pattern repeats, so that it is written and compared at the speed of memcpy.
const PERIOD: usize = 64;

/// A block that the test holds. Dropping it checks and frees it.
#[derive(Debug)]
pub struct Block {
    at: NonNull<u8>,
    layout: Layout,
    seed: u64,
}

// SAFETY: a block is plain memory with one holder.
unsafe impl Send for Block {}

/// How a block is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Plain,
    Zeroed,
}

impl Block {
    /// Allocates and fills; `None` when the allocator says no.
    #[track_caller]
    pub fn new(layout: Layout, ask: Ask, seed: u64) -> Option<Self> {
        // SAFETY: Spandrel serves size 0 too, by its own contract.
        let at = unsafe {
            match ask {
                Ask::Plain => Spandrel.alloc(layout),
                Ask::Zeroed => Spandrel.alloc_zeroed(layout),
            }
        };
        let at = NonNull::new(at)?;
        let mut block = Self { at, layout, seed };
        block.enter();
        if ask == Ask::Zeroed
            && let Some(offset) = first_difference(block.bytes(), &[0; PERIOD])
        {
            panic!("{block:x?}: not zero at {offset}");
        }
        block.fill();
        Some(block)
    }

    /// One that must succeed.
    #[track_caller]
    pub fn must(size: usize, align: usize, seed: u64) -> Self {
        let layout = Layout::from_size_align(size, align).expect("a valid layout");
        Self::new(layout, Ask::Plain, seed).unwrap_or_else(|| panic!("{layout:?}: no memory"))
    }

    pub fn addr(&self) -> usize {
        self.at.addr().get()
    }

    pub fn size(&self) -> usize {
        self.layout.size()
    }

    pub fn align(&self) -> usize {
        self.layout.align()
    }

    /// Dies if any byte is not what was last written there.
    #[track_caller]
    pub fn check(&self) {
        if let Some(offset) = first_difference(self.bytes(), &pattern(self.seed)) {
            let found = &self.bytes()[offset..self.layout.size().min(offset + 16)];
            panic!("{self:x?}: byte {offset} changed; from there: {found:02x?}");
        }
    }

    /// Resizes; false when the allocator says no, and then nothing has changed.
    #[track_caller]
    pub fn resize(&mut self, size: usize) -> bool {
        self.check();
        self.leave();
        // SAFETY: the block is held by this test alone; `size` is at least 1 and fits the alignment.
        let at = unsafe { Spandrel.realloc(self.at.as_ptr(), self.layout, size) };
        let Some(at) = NonNull::new(at) else {
            self.enter();
            self.check();
            return false;
        };
        let old = self.layout.size();
        self.at = at;
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("a valid layout");
        self.enter();
        let kept = &self.bytes()[..old.min(size)];
        if let Some(offset) = first_difference(kept, &pattern(self.seed)) {
            panic!("{self:x?}, resized from {old}: byte {offset} was lost");
        }
        self.seed = mix(self.seed);
        self.fill();
        true
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is this long, and initialised by `fill` or by `alloc_zeroed`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.layout.size()) }
    }

    #[track_caller]
    fn enter(&self) {
        let addr = self.addr();
        assert!(addr.is_multiple_of(self.layout.align()), "{self:x?}: not aligned");
        assert!(addr.is_multiple_of(8), "{self:x?}: not even aligned for a word");
        if let Err(twice) = ledger::claim(addr, self.layout.size()) {
            panic!("{self:x?}: {twice:#x} is held by another block already");
        }
    }

    #[track_caller]
    fn leave(&self) {
        if let Err(lost) = ledger::release(self.addr(), self.layout.size()) {
            panic!("{self:x?}: {lost:#x} was not in the ledger");
        }
    }

    fn fill(&mut self) {
        let (at, size) = (self.at.as_ptr(), self.layout.size());
        let mut done = size.min(PERIOD);
        // SAFETY: all writes stay within the block, and each copy is from before `done` to after it.
        unsafe {
            std::ptr::copy_nonoverlapping(pattern(self.seed).as_ptr(), at, done);
            while done < size {
                let more = done.min(size - done);
                std::ptr::copy_nonoverlapping(at, at.add(done), more);
                done += more;
            }
        }
    }
}

impl Drop for Block {
    #[track_caller]
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.check();
        self.leave();
        // SAFETY: the block is held by this test alone and was handed out for this layout.
        unsafe { Spandrel.dealloc(self.at.as_ptr(), self.layout) };
    }
}

fn pattern(seed: u64) -> [u8; PERIOD] {
    let mut bytes = [0; PERIOD];
    for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&mix(seed ^ (i as u64) << 56).to_le_bytes());
    }
    bytes
}

/// The first byte that differs from `pattern` repeated.
fn first_difference(bytes: &[u8], pattern: &[u8; PERIOD]) -> Option<usize> {
    let head = bytes.len().min(PERIOD);
    let same = bytes[..head] == pattern[..head] && bytes[head..] == bytes[..bytes.len() - head];
    if same {
        return None;
    }
    (0..bytes.len()).find(|&i| bytes[i] != pattern[i % PERIOD])
}
