//! Real threads against the real building. Every block carries a pattern of its own and is entered
//! in a ledger of held bytes, so a byte handed out twice, lost, moved or not zeroed ends the run.
//!
//! `SPANDREL_SEED=n` replays a run (up to the interleaving), `SPANDREL_FACTOR=n` makes it longer.

mod common;

use common::{Ask, Block, KIB, MIB, Rng, rng};
use spandrel::{HugepagePolicy, Options};
use std::alloc::Layout;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// Sizes at which the allocator changes its mind.
const EDGES: &[usize] = &[
    8,
    16,
    64,
    1024,
    4096,
    16 * KIB,
    29056,
    32 * KIB,
    64 * KIB,
    96 * KIB,
    256 * KIB,
    MIB,
    2 * MIB,
    4 * MIB,
];

fn any_size(rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..70 => rng.size(32 * KIB),
        70..85 => rng.pick(EDGES) - 1 + rng.below(3),
        85..97 => rng.size(MIB),
        97 => rng.below(2 * MIB) + 1,
        98 => rng.below(64) * 32 * KIB + 1,
        _ => rng.below(17),
    }
}

fn any_align(rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..80 => 1 << rng.below(5),
        80..98 => 1 << rng.below(17),
        98 => 1 << rng.below(22),
        _ => 1 << rng.below(25),
    }
}

/// One thread's part of a differential run.
struct Actor<'a> {
    rng: Rng,
    held: Vec<Block>,
    bytes: usize,
    mailboxes: &'a [Mutex<Vec<Block>>],
    me: usize,
}

impl Actor<'_> {
    const MOST_BYTES: usize = 24 * MIB;
    const MOST_BLOCKS: usize = 4000;

    fn keep(&mut self, block: Block) {
        self.bytes += block.size();
        self.held.push(block);
    }

    fn part_with_any(&mut self) -> Option<Block> {
        if self.held.is_empty() {
            return None;
        }
        let block = self.held.swap_remove(self.rng.below(self.held.len()));
        self.bytes -= block.size();
        Some(block)
    }

    fn step(&mut self) {
        let full = self.bytes > Self::MOST_BYTES || self.held.len() > Self::MOST_BLOCKS;
        match self.rng.below(100) {
            _ if full => {
                // A sweep in one direction empties spans; single frees would hardly ever.
                let keep = self.rng.below(self.held.len());
                self.bytes -= self.held.drain(keep..).map(|block| block.size()).sum::<usize>();
            }
            0..50 => {
                let ask = if self.rng.once_in(4) { Ask::Zeroed } else { Ask::Plain };
                let (size, align) = (any_size(&mut self.rng), any_align(&mut self.rng));
                let layout = Layout::from_size_align(size, align).expect("a valid layout");
                let block = Block::new(layout, ask, self.rng.next());
                self.keep(block.unwrap_or_else(|| panic!("{layout:?}: no memory")));
            }
            50..65 => {
                if let Some(mut block) = self.part_with_any() {
                    let size = match self.rng.below(3) {
                        0 => block.size() + self.rng.size(64 * KIB),
                        1 => (block.size() / 2).max(1),
                        _ => any_size(&mut self.rng).max(1),
                    };
                    assert!(block.resize(size), "{block:x?} to {size}: no memory");
                    self.keep(block);
                }
            }
            65..85 => drop(self.part_with_any()),
            85..93 => {
                let to = self.rng.below(self.mailboxes.len());
                if let Some(block) = self.part_with_any() {
                    self.mailboxes[to].lock().expect("no panic").push(block);
                }
            }
            93..99 => {
                let got = std::mem::take(&mut *self.mailboxes[self.me].lock().expect("no panic"));
                for (i, block) in got.into_iter().enumerate() {
                    // Some live on here, most are freed by a thread that did not make them.
                    if i % 4 == 0 {
                        self.keep(block);
                    }
                }
            }
            _ => self.held.iter().step_by(17).for_each(Block::check),
        }
    }
}

fn differential(seed: u64, threads: usize, steps: usize) {
    let mailboxes: Vec<_> = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
    thread::scope(|scope| {
        for me in 0..threads {
            let mailboxes = &mailboxes;
            scope.spawn(move || {
                let rng = Rng::new(seed ^ (me as u64) << 48);
                let mut actor = Actor { rng, held: Vec::new(), bytes: 0, mailboxes, me };
                for _ in 0..steps {
                    actor.step();
                }
            });
        }
    });
}

/// Any operation, any size, any thread.
#[test]
fn random_operations() {
    let first = rng::seed();
    for round in 0..3 * rng::factor() as u64 {
        let seed = first + round;
        for threads in [1, 2, 6] {
            println!("SPANDREL_SEED={seed}, {threads} threads");
            differential(seed, threads, 24_000 / threads);
        }
    }
}

/// The same while two threads return all that is free as fast as they can, whole hugepages, parts of them and
/// pages inside spans, with large pages that are broken and without.
#[test]
fn random_operations_while_everything_is_returned() {
    for hugepages in [HugepagePolicy::Always, HugepagePolicy::Auto, HugepagePolicy::Never] {
        spandrel::configure(&Options::new().hugepages(hugepages));
        let seed = rng::seed();
        println!("SPANDREL_SEED={seed}, {hugepages:?}");
        let (done, purges) = (AtomicBool::new(false), AtomicUsize::new(0));
        let before = spandrel::stats().floors.page.purged;
        let outcome = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        spandrel::purge();
                        purges.fetch_add(1, Relaxed);
                    }
                });
            }
            let outcome = std::panic::catch_unwind(|| differential(seed, 4, 4_000));
            // However it went: the purgers must end before anything is asserted.
            done.store(true, Relaxed);
            outcome
        });
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        let returned = spandrel::stats().floors.page.purged - before;
        let purges = purges.into_inner();
        println!("{purges} purges returned {} MiB", returned / MIB);
        assert!(purges > 0 && returned > 0, "{purges} purges returned {returned}");
    }
    spandrel::configure(&Options::new());
}

/// Every thread allocates and frees one class as fast as it can, so that batches cross the transfer
/// cache and bits cross spans all the time.
#[test]
fn one_class_from_many_threads() {
    for (size, most) in [(8, 3000), (64, 3000), (1024, 500), (32 * KIB, 24)] {
        let pool = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for me in 0..6u64 {
                let pool = &pool;
                scope.spawn(move || {
                    let mut rng = Rng::new(rng::seed() ^ me);
                    for _ in 0..12 * rng::factor() {
                        let count = rng.below(most) + 1;
                        let mine: Vec<_> =
                            (0..count).map(|_| Block::must(size, 8, rng.next())).collect();
                        // What this thread made the next one frees, and the other way round.
                        let theirs = swap(&mut pool.lock().expect("no panic"), mine, &mut rng);
                        drop(theirs);
                    }
                });
            }
        });
    }
}

/// Swaps one's own blocks for a random share of everybody's.
fn swap(pool: &mut Vec<Block>, mine: Vec<Block>, rng: &mut Rng) -> Vec<Block> {
    pool.extend(mine);
    pool.split_off(rng.below(pool.len()))
}

/// Whole granules only: claims, tails, growth in place, promotion and demotion of hugepages.
#[test]
fn granules_from_many_threads() {
    thread::scope(|scope| {
        for me in 0..6u64 {
            scope.spawn(move || {
                let mut rng = Rng::new(rng::seed() ^ me << 32);
                let mut held: Vec<Block> = Vec::new();
                for _ in 0..700 * rng::factor() {
                    let size = rng.below(20) * 32 * KIB + 32 * KIB + 1 + rng.below(2);
                    let align = 1 << rng.below(19);
                    match rng.below(8) {
                        0..4 if held.len() < 40 => held.push(Block::must(size, align, rng.next())),
                        4..6 if !held.is_empty() => {
                            let at = rng.below(held.len());
                            assert!(held[at].resize(size));
                        }
                        _ if !held.is_empty() => {
                            drop(held.swap_remove(rng.below(held.len())));
                        }
                        _ => {}
                    }
                }
            });
        }
    });
}

/// One thread only allocates, another only frees: memory flows one way, and must flow back below.
#[test]
fn a_producer_and_a_consumer() {
    let (send, receive) = std::sync::mpsc::sync_channel::<Vec<Block>>(4);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut rng = Rng::new(rng::seed());
            for _ in 0..600 * rng::factor() {
                let size = rng.size(4 * KIB);
                send.send((0..100).map(|_| Block::must(size, 8, rng.next())).collect())
                    .expect("the consumer lives");
            }
        });
        scope.spawn(move || receive.into_iter().for_each(drop));
    });
    // 60,000 blocks of half a kibibyte on average went through; a few hundred were ever alive.
    let mapped = spandrel::stats().mapped;
    assert!(mapped < 4 << 30, "{mapped} bytes mapped");
}
