//! The front while nobody watches but the heap profile: a short way past the bins' pins, because the profile
//! is made to be left on.
//!
//! An allocation counts its bytes down and pops, a free asks the profile's filter and pushes. Whatever is
//! not that simple takes the way of all observed calls. A block that is resized within its class is not
//! shown: it keeps the size it was sampled with.

use super::building::BUILDING;
use crate::base::classes::Class;
use crate::cache::slot;
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
#[inline(always)]
pub fn take(size: usize, class: Class) -> Option<*mut u8> {
    let cache = slot::current();
    // SAFETY: the running thread's, or pinned.
    let object = unsafe { cache.pop_pinned(class) }?;
    if sample::due(cache.beside(), size) {
        sample::met(cache.beside(), object.addr(), size);
    }
    Some(object)
}

/// Keeps an object in the running thread's bin; `false`: it has to go the long way.
///
/// # Safety
/// `object` is of this class, and if the answer is `true` the caller has given it up.
#[inline(always)]
pub unsafe fn give(object: *mut u8, class: Class) -> bool {
    // SAFETY: the caller's promise; the cache is the running thread's, or pinned.
    !sample::maybe(object.addr()) && unsafe { slot::current().push_pinned(class, object) }
}
