//! Observed mode: one word that sends every call of every thread the slow way, or none.
//!
//! Off, it is read on slow paths only and costs the fast path nothing. On, the bounds of every bin are
//! pinned, so each call comes to the front's slow functions, which show it to who watches
//! (`watch`), and the bins are used all the same, between their base and the end of their rung.
//!
//! # The protocol
//! Who switches on stores the mode, has every thread pass a barrier, and pins the bins of all caches on
//! the list. An owner stores bounds too, when a bin gets another array or is unpinned; afterwards it
//! looks at the mode, and pins its bins if that is on. Of a store of a bound and a pin that come
//! together, either the owner's look sees the mode, or the look was over before the barrier, and then
//! so was the store: the pin lands on top of it (model M12). The barrier is the system's (`membarrier`),
//! so the owner's side costs one load; where the system has none, an owner may lose a pin, and sets it
//! again on its next slow call for that bin.
//!
//! In a mode whose watcher need not see every allocation the owner may *open* a bin down to where it has to
//! see one: that is a store of a bound too, and afterwards the owner looks whether the mode still is that one.
//!
//! Who switches off stores the mode and touches no bin: each is unpinned by its owner, on its next call.
//! New caches need nothing: their bins have no array, and the first one they get is stored by the owner.

#[cfg(not(spandrel_model))]
pub use super::bin::Pushed;
use super::{Caches, Owner, ThreadCache};
use crate::base::classes::Class;
use crate::base::seed::{self, Seed};
use crate::base::sync::light_fence;
use crate::os::Os;
use crate::span::Objects;

/// The mode. What its bits mean is the front's business; none set is off.
#[derive(Debug)]
pub(super) struct Switch(
    #[cfg(not(spandrel_model))] crate::base::sync::AtomicU64,
    #[cfg(spandrel_model)] crate::base::sync::OnDemand,
);

impl Switch {
    const_fn! {
        pub(super) fn new() -> Self {
            #[cfg(not(spandrel_model))]
            return Self(crate::base::sync::AtomicU64::new(0));
            #[cfg(spandrel_model)]
            Self(crate::base::sync::OnDemand::new())
        }
    }

    #[inline(always)]
    fn get(&self) -> u64 {
        #[cfg(not(spandrel_model))]
        return self.0.load(crate::base::sync::Ordering::Relaxed);
        #[cfg(spandrel_model)]
        (self.0.load() as u64)
    }

    fn change(&self, to: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        #[cfg(not(spandrel_model))]
        {
            use crate::base::sync::Ordering::{Relaxed, Release};
            // Release: what was set up for the new mode.
            self.0.fetch_update(Release, Relaxed, to)
        }
        #[cfg(spandrel_model)]
        {
            // The models have one thread that switches.
            let (was, mut to) = (self.get(), to);
            self.0.store(to(was).ok_or(was)? as usize);
            Ok(was)
        }
    }
}

impl<B: Objects> Caches<B> {
    /// The mode; 0 is off.
    #[inline(always)]
    pub fn mode(&self) -> u64 {
        self.switch.get()
    }

    /// Changes the mode as `to` says, if it does, and answers what it was. It pins nothing: a mode that is
    /// off is only ever changed to another by [`Caches::switch_on`].
    pub fn change_mode(&self, to: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.switch.change(to)
    }

    /// Changes the mode to one that is on, and answers what it was. Every call that a thread begins after that,
    /// but for what may be left of its bins where the system has no barrier, goes the slow way.
    pub fn switch_on(&self, mut to: impl FnMut(u64) -> u64) -> u64 {
        if seed::on(Seed::PinsFirst) {
            self.pin_all();
        }
        let was = self.switch.change(|mode| Some(to(mode))).unwrap_or_else(|mode| mode);
        // Whatever it answers: see above.
        self.below.os().barrier();
        if !seed::on(Seed::PinsFirst) {
            self.pin_all();
        }
        was
    }

    fn pin_all(&self) {
        self.registry.iter().for_each(ThreadCache::pin_bounds);
    }

    /// The owner has stored bounds of its bins, or may have: looks whether they must be pinned.
    pub(super) fn look(&self, cache: &ThreadCache) {
        if self.is_on() {
            cache.pin_bounds();
        }
    }

    /// The same where it was one bin, or (`all`) all of them.
    pub(super) fn look_after(&self, cache: &ThreadCache, class: Class, all: bool) {
        match all {
            true => self.look(cache),
            false => self.look_at(cache, class),
        }
    }

    /// The same where it was one bin.
    #[inline]
    pub(super) fn look_at(&self, cache: &ThreadCache, class: Class) {
        if self.is_on() {
            cache.bin(class).pin_bounds();
        }
    }

    /// In this mode the owner lets allocations of a class go the fast way that leave at least `count` objects.
    pub fn open(&self, cache: &ThreadCache, class: Class, count: usize, mode: u64) {
        let bin = cache.bin(class);
        bin.open(count, cache.with_owner(|owner| owner.capacity(class)));
        if seed::on(Seed::OpenUnseen) {
            return;
        }
        light_fence();
        if self.mode() != mode {
            bin.pin_bounds();
        }
    }

    #[inline]
    fn is_on(&self) -> bool {
        if seed::on(Seed::NoLook) {
            return false;
        }
        light_fence();
        self.mode() != 0
    }

    /// The bounds of a bin are its array's, whatever they were.
    pub(super) fn unpin(&self, cache: &ThreadCache, owner: &Owner, class: Class) {
        let bin = cache.bin(class);
        if bin.is_pinned() {
            // SAFETY: only the owner has its record; the rung is the one the array is of.
            unsafe { bin.unpin(owner.capacity(class)) };
        }
    }
}

#[cfg(not(spandrel_model))]
impl ThreadCache {
    /// Takes the hottest object of a bin, whatever its bounds say; the rest is [`Caches::refill`]'s.
    ///
    /// # Safety
    /// The calling thread owns the cache, or it is a pinned one.
    #[inline(always)]
    pub unsafe fn pop_pinned(&self, class: Class) -> Option<*mut u8> {
        // SAFETY: the caller's promise.
        unsafe { self.bin(class).pop_any() }
    }

    /// Keeps an object, if the bin is open and has room, and nothing has to be seen to first.
    ///
    /// # Safety
    /// The calling thread owns the cache, or it is a pinned one; `object` is a free object of this class.
    #[inline(always)]
    pub unsafe fn push_open(&self, class: Class, object: *mut u8) -> Pushed {
        // SAFETY: a pinned cache's bins are not open, so the calling thread owns this one.
        unsafe { self.bin(class).push_open(object, || self.beside.ahead.step(class)) }
    }

    /// The same for one that was [due](Pushed::Due) and has been seen to.
    ///
    /// # Safety
    /// The last call for this cache was that one.
    pub unsafe fn push_due(&self, class: Class, object: *mut u8) {
        // SAFETY: the caller's promise: the thread owns the cache, and there is room.
        unsafe { self.bin(class).push_any(object) }
    }
}

impl ThreadCache {
    fn pin_bounds(&self) {
        for bin in &self.bins {
            bin.pin_bounds();
        }
    }
}
