//! The front while nobody watches but the heap profile: a short way past the bins' pins, because the profile
//! is made to be left on.
//!
//! It is decided of the objects in a bin which of them will be met, before anyone asks for them, and
//! allocations go the fast way down to the next one of those. A free asks the profile's filter, pushes, and
//! decides of what it pushed. Whatever is not that simple takes the way of all observed calls. A block that is
//! resized within its class is not shown: it keeps the size it was sampled with.

use super::building::BUILDING;
use crate::base::classes::Class;
use crate::cache::{ThreadCache, slot};
use crate::watch::{mode, sample};

/// Whether nobody watches but the heap profile.
#[inline(always)]
pub fn alone() -> bool {
    BUILDING.mode() == mode::PROFILE_ALONE
}

/// Whether nobody watches who has to see a block resized within its class.
#[inline(always)]
pub fn may_stay() -> bool {
    BUILDING.mode() & !mode::PROFILE_ALONE == 0
}

/// An object from the running thread's bin, or nothing for the long way.
pub fn take(size: usize, class: Class) -> Option<*mut u8> {
    let cache = slot::current();
    let (bin, thread) = (cache.bin(class), cache.beside());
    let held = bin.len();
    if held == 0 {
        return None;
    }
    // It was open down to an object that was drawn, or nothing has been decided of what it holds.
    let drawn = bin.is_open() || open(cache, class, held) == held;
    // SAFETY: the running thread's, or pinned.
    let object = unsafe { cache.pop_pinned(class) }?;
    if drawn {
        sample::drawn(thread, object.addr(), size, class.size());
        open(cache, class, held - 1);
    }
    Some(object)
}

/// Opens a bin that holds so many objects down to the next one that will be met; how many lie up to that one.
fn open(cache: &ThreadCache, class: Class, held: usize) -> usize {
    let count = sample::draw_among(cache.beside(), held, class.size());
    BUILDING.open(cache, class, count, mode::PROFILE_ALONE);
    count
}

/// Keeps an object in the running thread's bin; `false`: it has to go the long way. That a bin is open says
/// that nobody else watches.
///
/// # Safety
/// `object` is of this class, and if the answer is `true` the caller has given it up.
#[inline(always)]
pub unsafe fn give(object: *mut u8, class: Class) -> bool {
    let cache = slot::current();
    // SAFETY: the caller's promise; the cache is the running thread's, or pinned.
    if sample::maybe(object.addr()) || !unsafe { cache.push_open(class, object) } {
        return false;
    }
    if sample::count_down(cache.beside(), class.size()) {
        given(cache, class);
    }
    true
}

/// An object was handed out the long way, or null.
pub fn taken_long(object: *mut u8, size: usize, class: Class) {
    if !object.is_null() {
        sample::see(object.addr(), size);
    }
    reopen(class);
}

/// After an object went the long way, which closes its bin.
pub fn reopen(class: Class) {
    let cache = slot::current();
    let held = cache.bin(class).len();
    if held != 0 {
        open(cache, class, held);
    }
}

/// The object that was just kept may be one that will be met.
#[cold]
#[inline(never)]
fn given(cache: &ThreadCache, class: Class) {
    let bin = cache.bin(class);
    if sample::reached(cache.beside(), class.size()) && bin.is_open() {
        BUILDING.open(cache, class, bin.len(), mode::PROFILE_ALONE);
    }
}
