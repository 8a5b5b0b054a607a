//! All thread caches there ever were. A cache outlives its thread and is adopted by a later one.
//!
//! # Orderings
//! A retiring thread releases its cache through `process`, an adopting one acquires it (model M5). The
//! list is only ever added to, so a report may walk it at any time. A dead thread's cache is taken over through
//! `thread` (model M15).

use super::ThreadCache;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicUsize};
use core::ptr::{self, NonNull};

/// The process of a cache that waits for a thread.
pub(super) const IDLE: u32 = u32::MAX;

/// The list of caches and how many of them are idle.
#[derive(Debug)]
pub struct Registry {
    head: AtomicPtr<ThreadCache>,
    /// A hint: a thread that starts while it is 0 does not walk the list.
    idle: AtomicUsize,
    count: AtomicUsize,
    /// Where [`Registry::some`] goes on.
    looked: AtomicUsize,
}

/// How many caches [`Registry::some`] shows.
const SOME: usize = 8;

impl Registry {
    const_fn! {
        /// No caches yet; all zero bits.
        pub fn new() -> Self {
            Self {
                head: AtomicPtr::new(ptr::null_mut()),
                idle: AtomicUsize::new(0),
                count: AtomicUsize::new(0),
                looked: AtomicUsize::new(0),
            }
        }
    }

    /// All caches, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &ThreadCache> {
        let mut at = self.head.load(Acquire);
        core::iter::from_fn(move || {
            // SAFETY: a cache on the list was complete when it was added and is never unmapped.
            let cache = unsafe { at.as_ref() }?;
            at = cache.next.load(Acquire);
            Some(cache)
        })
    }

    /// A few caches, others every time.
    pub(super) fn some(&self) -> impl Iterator<Item = &ThreadCache> {
        let count = self.count.load(Relaxed).max(1);
        let from = self.looked.load(Relaxed) % count;
        self.looked.store(from + SOME, Relaxed);
        self.iter().skip(from).chain(self.iter().take(from)).take(SOME)
    }

    /// Adds a cache that is in use by the caller.
    pub(super) fn add(&self, cache: NonNull<ThreadCache>) {
        let mut head = self.head.load(Relaxed);
        loop {
            // SAFETY: the caller has just made this cache and nobody else knows it.
            unsafe { cache.as_ref() }.next.store(head, Relaxed);
            match self.head.compare_exchange_weak(head, cache.as_ptr(), AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.count.fetch_add(1, Relaxed);
    }

    /// Takes over a cache whose thread is gone, for a thread of this process.
    pub(super) fn adopt(&self, process: u32) -> Option<&ThreadCache> {
        if self.idle.load(Relaxed) == 0 {
            return None;
        }
        let acquire = seed::weaken(Seed::AdoptRelaxed, Acquire);
        let adopted = self.iter().find(|cache| {
            cache.process.compare_exchange(IDLE, process, acquire, Relaxed).is_ok()
        })?;
        self.idle.fetch_sub(1, Relaxed);
        Some(adopted)
    }

    /// Offers a cache that its thread has emptied and will not touch again.
    pub(super) fn offer(&self, cache: &ThreadCache) {
        // Its number stands for nobody any more: who adopts the cache is told from a dead thread until it has
        // put its own there.
        if !seed::on(Seed::OwnerLeft) {
            cache.thread.store(0, Relaxed);
        }
        // First the count, then the flag: the count never falls below zero.
        self.idle.fetch_add(1, Relaxed);
        cache.process.store(IDLE, Release);
    }

    /// Caches there are, and how many of them wait for a thread.
    pub fn counts(&self) -> (usize, usize) {
        (self.count.load(Relaxed), self.idle.load(Relaxed))
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn an_idle_cache_is_adopted_once() {
        let registry = Registry::new();
        assert!(registry.adopt(1).is_none());
        let caches: Vec<_> = (0..3).map(|_| &*Box::leak(Box::new(ThreadCache::new()))).collect();
        caches.iter().for_each(|&cache| registry.add(NonNull::from(cache)));
        assert_eq!(registry.counts(), (3, 0));
        assert!(
            registry.iter().map(ptr::from_ref).eq(caches.iter().rev().map(|&c| ptr::from_ref(c)))
        );
        assert!(registry.adopt(1).is_none(), "all of them are in use");
        registry.offer(caches[1]);
        assert!(!caches[1].in_use());
        assert!(registry.adopt(1).is_some_and(|cache| ptr::eq(cache, caches[1])));
        assert!(caches[1].in_use() && registry.adopt(1).is_none());
        assert_eq!(registry.counts(), (3, 0));
    }
}
