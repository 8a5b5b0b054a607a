//! Observed mode, switched on and off while threads allocate: no block is lost or handed out twice, and
//! who watches sees every call that begins while it is on.

mod common;

use common::{Block, Rng, alone, rng};
use spandrel::front::building::{BUILDING, spans};
use spandrel::watch::ledger::{self, Life};
use spandrel::watch::mode;
use std::alloc::Layout;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

const THREADS: u64 = 4;

/// Odd while the ledger is kept: set after it was switched on, and before it is switched off.
static TURN: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

/// Stops the threads also if the test that started them panics.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        STOP.store(true, Relaxed);
    }
}

/// Ends the process when a thread that others wait for panics.
struct EndsAll;

impl Drop for EndsAll {
    fn drop(&mut self) {
        eprintln!("a thread that others wait for has panicked");
        std::process::exit(101);
    }
}

/// What the ledger says of the block that starts at `addr`.
fn known(addr: usize) -> Option<(Life, usize)> {
    let block = ledger::find(addr).expect("the page map knows every block");
    assert_eq!(block.start, addr);
    block.entry().map(|entry| (entry.life, entry.size))
}

/// Takes, resizes and frees blocks of all sizes; answers how many calls it could vouch for.
fn work(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let mut held: Vec<Block> = Vec::new();
    let mut seen = 0;
    while !STOP.load(Relaxed) {
        let before = TURN.load(SeqCst);
        let block = match rng.below(8) {
            0 if !held.is_empty() => {
                let mut block = held.swap_remove(rng.below(held.len()));
                block.resize(rng.size(100 << 10));
                block
            }
            1 => Block::must(rng.size(300 << 10), 8, rng.next()),
            _ => Block::must(rng.size(2 << 10), 8, rng.next()),
        };
        let entry = known(block.addr());
        if before % 2 == 1 && TURN.load(SeqCst) == before {
            assert_eq!(entry, Some((Life::Live, block.size())), "{block:?}");
            seen += 1;
        }
        held.push(block);
        if held.len() > 200 {
            for _ in 0..rng.below(200) {
                held.swap_remove(rng.below(held.len()));
            }
        }
    }
    seen
}

/// Every second the threads stand still and the books of the spans must balance.
#[test]
fn switched_on_and_off_under_four_threads() {
    let _alone = alone();
    let threads: Vec<_> =
        (0..THREADS).map(|me| thread::spawn(move || work(rng::seed() ^ me))).collect();
    let stop = Stop;
    for _ in 0..300 {
        mode::on(mode::LEAKS);
        TURN.fetch_add(1, SeqCst);
        thread::yield_now();
        TURN.fetch_add(1, SeqCst);
        mode::off(mode::LEAKS);
        thread::yield_now();
    }
    // Long enough for each thread to be seen, however slow the machine.
    mode::on(mode::LEAKS);
    TURN.fetch_add(1, SeqCst);
    thread::sleep(std::time::Duration::from_millis(300));
    drop(stop);
    let seen: Vec<usize> = threads.into_iter().map(|t| t.join().expect("no panic")).collect();
    TURN.fetch_add(1, SeqCst);
    mode::off(mode::LEAKS);
    assert!(seen.iter().all(|&seen| seen > 0), "calls that were vouched for: {seen:?}");
    assert_eq!(BUILDING.mode(), 0);
    spandrel::purge();
    spans().check().expect("the books balance");
}

/// The calls of a thread that was there before the switch, begun after it, one by one.
#[test]
fn every_call_after_the_switch_is_seen() {
    let _alone = alone();
    let gate = &Barrier::new(THREADS as usize + 1);
    let turn = &Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for me in 0..THREADS {
            scope.spawn(move || {
                // Bins of all classes, with and without objects.
                let sizes = (0..60).map(|i| 8usize << (i % 13)).map(|size| size - me as usize % 8);
                let watch = EndsAll;
                let warm: Vec<_> = sizes.clone().map(|size| Block::must(size, 8, me)).collect();
                drop(warm);
                gate.wait();
                gate.wait();
                for round in 0..20 {
                    let blocks: Vec<_> =
                        sizes.clone().map(|size| Block::must(size, 8, round)).collect();
                    for block in &blocks {
                        assert_eq!(known(block.addr()), Some((Life::Live, block.size())));
                    }
                    let addrs: Vec<_> = blocks.iter().map(Block::addr).collect();
                    // Nobody allocates from here to the end of the round.
                    turn.wait();
                    drop(blocks);
                    turn.wait();
                    for addr in addrs.iter().copied() {
                        // A span or a large block may be gone altogether.
                        let life = ledger::find(addr).and_then(|b| b.entry()).map(|e| e.life);
                        assert_ne!(life, Some(Life::Live), "{addr:#x} was freed unseen");
                    }
                    turn.wait();
                }
                std::mem::forget(watch);
                gate.wait();
            });
        }
        gate.wait();
        mode::on(mode::LEAKS);
        gate.wait();
        gate.wait();
    });
    mode::off(mode::LEAKS);
}

/// Of two that switch on at once one begins the session: what either has allocated since stays known.
#[test]
fn two_that_switch_on_at_once() {
    let _alone = alone();
    let gate = &Barrier::new(2);
    let round = |who: u64| {
        for round in 0..4000 {
            gate.wait();
            // Now one is later, now the other.
            (0..round % 64 * who).for_each(|_| std::hint::spin_loop());
            mode::on([mode::LEAKS, mode::TAGS][who as usize]);
            let block = Block::must(100, 8, round);
            assert_eq!(known(block.addr()), Some((Life::Live, 100)), "at once");
            gate.wait();
            assert_eq!(known(block.addr()), Some((Life::Live, 100)), "later, round {round}");
            gate.wait();
            drop(block);
            mode::off([mode::LEAKS, mode::TAGS][who as usize]);
        }
    };
    thread::scope(|scope| {
        for who in 0..2 {
            scope.spawn(move || {
                let watch = EndsAll;
                round(who);
                std::mem::forget(watch);
            });
        }
    });
    assert_eq!(mode::get(), 0);
}

/// Off again, calls are fast again: after one slow call a bin has its bounds back.
#[test]
fn switched_off_bins_go_back_to_the_fast_path() {
    let _alone = alone();
    thread::spawn(|| {
        drop(Block::must(64, 8, 0));
        let class = spandrel::base::classes::Class::of(64, 8).expect("a class");
        let bin = spandrel::cache::slot::existing().expect("a cache").bin(class);
        assert!(!bin.is_pinned());
        mode::on(mode::LEAKS);
        assert!(bin.is_pinned());
        drop(Block::must(64, 8, 0));
        assert!(bin.is_pinned(), "the owner does not unpin it meanwhile");
        mode::off(mode::LEAKS);
        drop(Block::must(64, 8, 0));
        assert!(!bin.is_pinned());
    })
    .join()
    .expect("no panic");
}

/// What was allocated before is no mystery afterwards, and what happened unseen does not count.
#[test]
fn blocks_from_before_and_after() {
    let _alone = alone();
    // SAFETY: both blocks are freed with their own layout.
    unsafe {
        use std::alloc::{alloc, dealloc, realloc};
        let layout = Layout::from_size_align_unchecked(1000, 8);
        let (early, seen) = (alloc(layout), ());
        let () = seen;
        mode::on(mode::LEAKS);
        assert_eq!(known(early.addr()), None);
        let during = alloc(layout);
        assert_eq!(known(during.addr()), Some((Life::Live, 1000)));
        // Within its class, where the block stays.
        let same = realloc(during, layout, 1001);
        assert_eq!((same, known(during.addr())), (during, Some((Life::Live, 1001))));
        dealloc(early, layout);
        assert_eq!(known(early.addr()).map(|(life, _)| life), Some(Life::Freed));
        mode::off(mode::LEAKS);
        mode::on(mode::LEAKS);
        assert_eq!(known(during.addr()), None, "another session");
        mode::off(mode::LEAKS);
        dealloc(during, Layout::from_size_align_unchecked(1001, 8));
    }
}
