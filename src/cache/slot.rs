//! The running thread's cache: one thread-local pointer, and its life.
//!
//! ```text
//!   NEW ── first slow call ──> a cache ── last round of thread exit ──> GONE
//! ```
//!
//! `NEW` and `GONE` are pinned statics, so a thread in either state comes here with every call and
//! the fast path needs no test for it. The thread-local has no destructor: those run in an order
//! nobody controls, and others may allocate after ours. A pthread key's destructor runs after all of
//! them; it empties the cache in each of the system's four rounds and gives it up in the last.

use super::tls::{self, NEW};
use super::{Caches, ThreadCache};
use crate::os::Os;
use crate::span::Objects;
use core::ptr::{self, NonNull};

/// Rounds that a system runs key destructors for (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const ROUNDS: u8 = 4;

static GONE: ThreadCache = ThreadCache::new();

/// What is called with the thread's cache when a thread ends.
pub type ExitHook = unsafe extern "C" fn(*mut u8);

/// The running thread's cache, or a pinned one.
#[inline(always)]
pub fn current() -> &'static ThreadCache {
    // SAFETY: the pointer is that of a static or of a cache, neither of which is ever unmapped.
    unsafe { &*tls::get() }
}

/// The running thread's own cache, if it has one.
pub fn existing() -> Option<&'static ThreadCache> {
    let cache = current();
    (!ptr::eq(cache, &raw const GONE) && !ptr::eq(cache, &raw const NEW)).then_some(cache)
}

/// The running thread's own cache, got now if it has none yet. `None`: it does without, because it
/// is ending or there is no memory for a cache.
pub fn own<B: Objects>(caches: &'static Caches<B>, hook: ExitHook) -> Option<&'static ThreadCache> {
    let current = current();
    if ptr::eq(current, &raw const GONE) {
        return None;
    }
    if !ptr::eq(current, &raw const NEW) {
        return Some(current);
    }
    let cache = caches.adopt()?;
    // Live before the hook is armed: arming may itself allocate.
    tls::set(cache);
    // Without a hook the cache is found when the thread is gone and another one wants a cache.
    caches.below().os().at_thread_exit(hook, NonNull::from(cache).cast());
    Some(cache)
}

/// One round of thread exit.
pub fn exit<B: Objects>(caches: &'static Caches<B>, hook: ExitHook) {
    let cache = current();
    if ptr::eq(cache, &raw const GONE) || ptr::eq(cache, &raw const NEW) {
        return;
    }
    cache.enter();
    caches.empty(cache);
    cache.leave();
    let again = caches.exit_round(cache) < ROUNDS
        && caches.below().os().at_thread_exit(hook, NonNull::from(cache).cast());
    if !again {
        leave(caches, cache);
    }
}

fn leave<B: Objects>(caches: &'static Caches<B>, cache: &'static ThreadCache) {
    tls::set(&raw const GONE);
    caches.retire(cache);
}
