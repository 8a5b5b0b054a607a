//! The floors on a system that fails.
//!
//! A case enters the building at one of four heights ([`Entry`]); everything below is real. Requests may
//! fail only while the system has a reason to fail; what is held stays intact whatever fails; and at the
//! end, with the system well again, everything comes back whole ([`Building::close`]).

mod building;

pub use building::Building;

use crate::shadow;
use crate::size::Size;
use crate::system::System;
use arbitrary::{Arbitrary, Unstructured};
use spandrel::base::classes::{CLASSES, Class};
use spandrel::base::units::*;
use spandrel::cache::{Caches, ThreadCache};
use spandrel::page::{Extent, Grain};
use spandrel::span::{Objects, Spans};
use spandrel::transfer::Transfer;
use spandrel::{Decay, Limit};
use std::ptr::{self, NonNull};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Where a case enters the building.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Thread caches.
    Caches,
    /// The transfer cache.
    Transfer,
    /// Spans.
    Spans,
    /// The page heap: no objects, only runs and large blocks.
    Pages,
}

/// One step of a case.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Op {
    Take { class: u8, count: u8 },
    Give { which: u16, count: u8 },
    Run { order: u8, count: u16, zeroed: bool, sparse: bool },
    Large { size: Size, align: u8, zeroed: bool },
    Resize { which: u16, size: Size },
    Check { which: u16 },
    Flush,
    Purge,
    Shed,
    Tick,
    Advance { ms: u16 },
    Fail { kinds: u8, skip: u8, count: u8 },
    Chance { kinds: u8, one_in: u8 },
    Limit { mib: u8 },
    Longest { mib: u8 },
    Hard { mib: u8 },
    Soft { mib: u8 },
    Cgroup { mib: u8, percent: u8 },
    Decay { ms: u16 },
    Heal,
    Retire,
    Die,
    Pass { which: u16 },
    Collect,
    Books,
}

impl Op {
    fn troubles(self) -> bool {
        use Op::*;
        matches!(
            self,
            Fail { .. }
                | Chance { .. }
                | Limit { .. }
                | Longest { .. }
                | Hard { .. }
                | Cgroup { .. }
        )
    }
}

type Tower = Caches<Transfer<Spans<System>>>;

/// More than this in one case is no more interesting, only slower.
const MOST_BYTES: usize = 1 << 30;
const MOST_BLOCKS: usize = 20_000;
const MOST_THREADS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum What {
    Object(Class),
    Run(usize),
    Large { size: usize, align: usize },
}

/// Something that is held.
#[derive(Debug)]
struct Held {
    at: NonNull<u8>,
    /// Bytes that are the holder's.
    size: usize,
    tag: u64,
    what: What,
}

// SAFETY: plain memory with one holder.
unsafe impl Send for Held {}

impl Held {
    #[track_caller]
    fn check(&self) {
        // SAFETY: it is held and was filled when it was entered.
        unsafe { shadow::check(self.at.as_ptr(), self.size, self.tag, self.size) };
    }
}

/// One thread's part of a case.
pub struct Hand<'a> {
    building: &'a Building,
    cache: Option<&'a ThreadCache>,
    number: u32,
    held: Vec<Held>,
    bytes: usize,
    made: u64,
}

impl<'a> Hand<'a> {
    /// A hand with nothing in it.
    pub fn new(building: &'a Building) -> Self {
        let mut hand =
            Self { building, cache: None, number: 0, held: Vec::new(), bytes: 0, made: 0 };
        hand.begin();
        hand
    }

    /// A thread begins.
    fn begin(&mut self) {
        self.number = self.building.threads.fetch_add(1, Relaxed).min(63);
        self.building.system().be(self.number);
        self.cache = None;
    }

    /// The thread's cache, got now if it can be; without one it goes below, as the front does.
    fn cache(&mut self) -> Option<&'a ThreadCache> {
        if self.cache.is_none() && self.building.entry == Entry::Caches {
            self.building.system().be(self.number);
            self.cache = self.building.tower.adopt();
        }
        self.cache
    }

    /// Does one step.
    #[track_caller]
    pub fn step(&mut self, op: Op, alone: bool) {
        crate::trace_step(&op);
        let b = self.building;
        if !alone && op.troubles() {
            b.troubled.store(true, Relaxed);
        }
        let full = self.bytes > MOST_BYTES || self.held.len() > MOST_BLOCKS;
        match op {
            Op::Take { class, count } if !full => {
                let class = Class::from_index(class as usize % CLASSES);
                for _ in 0..count as usize % 130 + 1 {
                    if !self.take(class) {
                        break;
                    }
                }
            }
            Op::Run { order, count, zeroed, sparse } if !full => {
                let order = u32::from(order) % (MAX_ORDER + 1);
                let most = if order < HUGEPAGE_ORDER { 1 << order } else { 1 << MAX_ORDER };
                let count = 1 + count as usize % most.min(700);
                let grain = if sparse { Grain::Sparse } else { Grain::Fine };
                self.run(grain, order, count, zeroed);
            }
            Op::Large { size, align, zeroed } if !full => {
                self.large(size.bytes(), 1 << (align % 31), zeroed);
            }
            Op::Take { .. } | Op::Run { .. } | Op::Large { .. } => {
                let keep = self.held.len() / 2;
                while self.held.len() > keep {
                    self.give_at(keep);
                }
            }
            Op::Give { which, count } => {
                for _ in 0..=count {
                    if self.held.is_empty() {
                        break;
                    }
                    self.give_at(which as usize % self.held.len());
                }
            }
            Op::Resize { which, size } if !self.held.is_empty() => {
                self.resize(which as usize % self.held.len(), size.bytes());
            }
            Op::Check { which } if !self.held.is_empty() => {
                self.held[which as usize % self.held.len()].check();
            }
            Op::Flush => {
                if let Some(cache) = self.cache {
                    b.tower.empty(cache);
                }
                b.transfer().flush();
            }
            Op::Purge => drop(b.pages().purge_all()),
            Op::Shed => drop(b.spans().shed()),
            Op::Tick => b.transfer().tick(),
            Op::Advance { ms } => b.system().advance(u64::from(ms)),
            Op::Fail { kinds, skip, count } => {
                let count = if count > 200 { u64::MAX } else { u64::from(count % 8) + 1 };
                b.system().fail(kinds, u64::from(skip), count);
            }
            Op::Chance { kinds, one_in } => {
                b.system().fail_by_chance(kinds, u32::from(one_in % 16) + 1);
            }
            Op::Limit { mib } => b.system().limit(usize::from(mib) << 22),
            Op::Longest { mib } => b.system().longest(usize::from(mib) << 20),
            Op::Hard { mib } => {
                b.limit(Limit::Bytes((usize::from(mib) + 1) << 20));
            }
            Op::Soft { mib } => {
                b.pages().policy().set_soft(Limit::Bytes((usize::from(mib) + 1) << 20), || None);
            }
            Op::Cgroup { mib, percent } => {
                b.system().cgroup((usize::from(mib) + 1) << 22);
                b.limit(Limit::CgroupShare(percent % 100 + 1));
            }
            Op::Decay { ms } => {
                let decay = match ms {
                    u16::MAX => Decay::Never,
                    ms => Decay::Within(Duration::from_millis(ms.into())),
                };
                b.pages().policy().set_decay(decay);
            }
            Op::Heal => b.well_again(),
            Op::Retire => {
                self.retire();
                self.begin();
            }
            Op::Die if self.number < 60 => {
                if self.cache.take().is_some() {
                    b.dead.fetch_add(1, Relaxed);
                    b.system().bury(self.number);
                }
                self.begin();
            }
            Op::Pass { which } if !self.held.is_empty() => {
                let held = self.held.swap_remove(which as usize % self.held.len());
                self.bytes -= held.size;
                b.passed.lock().unwrap_or_else(PoisonError::into_inner).push(held);
            }
            Op::Collect => {
                let got = b.passed.lock().unwrap_or_else(PoisonError::into_inner).pop();
                if let Some(held) = got {
                    self.bytes += held.size;
                    self.held.push(held);
                }
            }
            Op::Books if alone => drop(b.books()),
            _ => {}
        }
    }

    /// Enters something that was handed out.
    #[track_caller]
    fn keep(&mut self, at: NonNull<u8>, size: usize, what: What) {
        self.building.shadow.claim(at.as_ptr(), size);
        self.made += 1;
        let tag = (at.addr().get() as u64).wrapping_mul(self.made << 1 | 1).rotate_left(17);
        // SAFETY: just handed out, and that long.
        unsafe { shadow::fill(at.as_ptr(), size, tag) };
        self.bytes += size;
        self.held.push(Held { at, size, tag, what });
    }

    #[track_caller]
    fn refused(&self, what: &str) {
        assert!(self.building.may_fail(), "{what} was refused by a healthy system");
    }

    #[track_caller]
    fn take(&mut self, class: Class) -> bool {
        let b = self.building;
        let mut one = [ptr::null_mut()];
        let at = match b.entry {
            Entry::Caches => match self.cache() {
                // SAFETY: this hand owns the cache.
                Some(cache) => unsafe { cache.bin(class).pop() }
                    .unwrap_or_else(|| b.tower.refill(cache, class)),
                None => {
                    b.transfer().take(class, &mut one);
                    one[0]
                }
            },
            Entry::Transfer => {
                b.transfer().take(class, &mut one);
                one[0]
            }
            Entry::Spans => {
                b.spans().take(class, &mut one);
                one[0]
            }
            Entry::Pages => return false,
        };
        let Some(at) = NonNull::new(at) else {
            self.refused("an object");
            return false;
        };
        let addr = at.addr().get();
        assert_eq!((addr & (class.span_bytes() - 1)) % class.size(), 0, "{at:p} for {class:?}");
        self.keep(at, class.size(), What::Object(class));
        true
    }

    #[track_caller]
    fn run(&mut self, grain: Grain, order: u32, count: usize, zeroed: bool) {
        let pages = self.building.pages();
        let taken = if zeroed {
            pages.take_zeroed(grain, order, count)
        } else {
            pages.take_for(grain, order, count)
        };
        let Some(run) = taken else { return self.refused("a run") };
        let addr = run.address();
        assert_eq!(addr % (GRANULE << order), 0, "a run of order {order}");
        let at = NonNull::new(ptr::with_exposed_provenance_mut(addr)).expect("not null");
        assert!(!zeroed || run.zeroed);
        if run.zeroed {
            // SAFETY: handed out, and that long.
            unsafe { shadow::check_zero(at.as_ptr(), count * GRANULE) };
        }
        self.building.runs.fetch_add(count * GRANULE, Relaxed);
        self.keep(at, count * GRANULE, What::Run(count));
    }

    #[track_caller]
    fn large(&mut self, size: usize, align: usize, zeroed: bool) {
        let pages = self.building.pages();
        let Some(at) = pages.large_alloc(size, align, zeroed) else {
            return self.refused("a large block");
        };
        assert!(at.addr().get().is_multiple_of(align), "{at:p} at {align:#x}");
        let page_size = spandrel::os::Os::page_size(self.building.system());
        let bytes = Extent::of(size, align, page_size).expect("it was handed out").bytes();
        assert!(bytes >= size);
        if zeroed {
            // SAFETY: handed out, and that long.
            unsafe { shadow::check_zero(at.as_ptr(), size) };
        }
        // All of it is the holder's, not only what was asked for.
        self.keep(at, bytes, What::Large { size, align });
    }

    #[track_caller]
    fn resize(&mut self, which: usize, new: usize) {
        let What::Large { size, align } = self.held[which].what else { return };
        let held = self.held.swap_remove(which);
        held.check();
        self.bytes -= held.size;
        self.building.shadow.release(held.at.as_ptr(), held.size);
        let pages = self.building.pages();
        let page_size = spandrel::os::Os::page_size(self.building.system());
        let target = Extent::of(new, align, page_size).map_or(0, Extent::bytes);
        self.building.system().resizes_to(target);
        // SAFETY: held here alone, with this size and alignment.
        let resized = unsafe { pages.large_resize(held.at, size, new, align) };
        let Some(at) = resized else {
            // Nothing has changed.
            self.building.shadow.claim(held.at.as_ptr(), held.size);
            held.check();
            self.bytes += held.size;
            self.held.push(held);
            return;
        };
        assert!(at.addr().get().is_multiple_of(align), "{at:p} at {align:#x}");
        let bytes = target;
        // SAFETY: the block is that long now.
        unsafe { shadow::check(at.as_ptr(), held.size, held.tag, held.size.min(bytes)) };
        self.keep(at, bytes, What::Large { size: new, align });
    }

    #[track_caller]
    fn give_at(&mut self, which: usize) {
        let held = self.held.swap_remove(which);
        held.check();
        self.bytes -= held.size;
        let b = self.building;
        let at = held.at.as_ptr();
        b.shadow.release(at, held.size);
        match held.what {
            What::Object(class) => match (b.entry, self.cache()) {
                (Entry::Caches, Some(cache)) => {
                    // SAFETY: this hand owns the cache, and the object is given up once.
                    unsafe {
                        if !cache.bin(class).push(at) {
                            b.tower.spill(cache, class, at);
                        }
                    }
                }
                (Entry::Transfer, _) => b.transfer().give(class, &mut [at]),
                _ => b.spans().give(class, &mut [at]),
            },
            What::Run(count) => {
                let window = b.pages().find(at.addr()).expect("its window");
                b.pages().give(window, Granule::of(at.addr()), count);
                b.runs.fetch_sub(count * GRANULE, Relaxed);
            }
            What::Large { size, align } => {
                // SAFETY: handed out for these, and given up once.
                unsafe { b.pages().large_free(held.at, size, align) };
            }
        }
    }

    /// Panics unless everything it holds is as it was written.
    #[track_caller]
    pub fn check_all(&self) {
        self.held.iter().for_each(Held::check);
    }

    /// How many things it holds.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Gives everything back that it holds.
    #[track_caller]
    pub fn give_all(&mut self) {
        while !self.held.is_empty() {
            self.give_at(self.held.len() - 1);
        }
    }

    fn collect_all(&mut self) {
        let b = self.building;
        self.held.append(&mut b.passed.lock().unwrap_or_else(PoisonError::into_inner));
        self.bytes = self.held.iter().map(|held| held.size).sum();
    }

    /// What a healthy system must serve.
    #[track_caller]
    fn serve(&mut self) {
        if self.building.entry != Entry::Pages {
            for class in Class::all() {
                assert!(self.take(class), "{class:?}");
            }
        }
        self.large(1 << 20, 8, true);
        self.large(5 << 20, 1 << 21, false);
        self.large(130 << 20, 8, false);
        self.give_all();
    }

    /// Takes over caches until those of the dead are among them.
    #[track_caller]
    fn inherit_from_the_dead(&mut self) {
        let b = self.building;
        let mut dead = b.dead.load(Relaxed);
        let mut taken = Vec::new();
        let mut held = b.stats().cached;
        // One adoption looks at eight others.
        for _ in 0..200 {
            if dead == 0 || self.cache.map_or(0, held_by) == held {
                break;
            }
            let Some(cache) = b.tower.adopt() else { break };
            taken.push(cache);
            let now = b.stats().cached;
            dead -= u32::from(now < held);
            held = now;
        }
        taken.into_iter().for_each(|cache| b.tower.retire(cache));
    }

    /// The end of the thread: what it keeps goes below.
    pub fn retire(&mut self) {
        if let Some(cache) = self.cache.take() {
            self.building.tower.retire(cache);
        }
    }
}

fn held_by(cache: &ThreadCache) -> usize {
    Class::all().map(|class| cache.held(class) * class.size()).sum()
}

/// Decodes a case and does it.
pub fn run(entry: Entry, data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(head) = u8::arbitrary(&mut bytes) else { return };
    let page_size = [4 << 10, 4 << 10, 16 << 10, 64 << 10][head as usize & 3];
    // Most cases have one thread: those can be replayed.
    let threads = [1, 1, 2, MOST_THREADS][head as usize >> 2 & 3];
    let mut steps: [Vec<Op>; MOST_THREADS] = Default::default();
    while !bytes.is_empty()
        && let Ok(who) = if threads == 1 { Ok(0) } else { u8::arbitrary(&mut bytes) }
        && let Ok(op) = Op::arbitrary(&mut bytes)
    {
        steps[who as usize % threads].push(op);
    }
    let building = Building::new(entry, page_size);
    let work = |steps: &[Op], alone| {
        let mut hand = Hand::new(&building);
        steps.iter().for_each(|&op| hand.step(op, alone));
        hand.check_all();
        hand.give_all();
        hand.retire();
    };
    if threads == 1 {
        work(&steps[0], true);
    } else {
        std::thread::scope(|scope| {
            for steps in &steps[..threads] {
                scope.spawn(|| work(steps, false));
            }
        });
    }
    building.close();
}
