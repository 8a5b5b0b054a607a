//! Memory goes back: whole hugepages, parts of them, under limits, and what the sleeper's bell says. On
//! the fake system, whose clock stands still.

mod common;

use common::tower::{PAGE_SIZES, Tower, fake, pages, tower};
use common::{KIB, MIB, Rng, child, rng};
use spandrel::base::classes::Class;
use spandrel::base::units::*;
use spandrel::os::Os;
use spandrel::page::Grain;
use spandrel::span::Objects;
use spandrel::{Decay, HugepagePolicy, Limit};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// Takes `count` granules and writes to each.
fn take(tower: &Tower, order: u32, count: usize) -> Option<(usize, usize)> {
    let run = pages(tower).take(order, count)?;
    mark(run.address(), count);
    Some((run.address(), count))
}

fn mark(addr: usize, count: usize) {
    for i in 0..count {
        // SAFETY: the caller holds the run.
        unsafe {
            ptr::with_exposed_provenance_mut::<u64>(addr + i * GRANULE).write(!(addr as u64))
        };
    }
}

fn check((addr, count): (usize, usize)) {
    for i in 0..count {
        // SAFETY: the caller holds the run.
        let word = unsafe { ptr::with_exposed_provenance::<u64>(addr + i * GRANULE).read() };
        assert_eq!(word, !(addr as u64), "granule {i} of {addr:#x} was lost");
    }
}

fn give(tower: &Tower, (addr, count): (usize, usize)) {
    let window = pages(tower).find(addr).expect("a window");
    pages(tower).give(window, Granule::of(addr), count);
}

/// 1 where a window has a shadow: one more call of each kind when it is made, or when a part is returned.
const SHADOW: u64 = cfg!(feature = "shadow") as u64;

/// Lets `ms` pass in ticks.
fn pass(tower: &Tower, ms: u64) {
    for _ in 0..ms / 250 {
        fake(tower).advance(250);
        pages(tower).tick(fake(tower).now_ms());
    }
}

fn purged(tower: &Tower) -> usize {
    pages(tower).counts().purged
}

fn backed(tower: &Tower) -> usize {
    pages(tower).counts().backed
}

#[test]
fn a_burst_is_gone_when_its_decay_is_over() {
    for decay in [0u64, 1000, 10_000, 60_000] {
        let tower = tower(4 * KIB);
        pages(tower).policy().set_decay(Decay::Within(Duration::from_millis(decay)));
        let burst: Vec<_> = (0..100).map(|_| take(tower, 6, 64).expect("memory")).collect();
        assert_eq!(backed(tower), 100 * HUGEPAGE);
        fake(tower).advance(1000);
        burst.into_iter().for_each(|run| give(tower, run));
        pass(tower, decay / 2);
        let half = purged(tower);
        assert!(
            decay == 0 || (25..75).contains(&(half / HUGEPAGE)),
            "{half} of a decay of {decay}"
        );
        pass(tower, decay / 2 + 500);
        assert_eq!((purged(tower), backed(tower)), (100 * HUGEPAGE, 0), "decay of {decay}");
        assert!(!pages(tower).has_idle_memory());
    }
}

#[test]
fn never_means_never_but_for_a_purge() {
    let tower = tower(4 * KIB);
    pages(tower).policy().set_decay(Decay::Never);
    let run = take(tower, 6, 64).expect("memory");
    give(tower, run);
    pass(tower, 100_000);
    assert_eq!(purged(tower), 0);
    assert!(!pages(tower).has_idle_memory(), "nobody needs to stay awake for it");
    assert_eq!(pages(tower).purge_all(), HUGEPAGE);
}

/// What is free in a hugepage in use goes too, and what is in use stays; on all page sizes.
#[test]
fn parts_are_returned_and_known_to_be_zero() {
    for page_size in PAGE_SIZES {
        let tower = tower(page_size);
        let held: Vec<_> = (0..16).map(|_| take(tower, 0, 1).expect("memory")).collect();
        let (kept, given): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|run| (run.0 / GRANULE).is_multiple_of(8));
        let freed = given.len();
        given.into_iter().for_each(|run| give(tower, run));
        pass(tower, 7_000);
        assert_eq!(purged(tower), 0, "a part that was just freed may be wanted again");
        pass(tower, 2_000);
        // With 64 KiB pages the granule beside each kept one shares its page and stays.
        let stays = if page_size > GRANULE { kept.len() } else { 0 };
        assert_eq!(purged(tower), (freed - stays) * GRANULE, "{page_size}");
        assert!(!pages(tower).has_idle_memory());
        let again: Vec<_> = (0..freed).map(|_| pages(tower).take(0, 1).expect("memory")).collect();
        let zeroed = again.iter().filter(|run| run.zeroed).count();
        assert_eq!(zeroed, freed - stays);
        for run in again.iter().filter(|run| run.zeroed) {
            // SAFETY: the run is held.
            let words = unsafe {
                std::slice::from_raw_parts(
                    ptr::with_exposed_provenance::<u64>(run.address()),
                    GRANULE / 8,
                )
            };
            assert!(words.iter().all(|&word| word == 0));
        }
        kept.into_iter().for_each(check);
    }
}

/// A hugepage that the system holds as one page is broken only when it is hardly used, and put together
/// when it is full again.
#[test]
fn large_pages_are_broken_late_and_mended() {
    let tower = tower(4 * KIB);
    pages(tower).policy().set_hugepages(HugepagePolicy::Always);
    let mut held: Vec<_> = (0..64).map(|_| take(tower, 0, 1).expect("memory")).collect();
    for run in held.drain(17..) {
        give(tower, run);
    }
    pass(tower, 60_000);
    assert_eq!(purged(tower), 0, "more than a quarter is in use");
    assert!(!pages(tower).has_idle_memory());
    give(tower, held.pop().expect("17 of them"));
    pass(tower, 10_000);
    assert_eq!(purged(tower), 48 * GRANULE);
    assert_eq!(pages(tower).counts().collapses, 0);
    held.extend((0..48).map(|_| take(tower, 0, 1).expect("memory")));
    // One that the system does not mend does not count as mended; nor does this one where the kernel has no
    // large page, or no call for it.
    let (asked, failed) = (pages(tower).os().counts().advices, pages(tower).os().counts().failures);
    pass(tower, 500);
    let counts = pages(tower).os().counts();
    assert_eq!(counts.advices, asked + 1);
    assert_eq!(pages(tower).counts().collapses + (counts.failures - failed), 1);
    held.into_iter().for_each(check);
}

/// What was never used has memory behind it as well where the system holds the hugepage as one page: it goes
/// with the rest, or alone, and only once.
#[test]
fn a_broken_large_page_leaves_nothing_behind() {
    let tower = tower(4 * KIB);
    let calls = || pages(tower).os().counts().purges;
    let held: Vec<_> = (0..4).map(|_| take(tower, 0, 1).expect("memory")).collect();
    pass(tower, 20_000);
    assert_eq!((calls(), pages(tower).has_idle_memory()), (0, false), "nothing was asked for");
    pages(tower).policy().set_hugepages(HugepagePolicy::Always);
    assert!(pages(tower).has_idle_memory());
    pass(tower, 20_000);
    assert_eq!((calls(), pages(tower).has_idle_memory()), (1 + SHADOW, false), "60 granules, once");
    assert_eq!(purged(tower), 0, "it was not counted as in use");
    let run = pages(tower).take(0, 1).expect("memory");
    assert!(run.zeroed, "as it was before");
    held.into_iter().for_each(check);
}

/// A hugepage that is filled for the first time does not pay for new memory.
#[test]
fn what_is_about_to_be_filled_is_not_broken() {
    let tower = tower(4 * KIB);
    pages(tower).policy().set_hugepages(HugepagePolicy::Always);
    let held: Vec<_> = (0..40 * 64 + 8).map(|_| take(tower, 0, 1).expect("memory")).collect();
    let (kept, given): (Vec<_>, Vec<_>) =
        held.into_iter().enumerate().partition(|(at, _)| at % 64 == 0 || *at >= 40 * 64);
    given.into_iter().for_each(|(_, run)| give(tower, run));
    let (calls, before) = (pages(tower).os().counts().purges, purged(tower));
    let more = take(tower, 6, 64).expect("memory");
    let paid = purged(tower) - before;
    let calls = (pages(tower).os().counts().purges - calls) as usize;
    assert!(paid > 0 && calls > 0, "{paid} in {calls}");
    let parts = calls / (1 + SHADOW as usize);
    assert_eq!(paid, parts * 63 * GRANULE, "only such as were used before");
    check(more);
    kept.into_iter().for_each(|(_, run)| check(run));
}

#[test]
fn a_large_page_that_is_not_mended_is_not_counted() {
    let tower = tower(4 * KIB);
    pages(tower).policy().set_hugepages(HugepagePolicy::Always);
    let mut held: Vec<_> = (0..64).map(|_| take(tower, 0, 1).expect("memory")).collect();
    for run in held.drain(16..) {
        give(tower, run);
    }
    pass(tower, 10_000);
    assert_eq!(purged(tower), 48 * GRANULE);
    held.extend((0..48).map(|_| take(tower, 0, 1).expect("memory")));
    fake(tower).fail(0, u64::MAX);
    let calls = fake(tower).calls();
    pass(tower, 500);
    assert_eq!(fake(tower).calls(), calls + 1, "it was tried");
    assert_eq!(pages(tower).counts().collapses, 0);
    fake(tower).heal();
    held.into_iter().for_each(check);
}

/// What lies idle pays for new memory down to an eighth of the heap, but once that was a quarter of the heap
/// since the last tick, only down to a third.
#[test]
fn what_pays_often_pays_less() {
    let tower = tower(4 * KIB);
    // 56 of 64 granules are free in each of 40 hugepages, and no whole hugepage is.
    let mut held: Vec<_> = (0..40 * 64).map(|_| take(tower, 0, 1).expect("memory")).collect();
    for (i, run) in std::mem::take(&mut held).into_iter().enumerate() {
        if i % 64 < 8 { held.push(run) } else { give(tower, run) }
    }
    let (at_first, idle_at_first) = (backed(tower), 40 * 56 * GRANULE);
    let grow = |held: &mut Vec<_>, hugepages: usize| {
        held.extend((0..hugepages).map(|_| take(tower, 6, 64).expect("memory")));
    };
    let idle = || idle_at_first - purged(tower);
    grow(&mut held, 20);
    let often = idle();
    let part = |n: usize| backed(tower) / n;
    assert!(backed(tower) < at_first, "what was idle paid more than all");
    assert!(often <= part(3) && often > part(8) + 2 * HUGEPAGE, "{often}");
    // At the next tick it is counted anew.
    pass(tower, 250);
    assert_eq!(idle(), often, "nothing is due by its age");
    grow(&mut held, 4);
    assert!(idle() <= often - 3 * HUGEPAGE, "{} after {often}", idle());
    held.into_iter().for_each(check);
}

/// Two bursts in a row are a habit: what they need is kept until its time is over.
#[test]
fn what_is_asked_for_again_and_again_is_kept() {
    let tower = tower(4 * KIB);
    let burst = || {
        let runs: Vec<_> = (0..50).map(|_| take(tower, 6, 64).expect("memory")).collect();
        pass(tower, 500);
        runs.into_iter().for_each(|run| give(tower, run));
        pass(tower, 4_000);
    };
    burst();
    let once = purged(tower);
    assert!(once > 0, "one burst is no habit");
    burst();
    let twice = purged(tower);
    for _ in 0..5 {
        burst();
    }
    assert_eq!(purged(tower), twice, "what is asked for every few seconds is kept");
    pass(tower, 8_000);
    assert_eq!(backed(tower), 0, "and no longer than anything else");
}

#[test]
fn the_hard_limit_refuses_and_is_never_crossed() {
    let tower = tower(4 * KIB);
    let limits = || pages(tower).limits();
    pages(tower).policy().set_hard(Limit::Bytes(64 * MIB), || None);
    let mut rng = Rng::new(rng::seed());
    let mut held = Vec::new();
    for _ in 0..20_000 {
        let order = rng.below(9) as u32;
        match take(tower, order, 1 << order) {
            Some(run) => held.push(run),
            None => drop(held.drain(..held.len() / 2).map(|run| give(tower, run)).count()),
        }
        assert!(limits().used <= 64 * MIB);
        let mine: usize = held.iter().map(|run| run.1 * GRANULE).sum();
        assert!(mine <= limits().used, "{mine} held, {} counted", limits().used);
    }
    assert!(limits().refusals > 10);
    held.iter().for_each(|&run| check(run));
    held.drain(..).for_each(|run| give(tower, run));
    // All of it is there for one who wants all of it, and not a granule more.
    let whole: Vec<_> = (0..32).map(|_| take(tower, 6, 64).expect("within the limit")).collect();
    assert_eq!(limits().used, 64 * MIB);
    assert!(take(tower, 0, 1).is_none());
    pages(tower).policy().set_hard(Limit::None, || None);
    assert!(take(tower, 0, 1).is_some());
    drop(whole);
}

#[test]
fn mappings_of_their_own_count_whole() {
    let tower = tower(4 * KIB);
    pages(tower).policy().set_hard(Limit::Bytes(400 * MIB), || None);
    let alloc = |size| pages(tower).large_alloc(size, 8, false);
    let first = alloc(200 * MIB).expect("within the limit");
    assert!(alloc(201 * MIB).is_none());
    // SAFETY: one block, resized and freed with the size it has.
    unsafe {
        assert!(pages(tower).large_resize(first, 200 * MIB, 401 * MIB, 8).is_none());
        let first = pages(tower).large_resize(first, 200 * MIB, 399 * MIB, 8).expect("grows");
        assert_eq!(backed(tower), 399 * MIB);
        let first = pages(tower).large_resize(first, 399 * MIB, 150 * MIB, 8).expect("shrinks");
        assert_eq!(backed(tower), 150 * MIB);
        let second = alloc(250 * MIB).expect("there is room again");
        pages(tower).large_free(first, 150 * MIB, 8);
        pages(tower).large_free(second, 250 * MIB, 8);
    }
    assert_eq!(backed(tower), 0);
    // A system that says no leaves the count as it was.
    fake(tower).fail(0, 1);
    assert!(alloc(200 * MIB).is_none());
    assert_eq!(backed(tower), 0);
}

#[test]
fn crossing_the_soft_limit_returns_what_is_free_and_tells_of_the_rest() {
    let tower = tower(4 * KIB);
    pages(tower).policy().set_soft(Limit::Bytes(40 * MIB), || None);
    fake(tower).advance(1000);
    let free: Vec<_> = (0..10).map(|_| take(tower, 6, 64).expect("memory")).collect();
    free.into_iter().for_each(|run| give(tower, run));
    let heard = pages(tower).bell().heard();
    let mut held: Vec<_> = (0..19).map(|_| take(tower, 6, 64).expect("memory")).collect();
    assert_eq!(pages(tower).limits().crossings, 0);
    held.extend((0..3).map(|_| take(tower, 6, 64).expect("a soft limit refuses nothing")));
    assert_eq!(pages(tower).limits().crossings, 1, "{:?}", pages(tower).limits());
    assert!(pages(tower).pressed() && pages(tower).bell().heard() != heard);
    // Once per crossing, until the heap has been well below.
    fake(tower).advance(1000);
    held.push(take(tower, 6, 64).expect("memory"));
    assert_eq!(pages(tower).limits().crossings, 1);
    held.drain(5..).for_each(|run| give(tower, run));
    // That it is below is seen when memory goes back, whoever asks for it or not.
    pages(tower).purge_all();
    fake(tower).advance(1000);
    held.extend((0..20).map(|_| take(tower, 6, 64).expect("memory")));
    assert_eq!(pages(tower).limits().crossings, 2);
}

/// A system that refuses to take memory back, now and then, at any of its calls: nothing is lost, nothing
/// is called zero that is not, and the count is exact.
#[test]
fn refusals_to_take_memory_back_are_survived() {
    let tower = tower(4 * KIB);
    let mut rng = Rng::new(rng::seed());
    let mut held: Vec<(usize, usize)> = Vec::new();
    for round in 0..3000 {
        if rng.below(3) > 0 || held.is_empty() {
            let order = rng.below(8) as u32;
            let zero = rng.once_in(2);
            let run = if zero {
                pages(tower).take_zeroed(Grain::Fine, order, 1 << order)
            } else {
                pages(tower).take(order, 1 << order)
            };
            let run = run.expect("memory");
            if run.zeroed {
                for i in 0..1 << order {
                    let at = ptr::with_exposed_provenance::<u64>(run.address() + i * GRANULE);
                    // SAFETY: the run is held.
                    assert_eq!(unsafe { at.read() }, 0);
                }
            }
            mark(run.address(), 1 << order);
            held.push((run.address(), 1 << order));
        } else {
            give(tower, held.swap_remove(rng.below(held.len())));
        }
        if round % 20 == 0 {
            fake(tower).fail(rng.below(3) as u64, rng.below(4) as u64);
            pages(tower).purge_all();
            fake(tower).heal();
        }
    }
    held.iter().for_each(|&run| check(run));
    pages(tower).purge_all();
    assert_eq!(backed(tower), held.iter().map(|run| run.1 * GRANULE).sum());
}

/// Threads take, write, look and give while two others do nothing but return memory.
#[test]
fn purgers_flat_out() {
    let tower = tower(4 * KIB);
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let purgers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut bytes = 0;
                    while !stop.load(Relaxed) {
                        bytes += pages(tower).purge_all();
                    }
                    bytes
                })
            })
            .collect();
        let workers: Vec<_> = (0..3u64)
            .map(|me| {
                scope.spawn(move || {
                    let mut rng = Rng::new(rng::seed() ^ me);
                    let mut held = Vec::new();
                    for _ in 0..8_000 * rng::factor() {
                        if held.len() < 40 && rng.once_in(2) {
                            let order = rng.below(8) as u32;
                            held.push(take(tower, order, 1 << order).expect("memory"));
                        } else if !held.is_empty() {
                            let run = held.swap_remove(rng.below(held.len()));
                            check(run);
                            give(tower, run);
                        }
                    }
                    held.into_iter().for_each(|run| {
                        check(run);
                        give(tower, run);
                    });
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        stop.store(true, Relaxed);
        let returned: usize = purgers.into_iter().map(|p| p.join().expect("no panic")).sum();
        assert!(returned > 10 * MIB, "the purgers found only {returned} bytes");
    });
    pages(tower).purge_all();
    assert_eq!(backed(tower), 0);
    for window in pages(tower).windows() {
        window.check().expect("the books balance");
    }
}

#[test]
fn who_gives_wakes_the_sleeper_and_nobody_else() {
    let tower = tower(4 * KIB);
    let bell = pages(tower).bell();
    let run = take(tower, 0, 1).expect("memory");
    let heard = bell.heard();
    give(tower, run);
    assert_eq!(bell.heard(), heard, "nobody sleeps");
    let run = take(tower, 0, 1).expect("memory");
    assert_eq!(bell.lie_down(), heard);
    assert!(pages(tower).has_idle_memory() || backed(tower) > 0);
    give(tower, run);
    assert_ne!(bell.heard(), heard, "the sleeper's word has changed");
    let run = take(tower, 0, 1).expect("memory");
    let heard = bell.heard();
    give(tower, run);
    assert_eq!(bell.heard(), heard, "once is enough");
    bell.lie_down();
    bell.get_up();
    let run = take(tower, 0, 1).expect("memory");
    give(tower, run);
    assert_eq!(bell.heard(), heard, "it got up by itself");
}

/// A move leaves one mapping more, for what is new at the block's end, and a shrink takes those behind
/// it away: a thousand of either in turn do not add up.
#[test]
fn mappings_stay_few_when_blocks_grow() {
    const NAME: &str = "mappings_stay_few_when_blocks_grow";
    if !child::is(NAME) {
        child::passes(NAME, &[]);
        return;
    }
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("Linux has it").lines().count();
    let tower = tower(4 * KIB);
    let mut blocks: Vec<(NonNull<u8>, usize)> = (0..8)
        .map(|_| (pages(tower).large_alloc(130 * MIB, 8, false).expect("memory"), 130 * MIB))
        .collect();
    let before = maps();
    let mut rng = Rng::new(rng::seed());
    for _ in 0..1000 {
        let (at, size) = &mut blocks[rng.below(8)];
        let new = 129 * MIB + rng.below(400) * MIB;
        // SAFETY: the block has this size.
        let moved = unsafe { pages(tower).large_resize(*at, *size, new, 8) };
        (*at, *size) = (moved.expect("address space"), new);
    }
    let after = maps();
    println!("{before} mappings before, {after} after a thousand moves of 8 blocks");
    assert!(after <= before + 8 * 20, "{before} mappings before, {after} after");
    for (at, size) in blocks {
        // SAFETY: as above.
        unsafe { pages(tower).large_free(at, size, 8) };
    }
}

/// The same for blocks of 4 to 128 MiB, whose pages move within the windows: a mapping is split at most at every
/// hugepage of them, however often blocks move.
#[test]
fn mappings_are_bounded_when_large_blocks_move() {
    const NAME: &str = "mappings_are_bounded_when_large_blocks_move";
    if !child::is(NAME) {
        child::passes(NAME, &[]);
        return;
    }
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("Linux has it").lines().count();
    let tower = tower(4 * KIB);
    let resize = |at: &mut NonNull<u8>, size: &mut usize, new: usize| {
        // SAFETY: the block has this size; its first word lies in it.
        unsafe {
            let moved = pages(tower).large_resize(*at, *size, new, 8).expect("address space");
            assert_eq!(moved.cast::<usize>().read(), *size, "the contents");
            moved.cast::<usize>().write(new);
            (*at, *size) = (moved, new);
        }
    };
    let mut blocks: Vec<(NonNull<u8>, usize)> = (0..8)
        .map(|_| {
            let at = pages(tower).large_alloc(4 * MIB, 8, false).expect("memory");
            // SAFETY: its first word.
            unsafe { at.cast::<usize>().write(4 * MIB) };
            (at, 4 * MIB)
        })
        .collect();
    let (before, remaps) = (maps(), pages(tower).os().counts().remaps);
    let mut rng = Rng::new(rng::seed());
    let mut most = before;
    for step in 0..2000 {
        let (at, size) = &mut blocks[rng.below(8)];
        let new = 4 * MIB + rng.below(124 * MIB / 4096) * 4096;
        resize(at, size, new);
        if step % 50 == 0 {
            most = most.max(maps());
        }
    }
    let moves = pages(tower).os().counts().remaps - remaps;
    let windows = pages(tower).windows().count();
    println!("{before} mappings before, at most {most} in {moves} moves over {windows} windows");
    assert!(moves >= 100, "{moves} moves");
    assert!(most <= before + windows * (HUGEPAGES_PER_WINDOW + 1), "{before} before, {most} then");
    for (at, size) in blocks {
        // SAFETY: as above.
        unsafe { pages(tower).large_free(at, size, 8) };
    }
}

/// Automatic: none for a small heap, from the third hugepage on, if two are full, for what will be used all over,
/// each once; never: none.
#[test]
fn hugepages_are_asked_for_once_the_heap_is_large() {
    for policy in [HugepagePolicy::Auto, HugepagePolicy::Never] {
        let tower = tower(4 * KIB);
        pages(tower).policy().set_hugepages(policy);
        let auto = u64::from(policy == HugepagePolicy::Auto);
        let advices = || pages(tower).os().counts().advices;
        let first = advices();
        let fill = |count: usize| -> Vec<_> {
            (0..count * 64).map(|_| take(tower, 0, 1).expect("memory")).collect()
        };
        let mut held = fill(2);
        // A heap that is never to have hugepages says so when it begins.
        assert_eq!(advices() - first, 1 - auto + SHADOW, "{policy:?}: a small heap");
        let small = advices();
        held.extend(fill(5));
        assert_eq!(advices() - small, 5 * auto, "{policy:?}: a large one");
        held.drain(64..).for_each(|run| give(tower, run));
        held.extend(fill(6));
        assert_eq!(advices() - small, 5 * auto, "{policy:?}: once is enough");
        held.into_iter().for_each(check);
    }
}

/// A few objects that are held keep their own pages and no others, once the heap is at rest.
#[test]
fn pages_of_free_objects_go_back_when_the_heap_is_at_rest() {
    let tower = tower(4 * KIB);
    let spans = tower.below().below();
    let class = |size| Class::of(size, 8).expect("a class");
    for size in [16, 64, 1000, 5000, 20_000] {
        let class = class(size);
        let mut objects = vec![ptr::null_mut(); 4 * MIB / class.size()];
        assert_eq!(spans.take(class, &mut objects), objects.len());
        for &mut object in &mut objects {
            // SAFETY: held, and that large.
            unsafe { object.write_bytes(7, class.size()) };
        }
        let (kept, mut given): (Vec<_>, Vec<_>) = {
            let mut indexed = objects.into_iter().enumerate();
            let (kept, given): (Vec<_>, Vec<_>) =
                indexed.by_ref().partition(|(i, _)| i % 500 == 250);
            (
                kept.into_iter().map(|(_, at)| at).collect(),
                given.into_iter().map(|(_, at)| at).collect(),
            )
        };
        given.chunks_mut(class.batch()).for_each(|batch| spans.give(class, batch));
        assert!(spans.will_shed());
        let gone = || pages(tower).counts().shed as usize + purged(tower);
        let before = gone();
        for _ in 0..40 {
            fake(tower).advance(250);
            spans.tick();
        }
        let gone = gone() - before;
        assert!(!spans.will_shed(), "at rest");
        // Each that is kept keeps the pages it touches, and its neighbours' edges.
        let keeps = kept.len() * (class.size() + 3 * 4096);
        assert!(gone + keeps > 4 * MIB - 256 * KIB, "{gone} bytes of {size}");
        for &object in &kept {
            // SAFETY: held, and that large.
            let bytes = unsafe { std::slice::from_raw_parts(object.cast_const(), class.size()) };
            assert!(bytes.iter().all(|&byte| byte == 7), "an object in use was released");
        }
        // What went is handed out again.
        let mut again = vec![ptr::null_mut(); given.len()];
        assert_eq!(spans.take(class, &mut again), again.len());
        again.chunks_mut(class.batch()).for_each(|batch| spans.give(class, batch));
        let mut kept = kept;
        kept.chunks_mut(class.batch()).for_each(|batch| spans.give(class, batch));
        assert_eq!(spans.check(), Ok(0));
    }
}
