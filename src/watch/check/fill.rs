//! The bytes that the checker writes: what freed memory is filled with, and the canary behind a block.

use core::ptr::{self, NonNull};

/// What a freed block is filled with. No address and no small number.
const FREED: u8 = 0xd9;
const FREED_WORD: u64 = u64::from_ne_bytes([FREED; 8]);

/// At least so many bytes behind a block are its canary, if it has one.
pub const CANARY: usize = 8;
/// And at most so many: what lies further behind was not written by a small mistake.
const LOOKED_AT: usize = 256;

/// Fills a block that is freed.
///
/// # Safety
/// The block is nobody's but the checker's.
pub unsafe fn fill(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { at.write_bytes(FREED, bytes) };
}

/// The first byte of a filled block that has changed.
///
/// # Safety
/// All bytes were filled, and are the checker's.
pub unsafe fn changed(at: NonNull<u8>, bytes: usize) -> Option<usize> {
    // SAFETY: the caller's promise.
    unsafe { first(at, bytes, |word| word == FREED_WORD) }
}

/// The same for a block that was back in the heap meanwhile, where pages may have been returned to the
/// system: they read as zero.
///
/// # Safety
/// As [`changed`].
pub unsafe fn changed_since(at: NonNull<u8>, bytes: usize) -> Option<usize> {
    // SAFETY: the caller's promise.
    unsafe { first(at, bytes, |word| word == FREED_WORD || word == 0) }
}

/// Blocks start at words, and are whole words long.
unsafe fn first(at: NonNull<u8>, bytes: usize, right: impl Fn(u64) -> bool) -> Option<usize> {
    let wrong = (0..bytes / 8).find(|&i| {
        // Whoever writes there has no business to, and may do so at this moment.
        // SAFETY: the caller's promise: an aligned word of the block.
        !right(unsafe { at.cast::<u64>().add(i).read_volatile() })
    })?;
    let byte = (0..8).find(|&i| {
        // SAFETY: as above.
        unsafe { at.add(wrong * 8 + i).read_volatile() != FREED }
    });
    Some(wrong * 8 + byte.unwrap_or(0))
}

/// A canary's bytes: none of them zero, which a string too long would write, and other ones behind each
/// block, also where the lowest bits of all addresses are alike.
fn canary(addr: usize, i: usize) -> u8 {
    let mixed = (addr as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)).to_ne_bytes()[i % 8] | 1
}

/// Writes the canary of a block of `size` bytes into the `room` bytes behind it.
///
/// # Safety
/// Those bytes are the allocator's.
pub unsafe fn plant(at: NonNull<u8>, size: usize, room: usize) {
    for i in 0..room.min(LOOKED_AT) {
        // SAFETY: the caller's promise.
        unsafe { at.add(size + i).write(canary(at.addr().get(), i)) };
    }
}

/// The first byte of the canary that has changed, counted from the end of the block.
///
/// # Safety
/// It was planted, and those bytes are still the allocator's.
pub unsafe fn bitten(at: NonNull<u8>, size: usize, room: usize) -> Option<usize> {
    (0..room.min(LOOKED_AT)).find(|&i| {
        // SAFETY: the caller's promise; volatile as in `first`.
        unsafe { ptr::read_volatile(at.add(size + i).as_ptr()) != canary(at.addr().get(), i) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_seen() {
        let mut words = [0u64; 40];
        let at = NonNull::from(&mut words).cast::<u8>();
        // SAFETY: all within `words`.
        unsafe {
            fill(at, 320);
            assert_eq!((changed(at, 320), changed_since(at, 320)), (None, None));
            for i in [0, 1, 7, 8, 100, 319] {
                at.add(i).write(0x55);
                assert_eq!((changed(at, 320), changed_since(at, 320)), (Some(i), Some(i)));
                at.add(i).write(FREED);
            }
            at.add(16).write_bytes(0, 8);
            assert_eq!((changed(at, 320), changed_since(at, 320)), (Some(16), None));
            for size in 20..30 {
                plant(at, size, 300 - size);
                assert_eq!(bitten(at, size, 300 - size), None);
                at.add(size).write(0);
                assert_eq!(bitten(at, size, 300 - size), Some(0));
                plant(at, size, 300 - size);
                at.add(size + 255).write(0);
                assert_eq!(bitten(at, size, 300 - size), Some(255));
            }
        }
    }

    #[test]
    fn canaries_differ_and_have_no_zero() {
        for step in [16, 4096, 1 << 30] {
            for i in 0..8 {
                let mut bytes: Vec<u8> = (1..=1000).map(|block| canary(block * step, i)).collect();
                assert!(!bytes.contains(&0));
                bytes.sort_unstable();
                bytes.dedup();
                assert!(bytes.len() > 60, "byte {i} of blocks {step} apart: {bytes:?}");
            }
        }
    }
}
