//! Freed blocks that are kept back: the longer, the more mistakes are seen. A ring of addresses, bounded in
//! blocks and in bytes; who puts one in takes the oldest out.

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{AcqRel, Relaxed};

/// Blocks at most.
const SLOTS: usize = 8192;
/// Bytes of memory at most that are kept from use.
pub const BYTES: usize = 32 << 20;

/// Addresses; 0 where none is. Any thread: an exchange puts one in and takes another out.
static RING: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
/// Where the next one goes, and from where on the oldest are; both count up.
static HEAD: AtomicUsize = AtomicUsize::new(0);
static TAIL: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Keeps a block of `bytes` bytes of memory. `out` gets those that have to leave, and answers how many bytes
/// each has.
pub fn keep(at: NonNull<u8>, bytes: usize, mut out: impl FnMut(NonNull<u8>) -> usize) {
    let addr = at.as_ptr().expose_provenance();
    let slot = &RING[HEAD.fetch_add(1, Relaxed) % SLOTS];
    HELD.fetch_add(bytes, Relaxed);
    // Acquire: what was done to the block before it was put in.
    let old = slot.swap(addr, AcqRel);
    let mut leave = |addr| {
        if let Some(old) = NonNull::new(ptr::with_exposed_provenance_mut(addr)) {
            HELD.fetch_sub(out(old), Relaxed);
        }
    };
    leave(old);
    for _ in 0..SLOTS {
        let (tail, head) = (TAIL.load(Relaxed), HEAD.load(Relaxed));
        if HELD.load(Relaxed) <= BYTES || tail >= head {
            break;
        }
        // Those further back than the ring is long are gone.
        let tail = tail.max(head.saturating_sub(SLOTS));
        TAIL.store(tail + 1, Relaxed);
        leave(RING[tail % SLOTS].swap(0, AcqRel));
    }
}

/// All of them leave.
pub fn empty(mut out: impl FnMut(NonNull<u8>) -> usize) {
    for slot in &RING {
        if let Some(old) = NonNull::new(ptr::with_exposed_provenance_mut(slot.swap(0, AcqRel))) {
            HELD.fetch_sub(out(old), Relaxed);
        }
    }
}
