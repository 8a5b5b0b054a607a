//! The ends of the ranges: every size and alignment at which something changes, very many objects, very
//! much memory, and a heap that is full to the last granule. The largest are `#[ignore]`d; `ci/long.sh
//! extremes` runs them.

#[path = "../../tests/common/rng.rs"]
#[allow(dead_code)]
mod rng;

use fuzz::deadline::{Running, running};
use fuzz::doors::books;
use fuzz::floors::{Building, Entry, Hand, Op};
use rng::Rng;
use spandrel::Spandrel;
use spandrel::base::classes::Class;
use spandrel::base::units::{GRANULE, HUGEPAGE, MAX_ORDER};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MIB: usize = 1 << 20;

/// The heap of the process is one.
fn alone() -> (Running, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    (running(std::thread::current().name().unwrap_or("a test")), one)
}

#[track_caller]
fn nothing_is_left() {
    let stats = books();
    assert_eq!(stats.live, 0, "{stats}");
}

/// Asks for a block, both ways; whether there was one. It is aligned, its ends can be written to.
#[track_caller]
fn try_layout(size: usize, align: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(size, align) else { return false };
    let mut got = 0;
    for zeroed in [false, true] {
        // SAFETY: Spandrel serves every layout, size 0 included; each block is used within its size and
        // freed once.
        unsafe {
            let at = if zeroed { Spandrel.alloc_zeroed(layout) } else { Spandrel.alloc(layout) };
            if at.is_null() {
                continue;
            }
            got += 1;
            assert!(at.addr().is_multiple_of(align), "{layout:?} at {at:p}");
            if size != 0 {
                let last = at.add(size - 1);
                assert!(!zeroed || (at.read(), last.read()) == (0, 0), "{layout:?} is not zero");
                at.write(1);
                last.write(2);
            }
            Spandrel.dealloc(at, layout);
        }
    }
    // Far below what a machine has both are served, far above neither.
    assert!(got == 2 || size >= 1 << 33, "{layout:?}: {got} of 2 served");
    assert!(got == 0 || size < 1 << 47, "{layout:?} was served");
    got != 0
}

#[test]
fn every_size_at_which_something_changes() {
    let _alone = alone();
    let classes = Class::all().map(|class| class.size());
    let runs = (0..=MAX_ORDER).flat_map(|order| [GRANULE << order, (GRANULE << order) / 2 * 3]);
    let pages = (1..20).map(|n| n * HUGEPAGE);
    let powers = (0..63).map(|shift| 1usize << shift);
    let last = [isize::MAX as usize, isize::MAX as usize - 4096, isize::MAX as usize - HUGEPAGE];
    let mut served = 0;
    for size in classes.chain(runs).chain(pages).chain(powers).chain(last) {
        for size in [size.saturating_sub(1), size, size.saturating_add(1)] {
            for align in [1, 8, 16, 32, 4096, GRANULE, HUGEPAGE] {
                served += usize::from(try_layout(size, align));
            }
        }
    }
    println!("{served} layouts served");
    nothing_is_left();
}

#[test]
fn every_alignment_to_a_gibibyte_and_beyond() {
    let _alone = alone();
    for shift in 0..=62 {
        for size in [0, 1, 100, 4096, 33_000, MIB, 5 * MIB + 1, 13 * MIB, 130 * MIB] {
            let served = try_layout_any(size, 1 << shift);
            assert!(served || shift > 36, "{size} bytes at 2^{shift}");
        }
    }
    nothing_is_left();
}

/// As [`try_layout`]; a refusal of an enormous alignment is an answer.
#[track_caller]
fn try_layout_any(size: usize, align: usize) -> bool {
    if align <= 1 << 36 {
        return try_layout(size, align);
    }
    let Ok(layout) = Layout::from_size_align(size, align) else { return false };
    // SAFETY: as there.
    unsafe {
        let at = Spandrel.alloc(layout);
        if !at.is_null() {
            assert!(at.addr().is_multiple_of(align));
            Spandrel.dealloc(at, layout);
        }
        !at.is_null()
    }
}

/// So many objects of eight bytes at once, each of which holds the address of the one before.
#[track_caller]
fn many_objects(count: usize) {
    let layout = Layout::new::<*mut u8>();
    let mut chain = std::ptr::null_mut::<*mut u8>();
    // SAFETY: each object is used within its size and freed once.
    unsafe {
        for _ in 0..count {
            let at = Spandrel.alloc(layout).cast::<*mut u8>();
            assert!(!at.is_null());
            at.write(chain.cast());
            chain = at;
        }
        let stats = books();
        assert!(stats.live >= count * 8, "{stats}");
        println!(
            "{count} objects: {} MiB mapped, {} MiB of it granules in use",
            stats.mapped >> 20,
            (stats.live + stats.cached + stats.in_transfer + stats.free_in_spans) >> 20
        );
        let mut left = 0;
        while !chain.is_null() {
            let next = chain.read().cast::<*mut u8>();
            Spandrel.dealloc(chain.cast(), layout);
            chain = next;
            left += 1;
        }
        assert_eq!(left, count);
    }
    spandrel::purge();
    nothing_is_left();
}

#[test]
fn two_million_objects_of_eight_bytes() {
    let _alone = alone();
    many_objects(2_000_000);
}

#[test]
#[ignore = "long: about 900 MB"]
fn a_hundred_million_objects_of_eight_bytes() {
    let _alone = alone();
    many_objects(100_000_000);
}

/// So many bytes at once, in blocks of every size, every page of them touched; freed in random order.
#[track_caller]
fn much_memory(bytes: usize) {
    let mut rng = Rng::new(rng::seed());
    let (mut held, mut live) = (Vec::new(), 0);
    while live < bytes {
        let size = match rng.below(4) {
            0 => rng.size(300 * MIB),
            1 => rng.size(8 * MIB),
            _ => 4096 + rng.size(MIB),
        };
        let layout = Layout::from_size_align(size, 8).expect("a valid layout");
        // SAFETY: used within its size.
        unsafe {
            let at = Spandrel.alloc(layout);
            assert!(!at.is_null(), "{live} bytes live, {size} more refused");
            for offset in (0..size).step_by(4096).chain([size - 1]) {
                at.add(offset).write(held.len() as u8);
            }
            held.push((at, layout, held.len() as u8));
        }
        live += size;
    }
    let stats = books();
    assert!(stats.live >= bytes);
    println!("{live} bytes live in {} blocks, {} MiB mapped", held.len(), stats.mapped >> 20);
    while !held.is_empty() {
        let (at, layout, tag) = held.swap_remove(rng.below(held.len()));
        // SAFETY: as above, and freed once.
        unsafe {
            for offset in (0..layout.size()).step_by(4096).chain([layout.size() - 1]) {
                assert_eq!(at.add(offset).read(), tag);
            }
            Spandrel.dealloc(at, layout);
        }
    }
    spandrel::purge();
    nothing_is_left();
}

#[test]
fn half_a_gibibyte_live() {
    let _alone = alone();
    much_memory(512 * MIB);
}

#[test]
#[ignore = "long: 8 GiB of memory"]
fn eight_gibibytes_live() {
    let _alone = alone();
    much_memory(8 << 30);
}

/// Full to the last granule: first of large objects, then, when no span fits any more, granule by granule.
/// Drained in random order everything is whole again, which `close` checks.
#[test]
fn full_to_the_last_granule_and_drained_in_random_order() {
    for (page_size, seed) in [(4 << 10, 1), (16 << 10, 2), (64 << 10, 3)] {
        let building = Building::new(Entry::Caches, page_size);
        let mut hand = Hand::new(&building);
        let mut rng = Rng::new(rng::seed() + seed);
        hand.step(Op::Longest { mib: 32 }, true);
        hand.step(Op::Take { class: 49, count: 0 }, true);
        building.system().limit(120 * MIB);
        let mut before = usize::MAX;
        while before != hand.len() {
            before = hand.len();
            hand.step(Op::Take { class: 40 + rng.below(10) as u8, count: 20 }, true);
        }
        before = usize::MAX;
        while before != hand.len() {
            before = hand.len();
            hand.step(Op::Run { order: 0, count: 0, zeroed: false, sparse: false }, true);
        }
        let stats = building.stats();
        println!("{} blocks, {} MiB mapped", hand.len(), stats.mapped >> 20);
        assert!(hand.len() > 1000);
        // Nothing is free but what caches, the transfer cache and spans hold for other classes.
        assert_eq!((stats.free_granules, stats.returned), (0, 0), "{stats}");
        hand.check_all();
        while hand.len() > 0 {
            hand.step(Op::Give { which: rng.next() as u16, count: 0 }, true);
        }
        hand.retire();
        building.close();
    }
}
