//! No memory: every failed request is a null, everything held stays intact and usable, and when
//! memory is freed it is there again. Under RLIMIT_AS, in children of their own.

mod common;

use common::{Ask, Block, KIB, MIB, Rng, child, ledger, rng};
use std::alloc::Layout;
use std::sync::Barrier;
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// The ledger is address space too.
const LEDGER: u64 = (ledger::PREPARED / MIB) as u64;

const fn limit(mib: u64) -> [(u32, u64); 1] {
    [(libc::RLIMIT_AS, (mib + LEDGER) << 20)]
}

/// Too little for a window, so the heap starts small and doubles.
static SMALL: [(u32, u64); 1] = limit(400);
/// Enough for one window and not for another.
static LARGE: [(u32, u64); 1] = limit(2500);

fn any_layout(rng: &mut Rng) -> Layout {
    let size = match rng.below(20) {
        0 => rng.size(30 * MIB),
        1..4 => rng.size(MIB),
        _ => rng.size(32 * KIB),
    };
    Layout::from_size_align(size, 1 << rng.below(8)).expect("a valid layout")
}

/// Allocates, resizes and frees at the edge of what there is. `held` has room already: nothing here
/// may need memory but the blocks themselves, because what the standard library cannot get it aborts
/// for. Answers how often the allocator said no.
fn live_on_the_edge(rng: &mut Rng, held: &mut Vec<Block>, steps: usize) -> usize {
    let mut refused = 0;
    for _ in 0..steps {
        match rng.below(10) {
            0..7 if held.len() < held.capacity() => {
                let ask = if rng.once_in(4) { Ask::Zeroed } else { Ask::Plain };
                match Block::new(any_layout(rng), ask, rng.next()) {
                    Some(block) => held.push(block),
                    None => refused += 1,
                }
            }
            7..9 if !held.is_empty() => {
                let at = rng.below(held.len());
                // A refusal leaves the block as it was; `resize` looks.
                refused += usize::from(!held[at].resize(any_layout(rng).size().max(1)));
            }
            _ if !held.is_empty() => {
                drop(held.swap_remove(rng.below(held.len())));
            }
            _ => {}
        }
    }
    held.iter().for_each(Block::check);
    refused
}

/// Fills memory with blocks of one size; answers how many bytes that was.
fn fill(held: &mut Vec<Block>, size: usize) -> usize {
    let before = held.len();
    while held.len() < held.capacity()
        && let Some(block) =
            Block::new(Layout::from_size_align(size, 8).expect("valid"), Ask::Plain, 5)
    {
        held.push(block);
    }
    (held.len() - before) * size
}

/// The child's part: fill, be refused, live on, free everything, and get it all again in another
/// shape.
fn under_a_limit(least: usize) {
    ledger::prepare();
    let mut rng = Rng::new(rng::seed());
    let mut held: Vec<Block> = Vec::with_capacity(100_000);
    let first = fill(&mut held, MIB);
    assert!(first >= least, "only {first} bytes in blocks of 1 MiB");
    let refused = live_on_the_edge(&mut rng, &mut held, 20_000 * rng::factor());
    assert!(refused > 20, "the edge was not reached: {refused} refusals");
    held.clear();
    for size in [29056, 100 * KIB, 5000, 4 * MIB] {
        let bytes = fill(&mut held, size);
        held.iter().for_each(Block::check);
        let wanted = if held.len() == held.capacity() { 0 } else { least / 10 * 7 };
        assert!(bytes >= wanted, "{bytes} bytes in blocks of {size}, of {first} at first");
        held.clear();
    }
}

#[test]
fn an_address_space_limit_below_a_window() {
    const NAME: &str = "an_address_space_limit_below_a_window";
    if child::is(NAME) {
        return under_a_limit(200 * MIB);
    }
    child::passes(NAME, &SMALL);
}

#[test]
fn an_address_space_limit_above_a_window() {
    const NAME: &str = "an_address_space_limit_above_a_window";
    if child::is(NAME) {
        return under_a_limit(1100 * MIB);
    }
    child::passes(NAME, &LARGE);
}

/// What waits free in the floors above the page heap is put together before a request is refused.
#[test]
fn what_waits_in_the_caches_is_reclaimed() {
    const NAME: &str = "what_waits_in_the_caches_is_reclaimed";
    if !child::is(NAME) {
        child::passes(NAME, &SMALL);
        return;
    }
    ledger::prepare();
    let mut held: Vec<Block> = Vec::with_capacity(100_000);
    // The records of what waits between the threads are mapped while something can be.
    held.extend((0..20_000).map(|i| Block::must(64, 8, i)));
    held.clear();
    assert!(spandrel::stats().in_transfer > 0, "{}", spandrel::stats());
    let first = fill(&mut held, MIB);
    held.clear();
    // Every class leaves about a mebibyte of objects between the threads, in spans here and there.
    let sizes = spandrel::base::classes::Class::all().map(|class| class.size());
    for size in sizes.filter(|&size| size > 100) {
        held.extend((0..2 * MIB / size).map(|i| Block::must(size, 8, i as u64)));
        held.clear();
    }
    let stats = spandrel::stats();
    assert!(stats.in_transfer + stats.cached > 256 * KIB, "{stats}");
    let again = fill(&mut held, MIB);
    assert!(again + 8 * MIB >= first, "{first} bytes at first, {again} now\n{stats}");
    held.clear();
}

/// Several threads run out together; none loses anything, and one's memory comes free for another.
#[test]
fn threads_run_out_together() {
    const NAME: &str = "threads_run_out_together";
    if !child::is(NAME) {
        child::passes(NAME, &SMALL);
        return;
    }
    ledger::prepare();
    child::ends_with_the_first_panic();
    const THREADS: usize = 4;
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for me in 0..THREADS as u64 {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut rng = Rng::new(rng::seed() ^ me);
                let mut held: Vec<Block> = Vec::with_capacity(100_000);
                barrier.wait();
                fill(&mut held, 64 * KIB);
                let refused = live_on_the_edge(&mut rng, &mut held, 5_000 * rng::factor());
                assert!(refused > 10, "the edge was not reached: {refused} refusals");
                held.clear();
                barrier.wait();
                // Alone now, one after the other: every free granule is there for each. (Larger runs
                // may not be: the others' caches keep objects here and there.)
                for turn in 0..THREADS as u64 {
                    if turn == me {
                        let stats = spandrel::stats();
                        let free = stats.free_granules + stats.returned;
                        assert!(free > 40 * MIB, "{stats}");
                        let bytes = fill(&mut held, 4096);
                        assert!(bytes >= free, "only {bytes} bytes of {free} for thread {me}");
                        held.clear();
                    }
                    barrier.wait();
                }
            });
        }
    });
}
