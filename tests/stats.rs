//! The snapshot while others work: its parts are off by no more than what moved between the floors
//! meanwhile. And what was returned and taken again is told.

mod common;

use common::{Block, KIB, MIB, Rng, alone, rng};
use spandrel::Stats;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// The most that one object, and one run, of the work below can be off by.
const OBJECT: u64 = 8 * KIB as u64;
const RUN: u64 = 512 * KIB as u64;

/// How much moved between the floors: what left and reached the threads' caches, spans and runs. What a
/// thread takes from its cache and gives back there does not change the sum of the parts by itself, but
/// what is live is the rest of a span, so a bin read late counts too: a full bin of each class and thread.
fn moved(before: &Stats, after: &Stats) -> u64 {
    let objects = |s: &Stats| s.floors.cache.refilled + s.floors.cache.spilled;
    let runs = |s: &Stats| s.floors.page.takes + s.floors.page.gives;
    (objects(after) - objects(before)) * OBJECT + (runs(after) - runs(before)) * RUN
}

#[test]
fn under_load_the_parts_are_off_by_what_moved() {
    let _alone = alone();
    const THREADS: u64 = 4;
    let stop = &AtomicBool::new(false);
    let mut wrong = None;
    thread::scope(|scope| {
        for me in 0..THREADS {
            scope.spawn(move || {
                let mut rng = Rng::new(rng::seed() ^ me);
                let mut held = Vec::new();
                while !stop.load(Relaxed) {
                    if held.len() < 2000 && rng.below(5) < 3 {
                        held.push(Block::must(rng.size(8 * KIB), 8, rng.next()));
                    } else if !held.is_empty() {
                        held.swap_remove(rng.below(held.len()));
                    }
                }
            });
        }
        let mut worst = 0;
        for _ in 0..200 * rng::factor() {
            let before = spandrel::stats();
            let stats = spandrel::stats();
            let after = spandrel::stats();
            let off = (stats.accounted() as i128 - stats.mapped as i128).unsigned_abs() as u64;
            // A thread that is in a slow call counts at its end: it may have a batch in its hands, and a
            // hugepage that it begins or returns.
            let hands = THREADS * (62 * OBJECT + 2 * MIB as u64);
            let bound = moved(&before, &after) + hands;
            worst = worst.max(off);
            if off > bound || stats.live >= 200 * MIB {
                wrong = Some(format!("off by {off}, and {bound} can have moved\n{stats}"));
                break;
            }
        }
        println!("off by {worst} B at worst");
        // The workers stop whatever was found.
        stop.store(true, Relaxed);
    });
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

#[test]
fn what_is_returned_and_taken_again_is_told() {
    let _alone = alone();
    spandrel::purge();
    let before = spandrel::stats();
    drop((0..20).map(|i| Block::must(MIB, 8, i)).collect::<Vec<_>>());
    let returned = spandrel::purge();
    let held: Vec<_> = (0..10).map(|i| Block::must(MIB, 8, i)).collect();
    let after = spandrel::stats();
    let purged = after.floors.page.purged - before.floors.page.purged;
    assert!(purged >= 20 * MIB && returned >= purged, "{purged} purged, {returned} returned");
    let again = after.refaulted - before.refaulted;
    // What the other test left is taken first.
    assert!((5 * MIB..=20 * MIB).contains(&again), "{again} of {purged} taken again\n{after}");
    assert!(after.floors.os.nanos > before.floors.os.nanos && after.floors.os.purges > 0);
    drop(held);
}
