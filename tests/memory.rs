//! Where memory goes and comes from: in-place `realloc`, zeroes that nobody has to write, memory that
//! serves whoever asks next, a snapshot that adds up.
//!
//! These tests look at the whole process, so one runs at a time.

mod common;

use common::{Ask, Block, KIB, MIB, Rng, alone, resident, rng};
use spandrel::{Spandrel, Stats};
use std::alloc::{GlobalAlloc, Layout};
use std::thread;

#[global_allocator]
static A: Spandrel = Spandrel;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid layout")
}

#[test]
fn realloc_stays_while_the_class_holds() {
    let _alone = alone();
    for class in spandrel::base::classes::Class::all() {
        let least = Layout::from_size_align(class.size() - 7, 8).expect("a valid layout");
        let mut block = Block::new(least, Ask::Plain, 1).expect("memory");
        let at = block.addr();
        for size in (least.size()..=class.size()).chain((least.size()..class.size()).rev()) {
            assert!(block.resize(size));
            assert_eq!(block.addr(), at, "{class:?} holds {size} bytes");
        }
    }
}

#[test]
fn large_blocks_shrink_in_place_and_grow_back_into_what_they_left() {
    let _alone = alone();
    // Across hugepage boundaries, and with an alignment that a move would have to keep.
    for (most, align) in [(20 * 32 * KIB, 8), (5 * MIB, 8), (40 * MIB, 8), (9 * MIB, 2 * MIB)] {
        let mut block = Block::must(most, align, 1);
        let at = block.addr();
        for size in [most - 32 * KIB, most / 2, most / 3 + 1, 33 * KIB, 33 * KIB + 1] {
            assert!(block.resize(size));
            assert_eq!(block.addr(), at, "shrinks from {most} to {size} in place");
        }
        for size in [64 * KIB + 1, most / 3, most - 1, most] {
            assert!(block.resize(size));
            assert_eq!(block.addr(), at, "grows to {size} of the {most} it had");
        }
    }
}

/// What a shrinking block leaves behind is free for others, and a block in the way makes it move.
#[test]
fn the_tail_serves_others_and_a_neighbour_is_not_overrun() {
    let _alone = alone();
    let mut block = Block::must(4 * MIB, 8, 1);
    let (at, end) = (block.addr(), block.addr() + 4 * MIB);
    assert!(block.resize(MIB));
    let mut others = Vec::new();
    let neighbour = loop {
        let other = Block::must(64 * KIB, 8, others.len() as u64);
        if (at..end).contains(&other.addr()) {
            break other;
        }
        others.push(other);
        assert!(others.len() < 100_000, "the tail is never handed out");
    };
    assert!(block.resize(4 * MIB));
    assert!(block.addr() != at, "the neighbour was overrun");
    neighbour.check();
    block.check();
    others.iter().for_each(Block::check);
}

/// Above 128 MiB pages move, not bytes: growing such a block costs no memory.
#[test]
fn huge_blocks_move_their_pages() {
    let _alone = alone();
    let mut held = layout(200 * MIB);
    // SAFETY: one block, touched within its size and freed with its last layout.
    unsafe {
        let mut at = A.alloc(held);
        assert!(!at.is_null());
        at.write_bytes(7, 50 * MIB);
        let before = resident();
        for size in [300 * MIB, 150 * MIB, 1000 * MIB, 400 * MIB] {
            at = A.realloc(at, held, size);
            assert!(!at.is_null());
            held = layout(size);
            assert!((0..50 * MIB).step_by(4096).all(|i| *at.add(i) == 7));
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 20 * MIB, "{grown} bytes were copied");
        A.dealloc(at, held);
    }
}

/// Fresh memory is zero already: asking for zeroes must not touch it.
#[test]
fn known_zero_memory_is_not_written() {
    let _alone = alone();
    // What earlier tests have written to becomes known zero once it is returned.
    spandrel::purge();
    let before = resident();
    let blocks: Vec<_> = [100 * MIB, 60 * MIB, 200 * MIB]
        .map(|size| {
            // SAFETY: a valid layout; the block leaks unless freed below.
            let at = unsafe { A.alloc_zeroed(layout(size)) };
            assert!(!at.is_null());
            (at, size)
        })
        .into();
    let grown = resident().saturating_sub(before);
    assert!(grown < 30 * MIB, "{grown} bytes of 360 MiB were written");
    for (at, size) in blocks {
        // SAFETY: the block is that long, was asked for zeroed, and is freed once.
        unsafe {
            for i in (0..size).step_by(4096) {
                assert_eq!(*at.add(i), 0);
            }
            // And what was written to is zeroed when it comes round again.
            at.write_bytes(0xee, size / 4);
            A.dealloc(at, layout(size));
            let again = Block::new(layout(size / 4), Ask::Zeroed, 1);
            assert!(again.is_some());
        }
    }
}

/// After a purge memory is known to be zero again, and it must really be.
#[test]
fn purged_memory_is_zero_and_gone() {
    let _alone = alone();
    let held: Vec<_> = (0..20).map(|i| Block::must(4 * MIB, 8, i)).collect();
    let full = resident();
    drop(held);
    let returned = spandrel::purge();
    assert!(returned >= 60 * MIB, "only {returned} bytes returned");
    let after = resident();
    assert!(after + 50 * MIB < full, "{full} before, {after} after");
    // `Ask::Zeroed` looks at every byte.
    let again: Vec<_> =
        (0..20).map(|i| Block::new(layout(4 * MIB), Ask::Zeroed, i).expect("memory")).collect();
    again.iter().for_each(Block::check);
}

/// Every class and every thread in turn needs the same amount, and the first one's memory serves all.
#[test]
fn memory_freed_by_one_class_or_thread_serves_any_other() {
    let _alone = alone();
    const LIVE: usize = 32 * MIB;
    spandrel::purge();
    let before = resident();
    let mut most = 0;
    for (turn, size) in
        [96, 48, 64, 112, 512, 1024, 2368, 5120, 14464, 32 * KIB, 100 * KIB, 3 * MIB, 64, 29056]
            .into_iter()
            .enumerate()
    {
        let made = thread::spawn(move || {
            (0..LIVE / size).map(|i| Block::must(size, 8, i as u64)).collect::<Vec<_>>()
        });
        let made = made.join().expect("no panic");
        most = most.max(resident());
        // Half of the turns are freed by a third thread.
        if turn % 2 == 0 {
            drop(made);
        } else {
            thread::spawn(move || drop(made)).join().expect("no panic");
        }
    }
    // The blocks; 40 bytes for each of 700,000 records of them; what caches and the transfer cache
    // keep; the ledger. Fourteen turns of their own would be fourteen times `LIVE`.
    let grown = most - before;
    assert!(grown < 4 * LIVE, "{grown} bytes for {LIVE} live at a time");
}

/// A snapshot that adds up. The harness's own thread may allocate for a moment; it does not go on.
fn settled() -> Stats {
    for _ in 0..1000 {
        let stats = spandrel::stats();
        if stats.accounted() == stats.mapped {
            return stats;
        }
        thread::yield_now();
    }
    panic!("the parts never add up:\n{}", spandrel::stats());
}

/// The parts of a snapshot are the whole, in any state the allocator can be in while nobody moves.
#[test]
fn the_parts_add_up_to_what_is_mapped() {
    let _alone = alone();
    let mut rng = Rng::new(rng::seed());
    let mut held = Vec::new();
    for round in 0..30 {
        for _ in 0..300 {
            let size = if rng.once_in(10) { rng.size(3 * MIB) } else { rng.size(40 * KIB) };
            held.push(Block::must(size, 8, rng.next()));
        }
        match round % 5 {
            0 => held.truncate(rng.below(held.len())),
            1 => {
                let give: Vec<_> = held.drain(..held.len() / 2).collect();
                thread::spawn(move || drop(give)).join().expect("no panic");
            }
            2 => {
                let at = rng.below(held.len());
                assert!(held[at].resize(rng.size(5 * MIB)));
            }
            3 => drop(spandrel::purge()),
            _ => held.push(Block::must(129 * MIB, 8, 1)),
        }
        let stats = settled();
        let mine: usize = held.iter().map(Block::size).sum();
        assert!(stats.live >= mine, "{} live, and {mine} are held here\n{stats}", stats.live);
    }
    held.clear();
    let text = settled().to_string();
    for part in ["live", "cached", "in transfer", "free in spans", "free granules", "metadata"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

/// What is held shows as live, in its class, and no longer when it is freed.
#[test]
fn live_is_what_the_program_holds() {
    let _alone = alone();
    // The harness's own thread makes and frees small things at any time.
    const HARNESS: usize = 64 * KIB;
    let before = settled();
    let held: Vec<_> = (0..1000).map(|i| Block::must(1000, 8, i)).collect();
    let large = Block::must(10 * 32 * KIB, 8, 1);
    let huge = Block::must(130 * MIB, 8, 1);
    let blocks = 1000 * 1024 + 10 * 32 * KIB + 130 * MIB;
    let list = held.capacity() * size_of::<Block>();
    let during = settled();
    let grown = during.live - before.live;
    let least = blocks + list - HARNESS;
    assert!((least..=blocks + list * 5 / 4 + HARNESS).contains(&grown), "{grown} for {blocks}");
    let count = |stats: &Stats| stats.classes.iter().find(|c| c.size == 1024).map(|c| c.live);
    let (then, now) = (count(&before).expect("the class"), count(&during).expect("the class"));
    assert!((995..=1005).contains(&(now - then)), "{then}, now {now}");
    drop((held, large, huge));
    let after = settled();
    assert!(after.live.abs_diff(before.live) <= HARNESS, "before\n{before}\nafter\n{after}");
}

/// No call of the allocator shows in `errno`, whatever the system says below.
#[test]
fn errno_is_left_alone() {
    let _alone = alone();
    // SAFETY: errno is this thread's own.
    let errno = unsafe { &mut *libc::__errno_location() };
    *errno = 77;
    let check = |what: &str, now: i32| assert_eq!(now, 77, "{what} changed errno");
    for size in [1, 100, 5000, 50 * KIB, 5 * MIB, 200 * MIB] {
        let mut blocks: Vec<_> = (0..20).map(|i| Block::must(size.min(6 * MIB), 8, i)).collect();
        check("alloc", *errno);
        assert!(blocks[0].resize(size));
        check("realloc", *errno);
        drop(blocks);
        check("dealloc", *errno);
    }
    spandrel::purge();
    check("purge", *errno);
    // SAFETY: a valid layout; the answer is null.
    unsafe { assert!(A.alloc(layout(1 << 50)).is_null()) };
    check("a refusal", *errno);
}

/// A child of fork, made while other threads are inside the allocator, can allocate and free.
#[test]
fn fork_in_the_middle_of_it() {
    let _alone = alone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for me in 0..3u64 {
            let stop = &stop;
            scope.spawn(move || {
                let mut rng = Rng::new(rng::seed() ^ me);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let size = rng.size(100 * KIB);
                    drop(
                        (0..rng.below(200))
                            .map(|i| Block::must(size, 8, i as u64))
                            .collect::<Vec<_>>(),
                    );
                }
            });
        }
        let held: Vec<_> = (0..100).map(|i| Block::must(100 * i + 1, 8, i as u64)).collect();
        for round in 0..40 {
            // SAFETY: the child uses the allocator, raw memory and _exit, and nothing else: no lock
            // that another thread may have held, no output.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let fine = in_the_child(&held, round);
                // SAFETY: ends this process without running anything of the parent's.
                unsafe { libc::_exit(if fine { 0 } else { 1 }) };
            }
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: waits for the child that was just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "round {round}: the child's wait status");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        drop(held);
    });
}

/// Without `Block`: its ledger is inherited in the middle of the other threads' work.
fn in_the_child(held: &[Block], round: usize) -> bool {
    held.iter().for_each(Block::check);
    let mut rng = Rng::new(round as u64);
    let mut mine = [(std::ptr::null_mut::<u8>(), 0usize, 0u8); 64];
    for step in 0..5000u32 {
        let slot = &mut mine[rng.below(64)];
        let (at, size, tag) = *slot;
        // SAFETY: each block is used within its size and freed once with its own layout.
        unsafe {
            if !at.is_null() {
                if *at != tag || *at.add(size - 1) != tag {
                    return false;
                }
                A.dealloc(at, layout(size));
            }
            let (size, tag) = (rng.size(200 * KIB), step as u8);
            let at = A.alloc(layout(size));
            if at.is_null() {
                return false;
            }
            *at = tag;
            *at.add(size - 1) = tag;
            *slot = (at, size, tag);
        }
    }
    true
}
