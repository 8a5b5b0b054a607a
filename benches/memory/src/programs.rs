//! The programs and the bars they are held against.

use crate::rss::{forget_peak, peak, recent_peak, resident};
use crate::work::{Blocks, Chains, MIB, Rng};
use crate::worker::Figures;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What a program does while it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Nothing at all.
    Sleep,
    /// 50 small blocks made and freed every 10 ms, on the main thread.
    Trickle,
}

/// One program.
#[derive(Debug)]
pub struct Program {
    /// As it is named on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What it may hold, as words.
    pub bar: &'static str,
    /// Whether the figures keep to the bar.
    pub holds: fn(&Figures) -> bool,
    /// The figure that the bar is about, in bytes.
    pub figure: fn(&Figures) -> usize,
    /// Runs it.
    pub run: fn(Idle) -> Figures,
    /// The bytes that a memory control group allows it, where it is to run in one.
    pub group: Option<usize>,
}

/// The program of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name)
}

const A_TENTH: &str = "10 % of peak";

fn a_tenth(figures: &Figures) -> bool {
    figures.left * 10 <= figures.peak
}

fn left(figures: &Figures) -> usize {
    figures.left
}

fn growth(figures: &Figures) -> usize {
    figures.growth
}

/// All programs, in the order of the tables.
pub static PROGRAMS: &[Program] = &[
    Program {
        name: "free-64",
        about: "256 MB of 64 B, freed in random order, 12 s later",
        bar: A_TENTH,
        holds: a_tenth,
        figure: left,
        run: |idle| freed(idle, 64),
        group: None,
    },
    Program {
        name: "free-4k",
        about: "the same with 4 KB",
        bar: A_TENTH,
        holds: a_tenth,
        figure: left,
        run: |idle| freed(idle, 4 << 10),
        group: None,
    },
    Program {
        name: "free-100k",
        about: "the same with 100 KB",
        bar: A_TENTH,
        holds: a_tenth,
        figure: left,
        run: |idle| freed(idle, 100 << 10),
        group: None,
    },
    Program {
        name: "free-4m",
        about: "the same with 4 MB",
        bar: A_TENTH,
        holds: a_tenth,
        figure: left,
        run: |idle| freed(idle, 4 << 20),
        group: None,
    },
    Program {
        name: "dead-threads",
        about: "240 MB made by four threads that ended, freed by main, 12 s later",
        bar: A_TENTH,
        holds: a_tenth,
        figure: left,
        run: dead_threads,
        group: None,
    },
    Program {
        name: "idle-16",
        about: "16 threads, a peak of 20 MB each at once, 12 s idle",
        bar: "32 MB in all",
        holds: |f| f.left <= 32_000_000,
        figure: left,
        run: idle_threads,
        group: None,
    },
    Program {
        name: "turns-40",
        about: "40 live threads, a peak of 8 MB each in turn, no pause",
        bar: "2 x 8 MB more than before",
        holds: |f| f.growth <= 16 << 20,
        figure: growth,
        run: turns,
        group: None,
    },
    Program {
        name: "drift",
        about: "40 MB live while sizes drift from 32 B to 2.2 KB",
        bar: "1.5 x live at the peak",
        holds: |f| f.peak * 2 <= f.live * 3,
        figure: |f| f.peak,
        run: drift,
        group: None,
    },
    Program {
        name: "phases-128m",
        about: "phases of 80 MB in one class each, 12 of them, twice; the most resident at any moment",
        bar: "128 MB at the peak",
        holds: |f| f.peak <= 128 << 20,
        figure: |f| f.peak,
        run: phases,
        group: None,
    },
    Program {
        name: "cgroup-128m",
        about: "the same phases in a memory control group of 128 MB; the most it was charged, if it survives",
        bar: "survives",
        holds: |f| f.peak != 0,
        figure: |f| f.peak,
        run: phases_alone,
        group: Some(128 << 20),
    },
    Program {
        name: "threads-100k",
        about: "100,000 threads born and gone",
        bar: "1 MB more than before",
        holds: |f| f.growth < 1_000_000,
        figure: growth,
        run: births,
        group: None,
    },
    Program {
        name: "idle-thread",
        about: "a live thread that has made and freed a few blocks, mean of 1,000",
        bar: "16 KiB more than a thread that did not",
        holds: |f| f.growth < 16 << 10,
        figure: growth,
        run: |idle| parked(idle, |rng| drop(Blocks::fill(2_000, 16, || rng.size(16, 256)))),
        group: None,
    },
    Program {
        name: "parked-1000",
        about: "a live thread that has had a peak of 1 MB of all sizes to 32 KB, mean of 1,000",
        bar: "(none: what it strands)",
        holds: |_| true,
        figure: growth,
        run: |idle| {
            parked(idle, |rng| {
                let mut sizes = rng.clone();
                Blocks::fill(MIB, 16, || sizes.size(16, 32 << 10)).free_shuffled(rng);
            })
        },
        group: None,
    },
    Program {
        name: "burst-1",
        about: "1 GiB of all sizes to 256 KB, freed but for 10 MB, 15 s idle",
        bar: "live + 5 % + 8 MiB",
        holds: after_a_burst,
        figure: left,
        run: |idle| burst(idle, 1),
        group: None,
    },
    Program {
        name: "burst-64",
        about: "the same made and freed by 64 threads that stay",
        bar: "live + 5 % + 8 MiB",
        holds: after_a_burst,
        figure: left,
        run: |idle| burst(idle, 64),
        group: None,
    },
    Program {
        name: "large-heap",
        about: "1 GiB of 256 B blocks made, then 20 million touched at random",
        bar: "(none: time and peak)",
        holds: |_| true,
        figure: |f| f.peak,
        run: |_| large_heap(),
        group: None,
    },
    Program {
        name: "series",
        about: "two bursts of 300 MB, 20 s apart, RSS every 100 ms: the chart",
        bar: "(none: the chart)",
        holds: |_| true,
        figure: left,
        run: series,
        group: None,
    },
];

fn after_a_burst(figures: &Figures) -> bool {
    figures.left <= figures.live + figures.live / 20 + (8 << 20)
}

/// Is idle for so long.
fn be(idle: Idle, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    match idle {
        Idle::Sleep => thread::sleep(Duration::from_secs(seconds)),
        Idle::Trickle => {
            let mut rng = Rng::new(99);
            while Instant::now() < end {
                let mut few = Blocks::with_room(50);
                (0..50).for_each(|_| few.push(rng.size(16, 2048)));
                drop(few);
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn freed(idle: Idle, size: usize) -> Figures {
    let blocks = Blocks::fill(256_000_000, size, || size);
    let peak = resident() - list_bytes(&blocks);
    blocks.free_shuffled(&mut Rng::new(1));
    be(idle, 12);
    Figures { peak, left: resident(), ..Figures::default() }
}

/// What a list itself holds resident, which is not the allocator's.
fn list_bytes(blocks: &Blocks) -> usize {
    blocks.len() * size_of::<(*mut u8, usize)>()
}

fn dead_threads(idle: Idle) -> Figures {
    let makers = (0..4).map(|me| {
        thread::spawn(move || {
            let mut rng = Rng::new(me);
            Blocks::fill(60_000_000, 16, move || rng.size(16, 16 << 10))
        })
    });
    let makers: Vec<_> = makers.collect();
    let made: Vec<_> = makers.into_iter().map(|maker| maker.join().expect("no panic")).collect();
    let peak = resident() - made.iter().map(list_bytes).sum::<usize>();
    made.into_iter().for_each(|blocks| blocks.free_shuffled(&mut Rng::new(1)));
    be(idle, 12);
    Figures { peak, left: resident(), ..Figures::default() }
}

/// Starts threads that run `work` when `start` is reached the first time, and stay.
fn threads(count: usize, start: &Arc<Barrier>, work: impl Fn(usize) + Clone + Send + 'static) {
    for me in 0..count {
        let (start, work) = (Arc::clone(start), work.clone());
        let body = move || {
            start.wait();
            work(me);
            start.wait();
            loop {
                thread::park();
            }
        };
        thread::Builder::new().stack_size(128 << 10).spawn(body).expect("a thread");
    }
}

fn idle_threads(idle: Idle) -> Figures {
    let full = Arc::new(Barrier::new(17));
    let start = Arc::new(Barrier::new(17));
    let at_peak = Arc::clone(&full);
    threads(16, &start, move |me| {
        let mut rng = Rng::new(me as u64);
        let blocks = Blocks::fill(20_000_000, 16, || rng.size(16, 16 << 10));
        at_peak.wait();
        at_peak.wait();
        blocks.free_shuffled(&mut Rng::new(me as u64));
    });
    start.wait();
    full.wait();
    let peak = resident();
    full.wait();
    start.wait();
    be(idle, 12);
    Figures { peak, left: resident(), ..Figures::default() }
}

fn turns(_: Idle) -> Figures {
    let turn = Arc::new(AtomicUsize::new(usize::MAX));
    let (start, mine) = (Arc::new(Barrier::new(41)), Arc::clone(&turn));
    threads(40, &start, move |me| {
        while mine.load(SeqCst) != me {
            thread::sleep(Duration::from_millis(1));
        }
        let mut rng = Rng::new(me as u64);
        let blocks = Blocks::fill(8 << 20, 16, || rng.size(16, 16 << 10));
        blocks.free_shuffled(&mut Rng::new(me as u64));
        mine.store(me + 1, SeqCst);
    });
    start.wait();
    let before = resident();
    turn.store(0, SeqCst);
    start.wait();
    let left = resident();
    Figures { peak: peak(), left, growth: left.saturating_sub(before), ..Figures::default() }
}

fn drift(_: Idle) -> Figures {
    const LIVE: usize = 40_000_000;
    const STEPS: usize = 200;
    let mut rng = Rng::new(7);
    let mut blocks = Blocks::with_room(LIVE / 16);
    let base = resident();
    let mut most = 0;
    for step in 0..STEPS {
        let middle = 32 + (2200 - 32) * step / STEPS;
        let mut replaced = 0;
        while replaced < LIVE / 4 {
            let size = (middle * 3 / 4 + rng.below(middle / 2 + 1)).max(16);
            blocks.push(size);
            replaced += size;
            while blocks.bytes() > LIVE {
                blocks.swap_remove(rng.below(blocks.len()));
            }
        }
        most = most.max(resident() - base);
    }
    // The list is at its longest at first, when the blocks are smallest; what it touched stays.
    let list = LIVE / 24 * size_of::<(*mut u8, usize)>();
    Figures { peak: most.saturating_sub(list), left: resident(), live: LIVE, ..Figures::default() }
}

/// What each of the phases consists of.
const PHASES: [usize; 12] = [48, 1024, 96, 16_384, 256, 4096, 32_768, 512, 64, 100_000, 2048, 24];
const PHASE: usize = 80_000_000;

/// The phases with nothing beside their blocks, for whoever counts all that the process holds.
fn phases_alone(_: Idle) -> Figures {
    for size in PHASES.into_iter().chain(PHASES) {
        let mut rng = Rng::new(size as u64);
        let mut blocks = Chains::new(size);
        (0..PHASE / size).for_each(|_| blocks.push(&mut rng));
    }
    Figures { peak: peak(), left: resident(), ..Figures::default() }
}

fn phases(_: Idle) -> Figures {
    // Two rounds, so that what the first left in every class is in the way of the second. The list of
    // blocks lives in this process too, and is not counted. What a cgroup of 128 MB would kill is the most
    // that was ever resident within a phase, so the system's own mark of that is read, in steps that are
    // short beside what the list grows by.
    let mut most = 0;
    for size in PHASES.into_iter().chain(PHASES) {
        let mut rng = Rng::new(size as u64);
        let mut blocks = Blocks::with_room(PHASE / size + 1);
        for step in 1..=200 {
            forget_peak();
            while blocks.bytes() < PHASE / 200 * step {
                blocks.push(size);
            }
            most = most.max(recent_peak() - list_bytes(&blocks));
        }
        blocks.free_shuffled(&mut rng);
    }
    Figures { peak: most, left: resident(), ..Figures::default() }
}

fn births(_: Idle) -> Figures {
    let born = |count: usize| {
        for _ in 0..count / 10 {
            let ten: Vec<_> = (0..10)
                .map(|me| {
                    let body = move || {
                        let mut rng = Rng::new(me);
                        drop(Blocks::fill(10_000, 16, move || rng.size(16, 1024)));
                    };
                    thread::Builder::new().stack_size(128 << 10).spawn(body).expect("a thread")
                })
                .collect();
            ten.into_iter().for_each(|thread| thread.join().expect("no panic"));
        }
    };
    born(2_000);
    let before = resident();
    born(100_000);
    let left = resident();
    Figures { peak: peak(), left, growth: left.saturating_sub(before), ..Figures::default() }
}

/// What a thousand threads hold that work and then sleep, over a thousand that only sleep. Per thread.
fn parked(idle: Idle, work: fn(&mut Rng)) -> Figures {
    const THREADS: usize = 1000;
    let start = |work: Option<fn(&mut Rng)>| {
        let start = Arc::new(Barrier::new(THREADS + 1));
        // One at a time, so that they strand what they keep and not what they all needed at once.
        let turn = Arc::new(Mutex::new(()));
        let before = resident();
        threads(THREADS, &start, move |me| {
            let mut rng = Rng::new(me as u64);
            // The stacks of both kinds are touched alike.
            std::hint::black_box([me as u8; 8192]);
            if let Some(work) = work {
                let _mine = turn.lock().expect("no panic");
                work(&mut rng);
            }
        });
        start.wait();
        start.wait();
        before
    };
    let before = start(None);
    let without = resident() - before;
    let before = start(Some(work));
    be(idle, 12);
    let left = resident();
    let growth = (left - before).saturating_sub(without) / THREADS;
    Figures { peak: peak(), left, growth, ..Figures::default() }
}

fn burst(idle: Idle, count: usize) -> Figures {
    const LIVE: usize = 10 << 20;
    let base = resident();
    let live = Arc::new(AtomicUsize::new(0));
    let full = Arc::new(Barrier::new(count + 1));
    let start = Arc::new(Barrier::new(count + 1));
    let (at_peak, held) = (Arc::clone(&full), Arc::clone(&live));
    threads(count, &start, move |me| {
        let mut rng = Rng::new(me as u64);
        let mut size = || rng.size(16, 256 << 10);
        let kept = Blocks::fill(LIVE / count, 16, &mut size);
        let blocks = Blocks::fill((1 << 30) / count, 16, &mut size);
        at_peak.wait();
        at_peak.wait();
        blocks.free_shuffled(&mut Rng::new(me as u64));
        held.fetch_add(kept.bytes(), SeqCst);
        std::mem::forget(kept);
    });
    start.wait();
    full.wait();
    let peak = resident();
    full.wait();
    start.wait();
    be(idle, 15);
    Figures { peak, left: resident(), live: base + live.load(SeqCst), ..Figures::default() }
}

fn large_heap() -> Figures {
    let begun = Instant::now();
    let count = (1 << 30) / 256;
    let blocks: Vec<Box<[u8; 256]>> = (0..count).map(|i| Box::new([i as u8; 256])).collect();
    let mut rng = Rng::new(3);
    let mut sum = 0u64;
    for _ in 0..20_000_000 {
        sum += u64::from(blocks[rng.below(count)][128]);
    }
    std::hint::black_box(sum);
    let nanos = begun.elapsed().as_nanos() as usize;
    Figures { peak: peak(), left: resident(), nanos, ..Figures::default() }
}

fn series(idle: Idle) -> Figures {
    let begun = Instant::now();
    let watcher = thread::spawn(move || {
        let mut seen = Vec::with_capacity(1000);
        while begun.elapsed() < Duration::from_secs(50) {
            seen.push((begun.elapsed().as_millis(), resident()));
            thread::sleep(Duration::from_millis(100));
        }
        seen
    });
    thread::sleep(Duration::from_secs(1));
    for burst in 0..2 {
        let mut rng = Rng::new(burst);
        let blocks = Blocks::fill(300_000_000, 16, || rng.size(16, 256 << 10));
        thread::sleep(Duration::from_secs(2));
        blocks.free_shuffled(&mut Rng::new(burst));
        be(idle, 20);
    }
    let seen = watcher.join().expect("no panic");
    for (at, bytes) in &seen {
        println!("at={at} rss={bytes}");
    }
    let peak = seen.iter().map(|seen| seen.1).max().unwrap_or(0);
    Figures { peak, left: resident(), ..Figures::default() }
}
