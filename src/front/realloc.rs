//! `realloc` where the class does not hold: grow or shrink in place, move the pages, or copy.

use super::Spandrel;
use super::building::{self, BUILDING};
use super::{observed, sampled};
use crate::base::classes::Class;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// Changes the size of a block whose old and new size are not of one class, or any while somebody watches.
///
/// # Safety
/// As `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
pub unsafe fn change(at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    let (size, align) = (layout.size(), layout.align());
    let moves = Class::of(size, align).is_some() || Class::of(new_size, align).is_some();
    // What moves is shown to the profile as what it is: an allocation and a free.
    if BUILDING.mode() != 0
        && !(moves && sampled::may_stay())
        && let Some(block) = NonNull::new(at)
    {
        // SAFETY: the caller's block was handed out for this layout.
        return unsafe { observed::resize(block, Some((size, align)), new_size) };
    }
    if Class::of(size, align).is_none()
        && Class::of(new_size, align).is_none()
        && let Some(block) = NonNull::new(at)
        // SAFETY: the caller's block was handed out for this layout.
        && let Some(resized) = unsafe { building::resize_run(block, size, new_size, align) }
    {
        if BUILDING.mode() != 0 {
            observed::taken_unseen(resized.as_ptr(), new_size, align);
        }
        return resized.as_ptr();
    }
    let Ok(new_layout) = Layout::from_size_align(new_size, align) else {
        return ptr::null_mut();
    };
    // SAFETY: any layout may be asked for, size 0 included.
    let new = unsafe { Spandrel.alloc(new_layout) };
    if !new.is_null() {
        // SAFETY: both blocks are that long and disjoint; the old one is given up afterwards.
        unsafe {
            ptr::copy_nonoverlapping(at, new, size.min(new_size));
            Spandrel.dealloc(at, layout);
        }
    }
    new
}
