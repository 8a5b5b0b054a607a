//! `fork`: what a child does about the threads it does not have.
//!
//! No lock can be held in a child, so it may allocate at once, whatever its parent's other threads
//! were doing, and also if `fork` was called inside a signal handler that interrupted `malloc`. What is
//! left to do is to get back what those threads had: their caches, and whatever was in their hands.
//!
//! The child finds out on its first slow path: the process has another number
//! ([`os::process`](crate::os)) than the one that the thread's cache was taken in. If other threads'
//! caches are there, it takes an inventory: it is the only thread, so it may look at every floor.
//! Objects in caches, in the transfer cache and in hands that have left a note become free in their
//! spans; spans and page heap are counted anew. A thread caught between two instructions costs its
//! object at most; only one caught while it returned a batch to its spans may cost the rest of that
//! batch, and one that was mapping memory some address space that nobody has touched.
//!
//! A thread that the child starts may come in before that, or meanwhile. It does not wait. If it came
//! first, there is no inventory, and only what lies in the caches comes back; if it comes meanwhile, it
//! lives on mappings of its own and what it frees is lost, for as long as the inventory takes.

use super::building::{BUILDING, pages, spans};
use crate::cache::{ThreadCache, slot};
use crate::os::Os;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst, fence};

/// The process in which a thread without a cache has made a slow call.
static NEWCOMER: AtomicU32 = AtomicU32::new(0);
/// The process in which an inventory is under way.
static INVENTORY: AtomicU32 = AtomicU32::new(0);

/// This process's number.
#[inline]
pub fn process() -> u32 {
    pages().os().process()
}

/// On every slow call: whether an inventory is under way in which this thread must not be counted.
#[inline]
pub fn must_stand_aside() -> bool {
    slot::existing().is_none() && stand_aside()
}

fn stand_aside() -> bool {
    let now = process();
    if NEWCOMER.load(SeqCst) != now {
        NEWCOMER.store(now, SeqCst);
    }
    fence(SeqCst);
    INVENTORY.load(SeqCst) == now
}

/// In a child, on the first slow call of the thread that called `fork`, if that call interrupts no
/// other.
#[cold]
#[inline(never)]
pub fn settle(mine: &ThreadCache) {
    let now = process();
    if BUILDING.has_orphans(mine, now) {
        INVENTORY.store(now, SeqCst);
        fence(SeqCst);
        let alone = NEWCOMER.load(SeqCst) != now;
        // SAFETY: this thread called `fork`: its cache is of another process, and a thread of this
        // one that has a cache took it in this one. It holds nothing, because it is in no other
        // slow call. No other thread is on any floor: one that had been would have said so before it
        // looked whether an inventory is under way.
        unsafe {
            if alone {
                BUILDING.inherit(mine, now, |_, object| spans().restore(object));
                BUILDING.below().inherit(|object| spans().restore(object));
                spans().recount();
                pages().recount();
            } else {
                BUILDING.inherit_quiet(mine, now);
            }
        }
        INVENTORY.store(0, SeqCst);
    }
    mine.set_owner(now, pages().os().thread());
}
