//! What those who watch keep with a thread: a few words that lie in its cache, because a thread has no
//! other place of ours. This floor gives them to each owner afresh and does not know what they mean.

use crate::base::classes::{CLASSES, Class, STRIDE};
use core::cell::UnsafeCell;
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
    /// What is known of the next objects that open bins will keep.
    pub ahead: Ahead,
}

/// For each class how many more objects its open bin may keep before there is something to see to: twice that, and one
/// more if the object after them is one that will be met. Not atomic, so that counting down and looking at the
/// sign are one instruction.
#[derive(Debug)]
pub struct Ahead([UnsafeCell<i32>; CLASSES]);

// SAFETY: only the cache's owner touches them, which callers promise.
unsafe impl Sync for Ahead {}

impl Ahead {
    fn at(&self, class: Class) -> *mut i32 {
        const { assert!(STRIDE / 8 == size_of::<i32>()) };
        // SAFETY: a class's offset is its index, which is below CLASSES, times STRIDE.
        unsafe { self.0.as_ptr().byte_add(class.offset() / 8) }.cast::<i32>().cast_mut()
    }

    /// One more is to be kept; whether there is something to see to first.
    ///
    /// # Safety
    /// The calling thread owns the cache.
    #[inline(always)]
    pub unsafe fn step(&self, class: Class) -> bool {
        let left = self.at(class);
        // SAFETY: the owner's own, and no other reference to it lives.
        unsafe {
            *left -= 2;
            *left < 0
        }
    }

    /// So many may be kept, at most 2^30, and of the next it is decided that it will be met, or nothing is.
    ///
    /// # Safety
    /// As [`Ahead::step`].
    pub unsafe fn set(&self, class: Class, objects: usize, then_one: bool) {
        // SAFETY: as above.
        unsafe { *self.at(class) = 2 * objects as i32 + i32::from(then_one) }
    }

    /// Whether it is decided of the one that was to be kept when [`Ahead::step`] said so that it will be met.
    ///
    /// # Safety
    /// As [`Ahead::step`].
    pub unsafe fn is_met(&self, class: Class) -> bool {
        // SAFETY: as above.
        unsafe { *self.at(class) & 1 != 0 }
    }
}

impl Beside {
    /// Nothing kept; all zero bits.
    pub const fn new() -> Self {
        Self {
            left: AtomicI64::new(0),
            random: AtomicU64::new(0),
            run: AtomicU32::new(0),
            tag: AtomicU16::new(0),
            ahead: Ahead([const { UnsafeCell::new(0) }; CLASSES]),
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
