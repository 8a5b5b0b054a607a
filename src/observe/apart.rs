//! A growing list in a mapping of its own, outside the heap that is being looked at.

use std::ops::{Deref, DerefMut};
use std::ptr;

/// Values that lie in no block. When the system has no more room, further ones are left out.
#[derive(Debug)]
pub struct Apart<T: Copy> {
    at: *mut T,
    len: usize,
    bytes: usize,
}

impl<T: Copy> Apart<T> {
    /// An empty list.
    pub const fn new() -> Self {
        Self { at: ptr::null_mut(), len: 0, bytes: 0 }
    }

    /// Adds a value; `false`: there is no room.
    pub fn push(&mut self, value: T) -> bool {
        if (self.len + 1) * size_of::<T>() > self.bytes && !self.grow() {
            return false;
        }
        // SAFETY: there is room for one more.
        unsafe { self.at.add(self.len).write(value) };
        self.len += 1;
        true
    }

    /// Takes the last value.
    pub fn pop(&mut self) -> Option<T> {
        let value = self.last().copied()?;
        self.len -= 1;
        Some(value)
    }

    /// Where it lies: first address, and last plus one.
    pub fn range(&self) -> (usize, usize) {
        (self.at.addr(), self.at.addr() + self.bytes)
    }

    fn grow(&mut self) -> bool {
        let bytes = (self.bytes * 2).max(1 << 20);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, or this list's own, which nobody else refers to while it is borrowed.
        let at = unsafe {
            if self.at.is_null() {
                libc::mmap(ptr::null_mut(), bytes, rights, flags, -1, 0)
            } else {
                libc::mremap(self.at.cast(), self.bytes, bytes, libc::MREMAP_MAYMOVE)
            }
        };
        if at == libc::MAP_FAILED {
            return false;
        }
        (self.at, self.bytes) = (at.cast(), bytes);
        true
    }
}

impl<T: Copy> Default for Apart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Deref for Apart<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        if self.at.is_null() {
            return &[];
        }
        // SAFETY: so many values were written.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl<T: Copy> DerefMut for Apart<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if self.at.is_null() {
            return &mut [];
        }
        // SAFETY: as above, and the list is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl<T: Copy> Drop for Apart<T> {
    fn drop(&mut self) {
        if !self.at.is_null() {
            // SAFETY: this list's own mapping, to which nobody refers any more.
            unsafe { libc::munmap(self.at.cast(), self.bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_keeps_what_it_has() {
        let mut list = Apart::new();
        assert!(list.is_empty() && list.pop().is_none());
        assert!((0..500_000u64).all(|n| list.push(n)));
        assert!(
            list.iter().copied().eq(0..500_000) && list.range().1 - list.range().0 >= 4_000_000
        );
        list.reverse();
        assert_eq!((list.pop(), list.pop(), list.len()), (Some(0), Some(1), 499_998));
    }
}
