//! The page heap on the fake system: runs of granules, large blocks, returned memory, with pages of
//! every size and with a system that refuses.

mod common;

use common::tower::{PAGE_SIZES, Tower, fake, pages, tower};
use common::{GIB, KIB, MIB, Rng, ledger, rng};
use spandrel::base::classes::Use;
use spandrel::base::units::*;
use spandrel::os::Os;
use spandrel::page::purge::due_after;
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// A run that is held: filled with its own address, so that it is seen when another overlaps it.
struct Held {
    addr: usize,
    count: usize,
}

impl Held {
    #[track_caller]
    fn take(tower: &Tower, order: u32, count: usize) -> Option<Self> {
        let run = pages(tower).take(order, count)?;
        let held = Self { addr: run.address(), count };
        assert_eq!(held.addr % (GRANULE << order), 0, "{count} granules at order {order}");
        assert!(pages(tower).find(held.addr).is_some_and(|window| ptr::eq(window, run.window)));
        ledger::claim(held.addr, count * GRANULE).expect("nobody else holds it");
        if run.zeroed {
            let bytes = held.bytes();
            assert!(
                bytes[0] == 0 && bytes[1..] == bytes[..bytes.len() - 1],
                "known zero, but is not"
            );
        }
        for word in held.marks() {
            // SAFETY: within the run, which is held.
            unsafe { word.write(held.addr as u64) };
        }
        Some(held)
    }

    #[track_caller]
    fn give(self, tower: &Tower) {
        self.check();
        ledger::release(self.addr, self.count * GRANULE).expect("it was held");
        let window = pages(tower).find(self.addr).expect("a window");
        pages(tower).give(window, Granule::of(self.addr), self.count);
    }

    #[track_caller]
    fn check(&self) {
        for word in self.marks() {
            // SAFETY: within the run, which is held.
            assert_eq!(unsafe { word.read() }, self.addr as u64, "{:#x} was written to", self.addr);
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the run is held and that long.
        unsafe {
            std::slice::from_raw_parts(
                ptr::with_exposed_provenance(self.addr),
                self.count * GRANULE,
            )
        }
    }

    /// The first word of each granule.
    fn marks(&self) -> impl Iterator<Item = *mut u64> {
        let addr = self.addr;
        (0..self.count).map(move |i| ptr::with_exposed_provenance_mut(addr + i * GRANULE))
    }
}

/// How many granules are free, with the books of every window checked.
fn free_granules(tower: &Tower) -> usize {
    pages(tower).windows().map(|window| window.check().expect("the books balance")).sum()
}

fn random_work(tower: &Tower, rng: &mut Rng, steps: usize, most_order: usize) {
    let mut held = Vec::new();
    for _ in 0..steps {
        if held.len() < 60 && rng.once_in(2) {
            // Now and then neighbouring hugepages, wherever they lie, over the words of the map.
            let long = most_order > 6 && rng.once_in(20);
            let order = if long { 6 } else { rng.below(most_order + 1) as u32 };
            let count = if long { 65 + rng.below(640) } else { 1 + rng.below(1 << order) };
            held.extend(Held::take(tower, order, count));
        } else if !held.is_empty() {
            held.swap_remove(rng.below(held.len())).give(tower);
        }
    }
    held.into_iter().for_each(|run| run.give(tower));
}

#[test]
fn any_run_with_pages_of_any_size() {
    for page_size in PAGE_SIZES {
        // The second is too little for a window, enough for its record and the largest run.
        for longest in [usize::MAX, 32 * MIB] {
            let tower = tower(page_size);
            fake(tower).longest(longest);
            let mut rng = Rng::new(rng::seed() ^ page_size as u64);
            random_work(tower, &mut rng, 2500 * rng::factor(), 8);
            let mapped = fake(tower).counts().mapped;
            assert_eq!(free_granules(tower) * GRANULE + pages(tower).counts().metadata, mapped);
        }
    }
}

#[test]
fn first_fit_from_the_lowest_address_and_no_tail_is_kept() {
    let tower = tower(4 * KIB);
    let place = |run: &Held| Granule::of(run.addr).0;
    let take = |order, count| Held::take(tower, order, count).expect("memory");
    // Five of eight; the tail of three serves one and two.
    let five = take(3, 5);
    let (one, two) = (take(0, 1), take(1, 2));
    assert_eq!((place(&five), place(&one), place(&two)), (0, 5, 6));
    // The hole of one granule is taken before a larger run is split.
    let next = take(0, 1);
    assert_eq!(place(&next), 8);
    one.give(tower);
    let again = take(0, 1);
    assert_eq!(place(&again), 5);
    // 65 granules: a whole hugepage and one of the next, whose other 63 are free.
    let odd = take(7, 65);
    assert_eq!((place(&odd), place(&odd) % 64), (128, 0));
    let small = take(5, 32);
    assert_eq!(place(&small), 32, "in the hugepage in use, not in a fresh one");
    let rest = take(5, 32);
    assert!(place(&rest) > 128 + 64 && place(&rest) < 256, "in the tail of the second hugepage");
    [five, two, next, again, odd, small, rest].into_iter().for_each(|run| run.give(tower));
    assert_eq!(free_granules(tower), GRANULES_PER_WINDOW);
}

/// Buddies that are free are the bigger run: nothing has to be merged, and nothing is lost.
#[test]
fn granules_freed_one_by_one_serve_the_largest_runs() {
    let tower = tower(4 * KIB);
    let mut rng = Rng::new(rng::seed());
    let mut held = Vec::new();
    for _ in 0..4096 {
        held.push(Held::take(tower, 0, 1).expect("memory"));
    }
    while !held.is_empty() {
        held.swap_remove(rng.below(held.len())).give(tower);
    }
    // The eight largest runs fill the window; the ninth needs another one.
    let grows = pages(tower).counts().grows;
    let runs: Vec<_> = (0..8)
        .map(|_| pages(tower).take(MAX_ORDER, 1 << MAX_ORDER).expect("memory").address())
        .collect();
    assert_eq!(pages(tower).counts().grows, grows, "the granules were not put together");
    let ninth = pages(tower).take(MAX_ORDER, 1 << MAX_ORDER).expect("memory").address();
    assert_eq!(pages(tower).counts().grows, grows + 1);
    for addr in runs.into_iter().chain([ninth]) {
        let window = pages(tower).find(addr).expect("a window");
        pages(tower).give(window, Granule::of(addr), 1 << MAX_ORDER);
    }
    assert_eq!(free_granules(tower), 2 * GRANULES_PER_WINDOW);
}

#[test]
fn small_at_first_and_doubling_where_no_window_can_be_had() {
    let tower = tower(4 * KIB);
    fake(tower).longest(256 * MIB);
    let mut steps = Vec::new();
    let mut mapped = 0;
    while steps.len() < 7 {
        let run = pages(tower).take(6, 64).expect("memory");
        assert!(run.zeroed);
        let now = fake(tower).counts().mapped - pages(tower).counts().metadata;
        if now != mapped {
            steps.push((now - mapped) / MIB);
            mapped = now;
        }
    }
    assert_eq!(steps, [4, 8, 16, 32, 64, 128, 256]);
}

/// Whichever call fails: a null, nothing lost, and all is well afterwards.
#[test]
fn any_call_may_fail() {
    for first_windows in [true, false] {
        for skip in 0..24 {
            let tower = tower(4 * KIB);
            if !first_windows {
                fake(tower).longest(40 * MIB);
            }
            fake(tower).fail(skip, 3);
            let mut rng = Rng::new(rng::seed() ^ skip);
            random_work(tower, &mut rng, 200, 7);
            fake(tower).heal();
            random_work(tower, &mut rng, 100, 7);
            let counts = pages(tower).counts();
            let mapped = fake(tower).counts().mapped;
            let free = free_granules(tower) * GRANULE;
            assert_eq!(free + counts.metadata + counts.stranded, mapped, "call {skip}: {counts:?}");
        }
    }
}

#[test]
fn a_refusal_is_none_and_what_is_held_stays() {
    let tower = tower(4 * KIB);
    fake(tower).limit(100 * MIB);
    let mut held = Vec::new();
    while let Some(run) = Held::take(tower, 2, 3) {
        held.push(run);
    }
    let bytes = held.len() * 3 * GRANULE;
    assert!(bytes > 45 * MIB, "only {bytes} bytes of 100 MiB");
    assert!(Held::take(tower, 12, 4096).is_none());
    // The fourth granule of each run of four is free, and found.
    assert!(Held::take(tower, 1, 2).is_none());
    let ones: Vec<_> = (0..held.len()).map(|_| Held::take(tower, 0, 1).expect("a tail")).collect();
    held.iter().for_each(Held::check);
    held.into_iter().chain(ones).for_each(|run| run.give(tower));
    assert!(Held::take(tower, 8, 256).is_some_and(|run| {
        run.give(tower);
        true
    }));
    assert_eq!(
        free_granules(tower) * GRANULE + pages(tower).counts().metadata,
        fake(tower).counts().mapped
    );
}

// ---- large blocks ----

#[test]
fn large_blocks_of_any_size_alignment_and_fate() {
    for page_size in PAGE_SIZES {
        let tower = tower(page_size);
        let heap = pages(tower);
        let mut rng = Rng::new(rng::seed() ^ page_size as u64);
        let mut held: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for _ in 0..1500 * rng::factor() {
            let size =
                if rng.once_in(50) { 128 * MIB + rng.below(64 * MIB) } else { rng.size(4 * MIB) };
            let align = 1 << rng.below(23);
            let any = held.keys().nth(rng.below(held.len().max(1))).copied();
            match (rng.below(3), any) {
                (0, _) if held.len() < 50 => {
                    let zero = (size ^ align).count_ones().is_multiple_of(2);
                    let block = heap.large_alloc(size, align, zero).expect("memory");
                    let addr = block.addr().get();
                    assert_eq!(addr % align, 0);
                    ledger::claim(addr, size).expect("nobody else holds it");
                    assert!(!zero || ends(block, size) == [0, 0]);
                    mark(block, size, addr as u8 | 1);
                    held.insert(addr, (size, align));
                }
                (1, Some(addr)) => {
                    let (old, align) = held[&addr];
                    let at = at(addr);
                    let tag = ends(at, old)[0];
                    ledger::release(addr, old).expect("it was held");
                    // SAFETY: the block is held here alone.
                    let resized = unsafe { heap.large_resize(at, old, size, align) };
                    let (at, size) = resized.map_or((at, old), |moved| (moved, size));
                    let now = at.addr().get();
                    ledger::claim(now, size).expect("nobody else holds it");
                    assert_eq!(now % align, 0);
                    // SAFETY: the block is held here alone and at least that long.
                    assert_eq!(unsafe { at.read() }, tag, "the contents were lost");
                    mark(at, size, tag);
                    held.remove(&addr);
                    held.insert(now, (size, align));
                }
                (_, Some(addr)) => {
                    let (size, align) = held.remove(&addr).expect("it is held");
                    let tag = ends(at(addr), size);
                    assert_eq!(tag[0], tag[1], "{addr:#x} was written to");
                    ledger::release(addr, size).expect("it was held");
                    // SAFETY: the block is held here alone and freed once.
                    unsafe { heap.large_free(at(addr), size, align) };
                }
                _ => {}
            }
        }
        for (addr, (size, align)) in held {
            ledger::release(addr, size).expect("it was held");
            // SAFETY: the block is held here alone and freed once.
            unsafe { heap.large_free(at(addr), size, align) };
        }
        let counts = heap.counts();
        assert_eq!((counts.huge, counts.huge_blocks, counts.stranded), (0, 0, 0));
        let mapped = fake(tower).counts().mapped;
        assert_eq!(free_granules(tower) * GRANULE + counts.metadata, mapped);
    }
}

fn at(addr: usize) -> NonNull<u8> {
    NonNull::new(ptr::with_exposed_provenance_mut(addr)).expect("not null")
}

/// The first and the last byte.
fn ends(at: NonNull<u8>, size: usize) -> [u8; 2] {
    // SAFETY: the callers hold this block.
    unsafe { [at.read(), at.add(size - 1).read()] }
}

fn mark(at: NonNull<u8>, size: usize, tag: u8) {
    // SAFETY: the callers hold this block.
    unsafe {
        at.write(tag);
        at.add(size - 1).write(tag);
    }
}

/// A mapping that the system will not take back, or will not move.
#[test]
fn huge_blocks_survive_a_system_that_refuses() {
    let tower = tower(4 * KIB);
    let heap = pages(tower);
    let block = heap.large_alloc(200 * MIB, 8, false).expect("memory");
    mark(block, 200 * MIB, 9);
    // Neither in place nor to another.
    fake(tower).fail(0, 2);
    // SAFETY: the block is held here alone throughout, and given up at the end.
    unsafe {
        assert_eq!(heap.large_resize(block, 200 * MIB, 300 * MIB, 8), None);
        assert_eq!(ends(block, 200 * MIB), [9, 9]);
        // Not in place: its pages move.
        fake(tower).fail(0, 1);
        let moved = heap.large_resize(block, 200 * MIB, 300 * MIB, 8).expect("memory");
        assert_ne!(moved, block);
        assert_eq!(heap.large_at(moved.addr().get()), Some((Use::Mapping, 300 * MIB)));
        assert_eq!(heap.large_at(block.addr().get()), None, "the old record is gone");
        assert_eq!(
            [ends(moved, 1)[0], ends(moved, 200 * MIB)[1], ends(moved, 300 * MIB)[1]],
            [9, 9, 0]
        );
        fake(tower).fail(0, 1);
        heap.large_free(moved, 300 * MIB, 8);
    }
    let counts = heap.counts();
    assert_eq!((counts.huge, counts.huge_blocks), (0, 0));
    assert_eq!(counts.stranded, 300 * MIB, "it is known where the address space went");
}

// ---- returned memory ----

#[test]
fn whole_hugepages_are_returned_in_their_time() {
    let tower = tower(4 * KIB);
    let heap = pages(tower);
    let dirty = |count: usize| {
        let runs: Vec<_> = (0..count).map(|_| Held::take(tower, 6, 64).expect("memory")).collect();
        runs.into_iter().for_each(|run| run.give(tower));
    };
    // Any give may look for what is due, four times a second at most.
    let look = || Held::take(tower, 0, 1).expect("memory").give(tower);
    fake(tower).advance(10_000);
    dirty(64);
    fake(tower).advance(900);
    look();
    assert_eq!(heap.counts().purged, 0, "nothing is returned within a second");
    // Each goes in its time, the last ones first.
    let mut before = 0;
    for _ in 0..40 {
        fake(tower).advance(300);
        look();
        let purged = heap.counts().purged;
        assert!(purged >= before);
        before = purged;
    }
    // The first hugepage is in use again with every look, for a moment.
    assert!(before >= 63 * HUGEPAGE, "{before} bytes returned");
    assert!((1..63).all(|h| due_after(Hugepage(h), 10_000) <= due_after(Hugepage(h - 1), 10_000)));
    // What was returned is known to be zero, and `take` looks.
    let again: Vec<_> = (0..64).map(|_| pages(tower).take(6, 64).expect("memory").zeroed).collect();
    assert!(again.iter().filter(|&&zeroed| zeroed).count() >= 63, "{again:?}");
}

#[test]
fn a_hugepage_in_use_is_never_returned() {
    let tower = tower(4 * KIB);
    let held = Held::take(tower, 0, 1).expect("memory");
    let other = Held::take(tower, 5, 32).expect("memory");
    other.give(tower);
    assert_eq!(pages(tower).purge(|_, _| true), 0);
    held.check();
    held.give(tower);
    assert_eq!(pages(tower).purge(|_, _| true), 33 * GRANULE);
    assert_eq!(pages(tower).purge(|_, _| true), 0, "once is enough");
}

#[test]
fn a_system_that_will_not_take_memory_back_loses_none() {
    let tower = tower(4 * KIB);
    Held::take(tower, 6, 64).expect("memory").give(tower);
    fake(tower).fail(0, 1);
    assert_eq!(pages(tower).purge(|_, _| true), 0);
    // Still dirty, and so not called zero.
    assert!(!pages(tower).take(6, 64).expect("memory").zeroed);
    assert_eq!(free_granules(tower), GRANULES_PER_WINDOW - 64);
}

// ---- threads ----

/// Threads take, give and return memory at the same time, on a heap so small that they meet.
#[test]
fn threads_meet() {
    for limit in [usize::MAX, 100 * MIB] {
        let tower = tower(4 * KIB);
        fake(tower).limit(limit);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4u64)
                .map(|me| {
                    scope.spawn(move || {
                        let mut rng = Rng::new(rng::seed() ^ me);
                        random_work(tower, &mut rng, 2000 * rng::factor(), 8);
                    })
                })
                .collect();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    pages(tower).purge(|_, _| true);
                    thread::yield_now();
                }
            });
            // The purger stops however the workers end.
            let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            stop.store(true, Relaxed);
            ends.into_iter().for_each(|end| end.expect("no panic"));
        });
        let counts = pages(tower).counts();
        assert!(counts.purged > 0, "{counts:?}");
        let mapped = fake(tower).counts().mapped;
        assert_eq!(free_granules(tower) * GRANULE + counts.metadata + counts.stranded, mapped);
        // The fake looks before it maps, so each of four threads may overstep once.
        assert!(limit > GIB || mapped <= 4 * limit, "{mapped} bytes mapped");
    }
}
