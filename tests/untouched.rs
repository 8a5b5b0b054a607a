//! Out of band: no byte of a free object is read or written.
//!
//! First the strict way: the floors stand on a system whose user memory cannot be touched at all, so
//! that the first access ends the process. Then the real building: freed objects keep what was last
//! written to them until they are handed out again.

mod common;

use common::{KIB, MIB, Rng, resident, rng};
use spandrel::base::classes::Class;
use spandrel::base::units::HUGEPAGE;
use spandrel::cache::Caches;
use spandrel::os::{Move, Os, OsCounts, Resize, linux::Linux};
use spandrel::page::PageHeap;
use spandrel::span::Spans;
use spandrel::transfer::Transfer;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// Linux, but what it maps for users can be neither read nor written. Records are mapped at page
/// alignment, users' memory at that of a hugepage and more: so one is told from the other.
#[derive(Debug)]
struct Sealed(Linux);

impl Os for Sealed {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let at = self.0.map(bytes, align)?;
        if align >= HUGEPAGE {
            // SAFETY: the pages were mapped just now and nobody knows them.
            assert_eq!(unsafe { libc::mprotect(at.as_ptr().cast(), bytes, libc::PROT_NONE) }, 0);
        }
        Some(at)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.unmap(at, bytes) }
    }

    unsafe fn purge(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.purge(at, bytes) }
    }

    unsafe fn collapse(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.collapse(at, bytes) }
    }

    fn wake(&self, word: &AtomicU32) {
        self.0.wake(word);
    }

    fn memory_limit(&self) -> Option<usize> {
        self.0.memory_limit()
    }

    unsafe fn advise_hugepages(&self, at: NonNull<u8>, bytes: usize, wanted: bool) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.advise_hugepages(at, bytes, wanted) }
    }

    unsafe fn resize(&self, at: NonNull<u8>, old: usize, new: usize) -> Resize {
        // SAFETY: the caller's promise.
        unsafe { self.0.resize(at, old, new) }
    }

    unsafe fn move_onto(&self, at: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.move_onto(at, old, to, new) }
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize, drop: bool) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.0.clear(at, bytes, drop) }
    }

    unsafe fn move_pages(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Move {
        // SAFETY: the caller's promise.
        unsafe { self.0.move_pages(from, to, bytes) }
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn at_thread_exit(&self, _: unsafe extern "C" fn(*mut u8), _: NonNull<u8>) -> bool {
        false
    }

    fn thread(&self) -> u32 {
        self.0.thread()
    }

    fn is_gone(&self, thread: u32) -> bool {
        self.0.is_gone(thread)
    }

    fn barrier(&self) -> bool {
        self.0.barrier()
    }

    fn process(&self) -> u32 {
        self.0.process()
    }

    fn counts(&self) -> OsCounts {
        self.0.counts()
    }
}

static SEALED: Caches<Transfer<Spans<Sealed>>> =
    Caches::new(Transfer::new(Spans::new(PageHeap::new(Sealed(Linux::new())))));

/// Small objects and large blocks, through every floor, on memory that kills whoever touches it.
#[test]
fn the_floors_never_touch_what_they_deal_in() {
    thread::scope(|scope| {
        for me in 0..4u64 {
            scope.spawn(move || sealed_work(Rng::new(rng::seed() ^ me)));
        }
    });
    SEALED.below().flush();
    let spans = SEALED.below().below();
    spans.pages().purge(|_, _| true);
    // The work was real: every floor had its share.
    let pages = spans.pages().counts();
    assert!(spans.counts().begun > 200 && spans.counts().died > 100, "{:?}", spans.counts());
    assert!(pages.takes > 1000 && pages.purged > 4 * HUGEPAGE, "{pages:?}");
}

fn sealed_work(mut rng: Rng) {
    let cache = SEALED.adopt().expect("memory for a cache");
    let pages = SEALED.below().below().pages();
    let mut small: Vec<(Class, *mut u8)> = Vec::new();
    let mut large: Vec<(NonNull<u8>, usize)> = Vec::new();
    for step in 0..30_000 * rng::factor() {
        if small.len() > 20_000 || rng.once_in(5000) {
            for (class, object) in small.drain(..) {
                // SAFETY: this thread owns the cache and frees the object once.
                unsafe {
                    if !cache.bin(class).push(object) {
                        SEALED.spill(cache, class, object);
                    }
                }
            }
        }
        if step % 10 != 0 {
            let class = Class::of(rng.size(32 * KIB), 8).expect("a class");
            for _ in 0..rng.below(4) {
                // SAFETY: this thread owns the cache.
                let object = unsafe { cache.bin(class).pop() };
                let object = object.unwrap_or_else(|| SEALED.refill(cache, class));
                assert!(!object.is_null());
                small.push((class, object));
            }
        } else if large.len() < 30 {
            let size = rng.size(6 * MIB);
            large.push((pages.large_alloc(size, 8, false).expect("memory"), size));
        } else {
            let (at, size) = large.swap_remove(rng.below(large.len()));
            // Smaller: what grows may move, and then its holder's bytes are copied.
            let new = rng.size(size);
            // SAFETY: the block is held here alone, and only its latest size and address are used.
            unsafe {
                match pages.large_resize(at, size, new, 8) {
                    Some(at) => large.push((at, new)),
                    None => pages.large_free(at, size, 8),
                }
            }
        }
    }
    for (class, object) in small {
        // SAFETY: as above.
        unsafe { SEALED.spill(cache, class, object) };
    }
    for (at, size) in large {
        // SAFETY: as above.
        unsafe { pages.large_free(at, size, 8) };
    }
    SEALED.retire(cache);
}

/// Objects are filled and freed; other work goes on; those that were not handed out again still hold
/// what they held. (A span that everything came home to would serve other work, so one object in
/// each stays held.)
#[test]
fn freed_objects_keep_their_contents_until_handed_out_again() {
    for size in [8, 16, 48, 64, 112, 1024, 4480, 32 * KIB] {
        let layout = Layout::from_size_align(size, 8).expect("a valid layout");
        let count = (8 * MIB / size).min(60_000);
        // SAFETY: a valid layout.
        let all: Vec<_> = (0..count).map(|_| unsafe { A.alloc(layout) }).collect();
        let span_bytes = Class::of(size, 8).expect("a class").span_bytes();
        let mut spans = BTreeSet::new();
        let (pins, freed): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|at| spans.insert(at.addr() / span_bytes));
        for &at in &freed {
            fill(at, size);
        }
        for &at in &freed {
            // SAFETY: allocated above, freed once.
            unsafe { A.dealloc(at, layout) };
        }
        // All the ways down: the caches, the transfer cache, the spans; the page heap by other
        // sizes' spans; and a thread that comes and goes.
        thread::spawn(move || other_work(size)).join().expect("no panic");
        other_work(size);
        // (A purge would return the pages of free objects to the system.)
        spandrel::flush_current_thread();
        spandrel::front::building::BUILDING.below().flush();

        // The rest of the process takes a few of them at any time; a list threaded through free
        // objects, or a poison, would change them all.
        let changed = freed.iter().filter(|&&at| !holds_pattern(at, size)).count();
        assert!(changed * 20 <= count, "{changed} of {count} free objects of {size} bytes changed");
        for at in pins {
            // SAFETY: allocated above, freed once.
            unsafe { A.dealloc(at, layout) };
        }
    }
}

/// Pages that were only read have the system's page of zeros behind them, and clearing them leaves it there;
/// what was written to is cleared.
#[test]
fn clearing_what_was_only_read_costs_no_memory() {
    const BYTES: usize = 64 * MIB;
    let os = Linux::new();
    let at = os.map(BYTES, HUGEPAGE).expect("memory");
    let page = os.page_size();
    let sum = || {
        let first = |page: usize| {
            // SAFETY: mapped above, and only this test knows it.
            usize::from(unsafe { at.add(page).read_volatile() })
        };
        (0..BYTES).step_by(page).map(first).sum::<usize>()
    };
    assert_eq!(sum(), 0);
    // SAFETY: as above.
    unsafe { at.add(3 * page).write(7) };
    let before = resident();
    // SAFETY: as above, and nobody reads or writes meanwhile.
    let held = unsafe { os.clear(at, BYTES, false) };
    let more = resident().saturating_sub(before);
    assert_eq!((held, sum()), (page, 0));
    assert!(more < BYTES / 2, "{more} bytes of memory behind pages that were only read");
    // SAFETY: as above; it is not used again.
    assert!(unsafe { os.unmap(at, BYTES) });
}

fn fill(at: *mut u8, size: usize) {
    for i in (0..size).step_by(8) {
        // SAFETY: within an object of this size, aligned to 8.
        unsafe { at.add(i).cast::<u64>().write_volatile((at.addr() + i) as u64 ^ PATTERN) };
    }
}

fn holds_pattern(at: *mut u8, size: usize) -> bool {
    (0..size).step_by(8).all(|i| {
        // SAFETY: free, but mapped: its span has an object that is held, so it is not returned.
        let found = unsafe { at.add(i).cast::<u64>().read_volatile() };
        found == (at.addr() + i) as u64 ^ PATTERN
    })
}

const PATTERN: u64 = 0x5a5a_0ff0_a5a5_f00f;

/// Work in classes other than that of `size` and its neighbours, none of which is written to, so
/// that a changed byte is the allocator's doing.
fn other_work(size: usize) {
    let class = Class::of(size, 8).expect("a class");
    for other in Class::all().filter(|other| other.index() % 4 != class.index() % 4) {
        let layout = Layout::from_size_align(other.size(), 8).expect("a valid layout");
        // SAFETY: a valid layout; each block is freed once, untouched.
        unsafe {
            let blocks: Vec<_> = (0..100).map(|_| A.alloc(layout)).collect();
            blocks.into_iter().for_each(|at| A.dealloc(at, layout));
        }
    }
}
