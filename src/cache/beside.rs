//! What those who watch keep with a thread: a few words that lie in its cache, because a thread has no
//! other place of ours. This floor gives them to each owner afresh and does not know what they mean.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64};

/// Written by the owner of the cache alone.
#[derive(Debug)]
pub struct Beside {
    /// Bytes until the heap profile looks at a block.
    pub left: AtomicI64,
    /// Where its random numbers stand.
    pub random: AtomicU64,
    /// The run of the profile that this was drawn for.
    pub run: AtomicU32,
    /// Whom the thread's blocks are put down to.
    pub tag: AtomicU16,
}

impl Beside {
    /// Nothing kept; all zero bits.
    pub const fn new() -> Self {
        Self {
            left: AtomicI64::new(0),
            random: AtomicU64::new(0),
            run: AtomicU32::new(0),
            tag: AtomicU16::new(0),
        }
    }

    /// Another thread's now.
    pub(super) fn reset(&self) {
        self.left.store(0, Relaxed);
        self.run.store(0, Relaxed);
        self.tag.store(0, Relaxed);
    }
}

impl Default for Beside {
    fn default() -> Self {
        Self::new()
    }
}
