//! Any valid `Layout` is served or refused, and nothing else happens: sizes from 0 to `isize::MAX`,
//! alignments to 1 GiB, chains of `realloc`.

mod common;

use common::{Ask, Block, GIB, KIB, MIB, rng};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spandrel::Spandrel;
use std::alloc::{GlobalAlloc, Layout};

#[global_allocator]
static A: Spandrel = Spandrel;

/// The most that these tests fill with a pattern; larger blocks are only probed.
const FILLED: usize = 4 * MIB;

/// Runs `test` on random values; the seed is that of the whole suite.
fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config {
        cases: cases * rng::factor() as u32,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(rng::seed()),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("SPANDREL_SEED={}: {error}", rng::seed());
    }
}

fn small_size() -> impl Strategy<Value = usize> {
    prop_oneof![0..=40usize, 0..=1100usize, 0..=(40 * KIB)]
}

fn any_size() -> impl Strategy<Value = usize> {
    // Every power of two is as likely as the next, and so are its neighbours.
    let edges = (0..23u32, -2isize..=2).prop_map(|(p, d)| (1usize << p).saturating_add_signed(d));
    prop_oneof![3 => small_size(), 2 => 0..FILLED, 2 => edges]
}

fn any_align() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..5u32, 2 => 0..17u32, 1 => 0..31u32].prop_map(|p| 1 << p)
}

/// A few blocks of one layout, held together.
fn serve(size: usize, align: usize) {
    let layout = Layout::from_size_align(size, align).expect("a valid layout");
    let blocks: Vec<_> = (0..3)
        .map(|i| {
            let ask = if i == 1 { Ask::Zeroed } else { Ask::Plain };
            Block::new(layout, ask, i).unwrap_or_else(|| panic!("{layout:?}: no memory"))
        })
        .collect();
    blocks.iter().for_each(Block::check);
}

#[test]
fn any_size_at_any_alignment() {
    check(1500, (any_size(), any_align()), |(size, align)| serve(size, align));
}

/// Exhaustive where the size classes are: each class boundary, at each alignment a class serves.
#[test]
fn every_class_boundary_at_every_small_alignment() {
    for class in spandrel::base::classes::Class::all() {
        for shift in 0..=16 {
            for size in class.size() - 1..=class.size() + 1 {
                serve(size, 1 << shift);
            }
        }
    }
}

#[test]
fn every_alignment_to_a_gibibyte() {
    for shift in 0..=30 {
        for size in [0, 1, 8, 100, 5000, 32 * KIB, 32 * KIB + 1, 100 * KIB, 3 * MIB] {
            serve(size, 1 << shift);
        }
    }
}

/// Sizes around the largest run of the page heap and above, where a block has its own mapping.
#[test]
fn the_largest_runs_and_mappings_of_their_own() {
    for size in [64 * MIB + 1, 128 * MIB, 128 * MIB + 1, 200 * MIB, 3 * GIB] {
        // A mapping can only keep a coarse alignment by being copied, which is slow at 3 GiB.
        let aligns = if size < GIB { &[1, 2 * MIB, 256 * MIB][..] } else { &[8] };
        for &align in aligns {
            let layout = Layout::from_size_align(size, align).expect("a valid layout");
            // SAFETY: the layout is not zero-sized; only bytes of the blocks are touched, and each
            // block is freed once with the layout it has then.
            unsafe {
                let at = A.alloc_zeroed(layout);
                let other = A.alloc_zeroed(layout);
                assert!(!at.is_null() && !other.is_null(), "{layout:?}: no memory");
                assert_eq!(at.addr() % align, 0, "{layout:?}");
                assert!(at.addr().abs_diff(other.addr()) >= size, "{layout:?} overlap");
                let places = [0, 1, size / 3, size / 2, size - 2, size - 1];
                for place in places {
                    assert_eq!((*at.add(place), *other.add(place)), (0, 0), "{layout:?}");
                }
                for (i, place) in places.into_iter().enumerate() {
                    *at.add(place) = 1 + i as u8;
                    *other.add(place) = 101 + i as u8;
                }
                // Up by a half, down by a third: the contents up to the smaller size stay.
                let (mut at, mut held) = (at, layout);
                for new_size in [size + size / 2, size - size / 3] {
                    at = A.realloc(at, held, new_size);
                    assert!(!at.is_null(), "{held:?} to {new_size}: no memory");
                    assert_eq!(at.addr() % align, 0, "{held:?} to {new_size}");
                    held = Layout::from_size_align(new_size, align).expect("a valid layout");
                    for (i, place) in places.into_iter().enumerate() {
                        if place < new_size {
                            assert_eq!(*at.add(place), 1 + i as u8, "{held:?} at {place}");
                        }
                    }
                }
                for (i, place) in places.into_iter().enumerate() {
                    assert_eq!(*other.add(place), 101 + i as u8, "{layout:?} at {place}");
                }
                A.dealloc(at, held);
                A.dealloc(other, layout);
            }
        }
    }
}

#[test]
fn chains_of_realloc() {
    let chain = (any_align(), any_size(), prop::collection::vec(any_size(), 1..12));
    check(400, chain, |(align, first, sizes)| {
        // Two chains side by side: where one grows in place, the other must not be in the way.
        let layout = Layout::from_size_align(first, align).expect("a valid layout");
        let mut one = Block::new(layout, Ask::Plain, 1).expect("memory");
        let mut other = Block::new(layout, Ask::Zeroed, 2).expect("memory");
        for size in sizes {
            assert!(one.resize(size.max(1)), "{one:x?} to {size}: no memory");
            other.check();
            assert!(other.resize((size / 2).max(1)), "{other:x?} to {size}: no memory");
            one.check();
        }
    });
}

/// What no machine has is a null pointer, from each of the four methods, and costs nothing else.
#[test]
fn impossible_requests_are_null() {
    const MOST: usize = isize::MAX as usize;
    let mapped = spandrel::stats().mapped;
    for shift in 0..=62 {
        let align = 1usize << shift;
        // The largest size that a `Layout` admits at this alignment, and some that are only absurd.
        let sizes =
            [MOST - (align - 1), (MOST - (align - 1)).saturating_sub(4096), 1 << 50, 1 << 47];
        for size in sizes {
            let Ok(layout) = Layout::from_size_align(size, align) else { continue };
            if size == 0 {
                continue;
            }
            // SAFETY: the layout is valid and not zero-sized; null is what comes back.
            unsafe {
                assert!(A.alloc(layout).is_null(), "{layout:?}");
                assert!(A.alloc_zeroed(layout).is_null(), "{layout:?}");
            }
            if align > 128 * MIB {
                continue;
            }
            for old in [0, 1, 100, 5000, 50_000, 3 * MIB] {
                let mut block = Block::must(old, align, 3);
                assert!(!block.resize(size), "{block:x?} to {layout:?}");
            }
        }
    }
    // A huge block stays what it is when it cannot grow.
    let layout = Layout::from_size_align(200 * MIB, 8).expect("a valid layout");
    // SAFETY: as above; the block is freed once with its own layout.
    unsafe {
        let at = A.alloc_zeroed(layout);
        assert!(!at.is_null());
        *at.add(199 * MIB) = 7;
        for size in [MOST - 7, 1 << 50, 1 << 47] {
            assert!(A.realloc(at, layout, size).is_null());
        }
        assert_eq!(*at.add(199 * MIB), 7);
        A.dealloc(at, layout);
    }
    let grown = spandrel::stats().mapped.saturating_sub(mapped);
    assert!(grown <= 8 * GIB, "{grown} bytes were left behind");
}

#[test]
fn alignments_beyond_a_gibibyte_are_served_or_refused() {
    for shift in 31..=62 {
        let layout = Layout::from_size_align(1000, 1 << shift).expect("a valid layout");
        // SAFETY: the layout is not zero-sized; the block is freed once if there is one.
        unsafe {
            let at = A.alloc(layout);
            if !at.is_null() {
                assert_eq!(at.addr() % layout.align(), 0);
                at.write_bytes(1, 1000);
                A.dealloc(at, layout);
            }
        }
    }
}

/// Zero-sized types never get here; a zero-sized `Layout` may, and must be as good as any other.
#[test]
fn size_zero() {
    let blocks: Vec<_> = (0..1000).map(|i| Block::must(0, 1 << (i % 13), i as u64)).collect();
    let mut addrs: Vec<_> = blocks.iter().map(Block::addr).collect();
    addrs.sort_unstable();
    addrs.dedup();
    assert_eq!(addrs.len(), 1000, "every one has an address of its own");
}
