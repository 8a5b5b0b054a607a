//! The front while nobody watches but the heap profile: a short way past the bins' pins, because the profile
//! is made to be left on.
//!
//! It is decided of the objects in a bin which of them will be met, before anyone asks for them, and
//! allocations go the fast way down to the next one of those. How many more the bin will keep before one that will
//! be met is decided in advance, too: a free asks the profile's filter, counts down, and
//! pushes. Whatever is not that simple takes the way of all observed calls. A block that is
//! resized within its class is not shown: it keeps the size it was sampled with.

use super::building::BUILDING;
use crate::base::classes::Class;
use crate::cache::switch::Pushed;
use crate::cache::{ThreadCache, slot};
use crate::watch::mode;
use crate::watch::sample::{self, Ahead};

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
    let (count, ahead) = sample::draw_among(cache.beside(), held, class.size());
    open_as(cache, class, count, ahead);
    count
}

fn open_as(cache: &ThreadCache, class: Class, count: usize, ahead: Ahead) {
    // SAFETY: the running thread's cache: a pinned one's bins hold nothing.
    unsafe { cache.beside().ahead.set(class, ahead.objects, ahead.then_one) };
    BUILDING.open(cache, class, count, mode::PROFILE_ALONE);
}

/// Keeps an object in the running thread's bin, or it has to go another way. That a bin is open says that nobody else
/// watches.
///
/// # Safety
/// `object` is of this class, and if it is kept the caller has given it up.
#[inline(always)]
pub unsafe fn give(object: *mut u8, class: Class) -> Pushed {
    if sample::maybe(object.addr()) {
        return Pushed::NotOpen;
    }
    // SAFETY: the caller's promise; the cache is the running thread's, or pinned.
    unsafe { slot::current().push_open(class, object) }
}

/// The same for an object that is [due](Pushed::Due): it will be met, or as many have been kept as was decided on.
///
/// # Safety
/// As [`give`], which has just said so.
#[cold]
#[inline(never)]
pub unsafe fn give_due(object: *mut u8, class: Class) {
    let cache = slot::current();
    // SAFETY: the caller's promise; the bin was open, so the cache is the running thread's.
    let met = unsafe {
        cache.push_due(class, object);
        cache.beside().ahead.is_met(class)
    };
    let held = cache.bin(class).len();
    if met {
        let (_, ahead) = sample::draw_among(cache.beside(), 0, class.size());
        open_as(cache, class, held, ahead);
    } else {
        // Of what it holds besides nothing is drawn anew: when that happens must not depend on what was drawn.
        let (one, ahead) = sample::draw_among(cache.beside(), 1, class.size());
        if one != 0 {
            open_as(cache, class, held, ahead);
        } else {
            // SAFETY: as above.
            unsafe { cache.beside().ahead.set(class, ahead.objects, ahead.then_one) };
        }
    }
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
