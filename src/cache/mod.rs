//! Thread caches: the floor that makes the common call cost nothing shared.
//!
//! [`bin`] is the fast path and has no policy; [`sizing`] is the policy and touches nothing; this
//! file is what happens when a bin runs empty or full; `rungs.rs` is how bins grow, shrink and give back;
//! [`registry`] keeps the caches of all threads; [`slot`] ties one to the running thread; [`switch`] sends
//! every call of all of them the slow way.

mod apart;
pub mod beside;
pub mod bin;
mod journal;
pub mod registry;
mod rungs;
pub mod sizing;
#[cfg(not(spandrel_model))]
pub mod slot;
pub mod switch;
#[cfg(not(spandrel_model))]
mod tls;

use crate::base::classes::{CLASSES, Class};
use crate::base::death;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::AtomicU64;
use crate::base::sync::{AtomicPtr, AtomicU32, UnsafeCell, acquire_fence};
use crate::os::{Os, Zeroed, metadata_bytes};
use crate::span::Objects;
use apart::Apart;
use bin::Bin;
use core::ptr;
use crossbeam_utils::CachePadded;
use journal::Journal;
use registry::Registry;
use sizing::{Event, Slots};

/// One thread's cache. `bins` come first, so that the fast path addresses them without an offset.
#[derive(Debug)]
#[repr(C)]
pub struct ThreadCache {
    bins: [Bin; CLASSES],
    /// What only the owner knows of its bins.
    owner: UnsafeCell<Owner>,
    /// The cache added before this one. Constant once on the list.
    next: AtomicPtr<ThreadCache>,
    /// The process whose thread owns it, or [`registry::IDLE`].
    process: AtomicU32,
    /// The thread that owns it, as the system numbers threads, or 0. Its owner, and who takes over from
    /// a thread that is gone.
    thread: AtomicU32,
    journal: Journal,
    counters: Counters,
    beside: beside::Beside,
}

// SAFETY: the bins' pointers and `owner` are touched by the owner alone, which changes hands through
// `process`; everything else is atomic.
unsafe impl Sync for ThreadCache {}

/// Kept by the owner with plain adds, read by reports.
#[derive(Debug)]
struct Counters {
    refills: AtomicU64,
    refilled: AtomicU64,
    spills: AtomicU64,
    spilled: AtomicU64,
    sweeps: AtomicU64,
}

/// What happened on the slow paths of one cache, over all its threads.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheCounts {
    /// Bins that ran empty and were refilled.
    pub refills: u64,
    /// Objects that came with them.
    pub refilled: u64,
    /// Bins that ran full, and surpluses given back.
    pub spills: u64,
    /// Objects that went with them.
    pub spilled: u64,
    /// Looks for what lies unused.
    pub sweeps: u64,
}

#[derive(Debug)]
struct Owner {
    /// Rung plus one of each bin, 0 for a bin without an array.
    rungs: [u8; CLASSES],
    last: [Event; CLASSES],
    apart: [Apart; CLASSES],
    calls: u32,
    budget: u32,
    used: u32,
    /// Bytes given to the floor below beyond those got from it, since the last release.
    surplus: usize,
    /// At how much surplus it releases; and after a release, how much it has not come back for.
    release_at: usize,
    missed: usize,
    denied: bool,
    /// Rounds of thread exit so far.
    #[cfg_attr(spandrel_model, allow(dead_code))]
    rounds: u8,
}

impl Owner {
    /// The thread takes `bytes`: if that makes up for its last release, that was too early.
    fn come_back(&mut self, bytes: usize) {
        if self.missed != 0 {
            self.missed = self.missed.saturating_sub(bytes);
            if self.missed == 0 {
                self.release_at = (self.release_at * 2).min(self.budget as usize);
            }
        }
    }
}

impl ThreadCache {
    const_fn! {
        /// A pinned cache.
        pub fn new() -> Self {
            Self {
                bins: array![Bin::new(); CLASSES],
                owner: UnsafeCell::new(Owner {
                    rungs: [0; CLASSES],
                    last: [Event::None; CLASSES],
                    apart: [Apart::NO; CLASSES],
                    calls: 0,
                    budget: 0,
                    used: 0,
                    surplus: 0,
                    release_at: 0,
                    missed: 0,
                    denied: false,
                    rounds: 0,
                }),
                next: AtomicPtr::new(ptr::null_mut()),
                process: AtomicU32::new(0),
                thread: AtomicU32::new(0),
                journal: Journal::new(),
                counters: Counters {
                    refills: AtomicU64::new(0),
                    refilled: AtomicU64::new(0),
                    spills: AtomicU64::new(0),
                    spilled: AtomicU64::new(0),
                    sweeps: AtomicU64::new(0),
                },
                beside: beside::Beside::new(),
            }
        }
    }

    /// The bin of a class.
    #[inline(always)]
    pub fn bin(&self, class: Class) -> &Bin {
        // A checker's atomics have their own size.
        #[cfg(spandrel_model)]
        return &self.bins[class.index()];
        #[cfg(not(spandrel_model))]
        {
            use crate::base::classes::STRIDE;
            const { assert!(size_of::<Bin>() == STRIDE) };
            // SAFETY: there is a bin for every class, STRIDE bytes apart.
            unsafe { &*self.bins.as_ptr().byte_add(class.offset()) }
        }
    }

    /// The bin of the spans with this class word: the same without a detour over the class.
    #[inline(always)]
    #[cfg(not(spandrel_model))]
    pub fn bin_of_word(&self, word: usize) -> &Bin {
        // SAFETY: the word of a span is its class's offset plus one bin.
        unsafe { &*self.bins.as_ptr().byte_add(word).sub(1) }
    }

    /// What those who watch keep with its thread.
    #[inline(always)]
    pub fn beside(&self) -> &beside::Beside {
        &self.beside
    }

    /// Objects its bin of a class holds, for reports: exact while its owner rests, and never more
    /// than the bin has room for.
    pub fn held(&self, class: Class) -> usize {
        self.bin(class).len().min(if seed::on(Seed::TornReport) {
            usize::MAX
        } else {
            sizing::longest(class)
        })
    }

    /// The addresses of the objects that its bin of a class holds, for reports: as exact as
    /// [`ThreadCache::held`].
    #[cfg(not(spandrel_model))]
    pub fn look(&self, class: Class, mut object: impl FnMut(usize)) {
        let (base, held) = (self.bin(class).base(), self.held(class));
        for at in (0..if base.is_null() { 0 } else { held }).map(|index| base.wrapping_add(index)) {
            // SAFETY: arrays lie in the cache's own mapping, which is never unmapped, and `held` is at
            // most the longest. Its owner may write meanwhile: any value a slot ever had will do.
            object(unsafe { at.read_volatile() }.addr());
        }
    }

    /// Whether a thread owns it.
    pub fn in_use(&self) -> bool {
        self.process.load(Relaxed) != registry::IDLE
    }

    /// The thread that owned it last, as the system numbers threads; 0 if none ever did.
    pub fn thread(&self) -> u32 {
        self.thread.load(Relaxed)
    }

    /// The process whose thread owns it, as far as that thread has looked.
    #[inline]
    pub fn process(&self) -> u32 {
        self.process.load(Relaxed)
    }

    /// The owner has seen that it is this thread of this process.
    pub fn set_owner(&self, process: u32, thread: u32) {
        self.thread.store(thread, Relaxed);
        self.process.store(process, Relaxed);
    }

    /// Whether it belongs to a thread of another process than `now`, which has inherited its memory.
    fn is_orphan(&self, mine: &ThreadCache, now: u32) -> bool {
        let process = self.process();
        process != now && process != registry::IDLE && !ptr::eq(self, mine)
    }

    /// What happened on its slow paths.
    pub fn counts(&self) -> CacheCounts {
        let c = &self.counters;
        CacheCounts {
            refills: c.refills.load(Relaxed),
            refilled: c.refilled.load(Relaxed),
            spills: c.spills.load(Relaxed),
            spilled: c.spilled.load(Relaxed),
            sweeps: c.sweeps.load(Relaxed),
        }
    }

    fn with_owner<R>(&self, f: impl FnOnce(&mut Owner) -> R) -> R {
        // SAFETY: only the owning thread gets here, and never from inside `f`.
        self.owner.with_mut(|owner| f(unsafe { &mut *owner }))
    }
}

impl Default for ThreadCache {
    fn default() -> Self {
        Self::new()
    }
}

/// A cache with the room for its arrays, as it is mapped.
#[derive(Debug)]
#[repr(C)]
struct Mapped {
    cache: ThreadCache,
    slots: core::cell::UnsafeCell<Slots>,
}

// SAFETY: zero is a pinned cache (`Event::None` is 0) and slots that hold null pointers.
unsafe impl Zeroed for Mapped {
    #[cfg(spandrel_model)]
    fn zeroed() -> Self {
        let slots = core::cell::UnsafeCell::new([ptr::null_mut(); sizing::SLOTS]);
        Self { cache: ThreadCache::new(), slots }
    }
}

/// The thread caches over a floor that deals in objects.
#[derive(Debug)]
pub struct Caches<B> {
    /// On a line of its own: while it is on, every call reads it.
    switch: CachePadded<switch::Switch>,
    below: B,
    registry: Registry,
}

fn add(counter: &AtomicU64, n: usize) {
    // One writer at a time, so a load and a store will do.
    counter.store(counter.load(Relaxed) + n as u64, Relaxed);
}

impl<B: Objects> Caches<B> {
    const_fn! {
        /// No caches yet, over `below`; all zero bits if `below` is.
        pub fn new(below: B) -> Self {
            let switch = CachePadded::new(switch::Switch::new());
            Self { switch, below, registry: Registry::new() }
        }
    }

    /// The floor below.
    pub fn below(&self) -> &B {
        &self.below
    }

    /// All caches.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Bytes mapped for caches.
    pub fn metadata(&self) -> usize {
        self.registry.counts().0 * metadata_bytes::<Mapped>(self.below.os().page_size())
    }

    /// A cache for a thread that has none: an idle one, or a new one. `None` when the system has no
    /// memory for it.
    pub fn adopt(&self) -> Option<&ThreadCache> {
        let (process, thread) = (self.below.os().process(), self.below.os().thread());
        let idle =
            self.registry.adopt(process).or_else(|| self.adopt_from_the_dead(process, thread));
        let cache = match idle {
            Some(cache) => cache,
            None => {
                let mapped = self.below.os().metadata::<Mapped>()?.cast::<ThreadCache>();
                // SAFETY: mapped above, zeroed, never unmapped.
                let cache = unsafe { mapped.as_ref() };
                cache.set_owner(process, thread);
                self.registry.add(mapped);
                cache
            }
        };
        cache.set_owner(process, thread);
        cache.beside.reset();
        cache.with_owner(|owner| {
            *owner = Owner {
                rungs: [0; CLASSES],
                last: [Event::None; CLASSES],
                apart: [Apart::NO; CLASSES],
                calls: 0,
                budget: sizing::BUDGET,
                used: 0,
                surplus: 0,
                release_at: sizing::RELEASE,
                missed: 0,
                denied: false,
                rounds: 0,
            };
        });
        Some(cache)
    }

    /// A cache whose thread ended without giving it back: one that first allocated in the last round of
    /// its end, or had no hook. Looks at a few, so that starting a thread costs a few system calls.
    fn adopt_from_the_dead(&self, process: u32, thread: u32) -> Option<&ThreadCache> {
        for cache in self.registry.some() {
            let owner = cache.thread.load(Relaxed);
            if owner != 0
                && cache.process() == process
                && self.below.os().is_gone(owner)
                // One of all who find it so takes over.
                && if seed::on(Seed::GoneByStore) {
                    cache.thread.store(thread, Relaxed);
                    true
                } else {
                    cache.thread.compare_exchange(owner, thread, Relaxed, Relaxed).is_ok()
                }
            {
                // What that thread did comes before what follows. Its store of the number is older than that, so the
                // exchange acquires nothing.
                if !seed::on(Seed::GoneUnfenced) {
                    acquire_fence();
                }
                // SAFETY: its thread is gone for good.
                unsafe { self.clear_out(cache) };
                return Some(cache);
            }
        }
        None
    }

    /// Where each cache lies with its arrays, and how many bytes that is.
    #[cfg(not(spandrel_model))]
    pub fn each_record(&self, mut see: impl FnMut(usize, usize)) {
        let bytes = metadata_bytes::<Mapped>(self.below.os().page_size());
        self.registry.iter().for_each(|cache| see(ptr::from_ref(cache).addr(), bytes));
    }

    /// A thread is done with its cache for good: what it holds goes below, the next thread may have
    /// the rest.
    pub fn retire(&self, cache: &ThreadCache) {
        if seed::on(Seed::OfferEarly) {
            self.registry.offer(cache);
        }
        self.empty(cache);
        for bin in &cache.bins {
            // SAFETY: the caller owns the cache; a null array pins the bin, which is empty now.
            unsafe { bin.set_array(ptr::null_mut(), 0) };
        }
        if !seed::on(Seed::OfferEarly) {
            self.registry.offer(cache);
        }
    }

    /// Gives every object a cache holds to the floor below. Only its owner may.
    pub fn empty(&self, cache: &ThreadCache) {
        for class in Class::all() {
            let held = cache.bin(class).len();
            cache.with_owner(|_| self.give_oldest(cache, class, held));
        }
        self.look(cache);
    }

    /// The bin of `class` ran into `low`: an object, or null when there is no memory.
    pub fn refill(&self, cache: &ThreadCache, class: Class) -> *mut u8 {
        let bin = cache.bin(class);
        cache.with_owner(|owner| {
            let thin = self.is_thin(class);
            if thin {
                self.clear_apart(cache, class);
            } else if owner.apart[class.index()].count(bin).is_some() {
                self.join(cache, owner, class);
            }
            if !bin.is_empty() {
                // Only the mark was in the way, or a pin.
                if self.mode() == 0 {
                    self.unpin(cache, owner, class);
                    // What lies below the mark is in use: look lower down.
                    bin.mark(bin.len() / 2);
                }
                self.look_at(cache, class);
                // SAFETY: the caller owns the cache.
                return unsafe { bin.pop_any() }.unwrap_or(ptr::null_mut());
            }
            self.unpin(cache, owner, class);
            let capacity = self.climb(cache, owner, class, Event::Underflow);
            let mut one = [ptr::null_mut()];
            let slots = match capacity.min(class.batch()) {
                0 => &mut one[..],
                // SAFETY: the caller owns the cache, and the array has `capacity` slots.
                wanted => unsafe { bin.slots(wanted) },
            };
            slots.fill(ptr::null_mut());
            cache.journal.refilling(class);
            let got = self.below.take(class, slots);
            add(&cache.counters.refills, 1);
            add(&cache.counters.refilled, got);
            let object = match got {
                0 => ptr::null_mut(),
                _ => slots[got - 1],
            };
            if capacity != 0 {
                // SAFETY: the slots below the last one hold objects that were just taken.
                unsafe { bin.set_len(got.saturating_sub(1)) };
            }
            cache.journal.done();
            if thin {
                self.part(cache, owner, class, 0);
            }
            let mut all = false;
            if got != 0 {
                owner.surplus = owner.surplus.saturating_sub(got * class.size());
                owner.come_back(got * class.size());
                all = self.sweep_sometimes(cache, owner);
            }
            self.look_after(cache, class, all);
            object
        })
    }

    /// The bin of `class` ran into `end`: make room and keep `object`.
    ///
    /// # Safety
    /// The calling thread owns the cache and gives up `object`, an object of the class.
    pub unsafe fn spill(&self, cache: &ThreadCache, class: Class, object: *mut u8) {
        let bin = cache.bin(class);
        cache.with_owner(|owner| {
            let held = bin.len();
            if bin.is_on_top(object) {
                death::double_free(object.addr());
            }
            if held < owner.capacity(class) && self.mode() != 0 {
                self.look_at(cache, class);
                // SAFETY: the caller owns the cache and gives the object up; there is room.
                return unsafe { bin.push_any(object) };
            }
            if self.is_thin(class) {
                // SAFETY: the caller's promise.
                unsafe { self.keep_apart(cache, owner, class, object) };
                self.sweep_sometimes(cache, owner);
                // Any bin may have got other bounds.
                return self.look(cache);
            }
            if owner.apart[class.index()].count(bin).is_some() {
                self.join(cache, owner, class);
            }
            self.unpin(cache, owner, class);
            let capacity = self.climb(cache, owner, class, Event::Overflow);
            let held = bin.len();
            if capacity <= held {
                let given = class.batch().min(held);
                self.give_oldest(cache, class, given);
                owner.surplus += given * class.size();
            }
            let mut all = owner.surplus >= owner.release_at;
            if all {
                self.release(cache, owner);
            }
            // SAFETY: the caller's promise.
            if !unsafe { bin.push(object) } {
                self.below.give(class, &mut [object]);
                owner.surplus += class.size();
            }
            all |= self.sweep_sometimes(cache, owner);
            self.look_after(cache, class, all);
        });
    }

    /// One more round of thread exit: which, from 1.
    #[cfg(not(spandrel_model))]
    fn exit_round(&self, cache: &ThreadCache) -> u8 {
        cache.with_owner(|owner| {
            owner.rounds += 1;
            owner.rounds
        })
    }
}
