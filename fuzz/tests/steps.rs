//! The test of lock-freedom: one thread is stopped before each of its atomic accesses in turn, on every
//! slow path, and while it stands four others do a fixed amount of work on the same floors. They must
//! finish; then the one goes on, and the books must balance.
//!
//! Needs the atomics that tell (`RUSTFLAGS="--cfg spandrel_steps"`, see `ci/test.sh reliability`). By default each
//! place in the source is tried at its first and last access of a path; `SPANDREL_STEPS=all` tries every
//! access there is.
#![cfg(spandrel_steps)]

use fuzz::deadline::running;
use fuzz::floors::{Building, Entry, Hand, Op};
use fuzz::system::Kind;
use spandrel::base::steps::set_hook;
use spandrel::base::sync::{AtomicU32, Ordering::SeqCst};
use spandrel::front::c;
use spandrel::{Check, Spandrel, profile};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const WORKERS: usize = 4;
/// Far more than the work takes on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(120);

thread_local! {
    static VICTIM: Cell<bool> = const { Cell::new(false) };
}

type Place = (&'static str, u32, u32);

/// Accesses of the victim so far, and which of them it stops before.
static DONE: AtomicUsize = AtomicUsize::new(0);
static STOP_AT: AtomicUsize = AtomicUsize::new(usize::MAX);
static GO_ON: AtomicBool = AtomicBool::new(false);
static NEWS: Mutex<Option<Sender<News>>> = Mutex::new(None);
/// Where each access was, when that is wanted.
static PLACES: Mutex<Option<Vec<Place>>> = Mutex::new(None);

#[derive(Debug)]
enum News {
    Stopped(Place),
    Over,
}

fn hook(place: &'static Location<'static>) {
    if !VICTIM.get() {
        return;
    }
    // What follows is the test's own business.
    VICTIM.set(false);
    let place = (place.file(), place.line(), place.column());
    if let Some(places) = &mut *PLACES.lock().unwrap_or_else(PoisonError::into_inner) {
        places.push(place);
    }
    if DONE.fetch_add(1, SeqCst) == STOP_AT.load(SeqCst) {
        tell(News::Stopped(place));
        while !GO_ON.load(SeqCst) {
            thread::sleep(Duration::from_micros(100));
        }
    }
    VICTIM.set(true);
}

fn tell(news: News) {
    let teller = NEWS.lock().unwrap_or_else(PoisonError::into_inner);
    teller.as_ref().expect("a run is on").send(news).expect("the test listens");
}

/// From now on the running thread is stopped at its accesses.
fn armed<R>(f: impl FnOnce() -> R) -> R {
    VICTIM.set(true);
    let result = f();
    VICTIM.set(false);
    result
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It never got that far.
    Over,
    /// It was stopped, the others finished, and it went on.
    Passed(Place),
    /// It was stopped, and the others did not finish.
    Stuck(Place),
}

/// One run: `victim` stops before its access number `at`, then four `workers` have `patience` to finish.
fn run(
    at: usize,
    patience: Duration,
    victim: impl FnOnce() + Send,
    worker: impl Fn(usize) + Sync,
) -> End {
    let _running = running(format!("stopped before access {at}"));
    let (teller, news): (_, Receiver<News>) = channel();
    *NEWS.lock().unwrap_or_else(PoisonError::into_inner) = Some(teller);
    DONE.store(0, SeqCst);
    GO_ON.store(false, SeqCst);
    STOP_AT.store(at, SeqCst);
    let end = thread::scope(|scope| {
        let victim = scope.spawn(|| {
            victim();
            tell(News::Over);
        });
        let news = news.recv_timeout(PATIENCE).expect("the victim gets on alone");
        let end = match news {
            News::Over => End::Over,
            News::Stopped(place) => {
                let (teller, finished) = channel();
                for number in 0..WORKERS {
                    let (worker, teller) = (&worker, teller.clone());
                    scope.spawn(move || {
                        worker(number);
                        // Whoever waits for it may have given up.
                        let _ = teller.send(());
                    });
                }
                let all = (0..WORKERS).all(|_| finished.recv_timeout(patience).is_ok());
                if all { End::Passed(place) } else { End::Stuck(place) }
            }
        };
        GO_ON.store(true, SeqCst);
        victim.join().expect("the victim does not panic");
        end
    });
    STOP_AT.store(usize::MAX, SeqCst);
    end
}

fn every_access() -> bool {
    std::env::var("SPANDREL_STEPS").is_ok_and(|value| value == "all")
}

/// The first and the last access at each place, given where each of them is.
fn chosen(places: &[Place]) -> Vec<usize> {
    let mut ends = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        ends.entry(place).or_insert((at, at)).1 = at;
    }
    let mut chosen: Vec<_> = ends.into_values().flat_map(|(first, last)| [first, last]).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

// ---- the floors, in a building of its own for every run ----

/// A slow path: what the victim does before, and what it is stopped in.
struct Path {
    name: &'static str,
    before: &'static [Op],
    act: &'static [Op],
}

use fuzz::size::Size::{Granules, Hugepages, Mapping, Power};

const fn take(class: u8, count: u8) -> Op {
    Op::Take { class, count }
}

const fn give(count: u8) -> Op {
    Op::Give { which: 0, count }
}

const fn large(size: fuzz::size::Size, zeroed: bool) -> Op {
    Op::Large { size, align: 3, zeroed }
}

/// Every kind of work; what is left is given back by who does it.
const WORK: &[Op] = &[
    take(4, 129),
    take(20, 60),
    take(40, 9),
    large(Granules(3, 1), false),
    large(Hugepages(2, 2), true),
    give(90),
    Op::Resize { which: 0, size: Granules(9, 1) },
    Op::Flush,
    take(4, 129),
    Op::Tick,
    give(129),
    give(129),
    large(Mapping(3, 0), false),
    Op::Purge,
    take(49, 20),
    give(30),
    Op::Shed,
    Op::Retire,
    take(4, 10),
];

const PATHS: &[Path] = &[
    Path { name: "a thread's first object: cache, span, window", before: &[], act: &[take(4, 0)] },
    Path {
        name: "refill from the transfer cache",
        before: &[take(4, 129), take(4, 129), take(4, 129), give(255), give(100)],
        act: &[take(4, 129), take(4, 129)],
    },
    Path {
        // Whoever maps a chunk of nodes second cannot give it back, and the books must know.
        name: "spill while the system takes nothing back",
        before: &[
            take(4, 129),
            take(4, 129),
            take(4, 129),
            Op::Fail { kinds: 1 << Kind::Unmap as u8, skip: 0, count: 255 },
        ],
        act: &[give(255)],
    },
    Path {
        name: "refill from spans",
        before: &[take(4, 129), take(4, 129), take(4, 129), give(255), give(60), Op::Flush],
        act: &[take(4, 129)],
    },
    Path {
        name: "spill to the transfer cache, to the spans, and their end",
        before: &[take(40, 100), take(40, 100), take(30, 129)],
        act: &[give(255), give(255), Op::Flush],
    },
    Path {
        name: "large blocks: taken, resized, moved, given",
        before: &[],
        act: &[
            large(Granules(5, 1), false),
            Op::Resize { which: 0, size: Granules(9, 1) },
            Op::Resize { which: 0, size: Hugepages(3, 1) },
            large(Granules(2, 1), false),
            Op::Resize { which: 0, size: Hugepages(7, 0) },
            Op::Resize { which: 1, size: Mapping(1, 1) },
            Op::Resize { which: 1, size: Mapping(9, 1) },
            give(3),
        ],
    },
    Path {
        name: "zeroed blocks of used memory",
        before: &[large(Hugepages(3, 1), false), give(0)],
        act: &[large(Granules(6, 1), true), large(Hugepages(1, 1), true), give(1)],
    },
    Path {
        name: "purge and shed",
        before: &[take(20, 129), large(Granules(40, 1), false), give(100)],
        act: &[Op::Flush, Op::Purge, Op::Shed],
    },
    Path {
        name: "ticks",
        before: &[
            large(Hugepages(5, 1), false),
            take(4, 129),
            give(100),
            Op::Advance { ms: 60_000 },
        ],
        act: &[Op::Tick, take(7, 0), give(0)],
    },
    Path {
        name: "the end of a thread, and its cache adopted",
        before: &[take(4, 129), take(20, 100), give(200)],
        act: &[Op::Retire, take(4, 0)],
    },
    Path {
        name: "a dead thread's cache adopted",
        before: &[take(4, 129), give(100), Op::Die],
        act: &[take(4, 0)],
    },
    Path {
        name: "the last resorts before a refusal",
        before: &[
            Op::Longest { mib: 32 },
            take(4, 129),
            take(49, 20),
            give(20),
            // No more than is mapped already.
            Op::Limit { mib: 0 },
        ],
        act: &[take(49, 129), take(49, 129), large(Power(22, 1), false)],
    },
    Path {
        name: "at the hard limit",
        before: &[
            large(Hugepages(15, 1), false),
            take(20, 129),
            give(0),
            Op::Hard { mib: 24 },
            Op::Soft { mib: 8 },
        ],
        act: &[large(Hugepages(12, 1), false), large(Hugepages(1, 1), false), Op::Tick],
    },
];

#[test]
fn the_others_go_on() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    let (mut seen, mut runs) = (BTreeMap::new(), 0);
    for path in PATHS {
        let victim = |building: &Building| {
            let mut hand = Hand::new(building);
            path.before.iter().for_each(|&op| hand.step(op, false));
            armed(|| path.act.iter().for_each(|&op| hand.step(op, false)));
            hand.give_all();
            hand.retire();
        };
        let worker = |building: &Building| {
            let mut hand = Hand::new(building);
            WORK.iter().for_each(|&op| hand.step(op, false));
            hand.give_all();
            hand.retire();
        };
        *PLACES.lock().expect("no panic") = Some(Vec::new());
        let building = Building::new(Entry::Caches, 4096);
        assert_eq!(run(usize::MAX, PATIENCE, || victim(&building), |_| {}), End::Over);
        building.close();
        let places = PLACES.lock().expect("no panic").take().expect("just put there");
        let all = every_access();
        let chosen = if all { (0..places.len()).collect() } else { chosen(&places) };
        println!("{:4} of {:6} accesses: {}", chosen.len(), places.len(), path.name);
        assert!(places.len() > 5, "{}: the path is not slow", path.name);
        let mut stopped = 0;
        for &at in &chosen {
            let building = Building::new(Entry::Caches, 4096);
            match run(at, PATIENCE, || victim(&building), |_| worker(&building)) {
                End::Passed(_) => stopped += 1,
                // Where the kernel puts a mapping decides how much of it goes back, so that a path may be a few
                // accesses shorter this time.
                End::Over => {}
                stuck => panic!("{}, access {at}: {stuck:?}", path.name),
            }
            building.close();
        }
        assert!(stopped * 10 > chosen.len() * 9, "{}: {stopped} stops", path.name);
        runs += stopped;
        places.into_iter().for_each(|place| *seen.entry(place).or_insert(0) += 1);
    }
    println!("stopped {runs} times, at {} places in the source; nobody waited", seen.len());
}

// ---- the process-wide building, through both doors ----

/// Sizes of every way a block can come: small classes, large classes, runs, hugepages; and how many of each.
const SIZES: [usize; 7] = [8, 64, 700, 5000, 33 << 10, 300 << 10, 5 << 20];

fn count(size: usize, most: usize) -> usize {
    (20_000 / size).clamp(1, most)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid layout")
}

/// Writes to both ends.
fn mark(at: *mut u8, size: usize, tag: u8) {
    assert!(!at.is_null(), "{size} bytes were refused");
    // SAFETY: just handed out, for that size.
    unsafe {
        at.write(tag);
        at.add(size - 1).write(tag);
    }
}

/// Sees that nobody else did.
fn look(at: *mut u8, size: usize, tag: u8) {
    // SAFETY: held by the caller, for that size.
    assert_eq!(unsafe { (at.read(), at.add(size - 1).read()) }, (tag, tag));
}

/// Allocates, marks and frees a bit of everything, as Rust does: at most so many of a size.
fn rust_door(tag: u8, most: usize) {
    let mut held = Vec::with_capacity(500);
    // SAFETY: every block is used within its size and freed once with its own layout.
    unsafe {
        for round in 0..3 {
            for size in SIZES {
                for _ in 0..count(size, most) {
                    let at = match round {
                        0 => Spandrel.alloc_zeroed(layout(size)),
                        _ => Spandrel.alloc(layout(size)),
                    };
                    mark(at, size, tag);
                    held.push((at, size));
                }
            }
            for (at, size) in held.drain(..) {
                look(at, size, tag);
                Spandrel.dealloc(at, layout(size));
            }
        }
        spandrel::flush_current_thread();
        let at = Spandrel.alloc(layout(64));
        let at = Spandrel.realloc(at, layout(64), 200 << 10);
        Spandrel.dealloc(Spandrel.realloc(at, layout(200 << 10), 9 << 20), layout(9 << 20));
    }
    spandrel::purge();
}

/// The same as C does, through every function of malloc's family that allocates, resizes or frees.
fn c_door(tag: u8, most: usize) {
    let mut held = Vec::with_capacity(500);
    let aligned = |align, size| {
        let mut at = std::ptr::null_mut();
        // SAFETY: `at` may be written to.
        assert_eq!(unsafe { c::posix_memalign(&mut at, align, size) }, 0);
        at
    };
    // SAFETY: every block is used within its size and freed once, with what is said of it in the functions that
    // are told.
    unsafe {
        for round in 0..4 {
            for size in SIZES {
                for number in 0..count(size, most) {
                    let (align, at) = match (round, number % 3) {
                        (0, _) => (8, c::calloc(1, size)),
                        (1, 0) => (64, aligned(64, size)),
                        (1, 1) => (4096, c::memalign(4096, size)),
                        (1, _) => (512, c::aligned_alloc(512, size)),
                        (2, _) => (8, c::realloc(c::malloc(size / 2 + 1), size)),
                        _ => (8, c::malloc(size)),
                    };
                    mark(at.cast(), size, tag);
                    assert!(c::malloc_usable_size(at) >= size);
                    held.push((at, size, align));
                }
            }
            for (number, (at, size, align)) in held.drain(..).enumerate() {
                look(at.cast(), size, tag);
                match (round, number % 4) {
                    (0, 0) => c::free_sized(at, size),
                    (1, 0) => c::free_aligned_sized(at, align, size),
                    (_, 1) => c::sdallocx(at, size, 0),
                    (_, 2) => assert!(c::realloc(at, 0).is_null()),
                    _ => c::free(at),
                }
            }
        }
        // At alignments above a hugepage, and a block that moves from object to run to hugepages to a mapping.
        c::free(aligned(4 << 20, 3 << 20));
        let mut at = c::malloc(40);
        for size in [5000, 200 << 10, 9 << 20, 140 << 20, 3 << 20, 100] {
            at = c::realloc(at, size);
            mark(at.cast(), size, tag);
        }
        c::free(at);
        c::malloc_trim(0);
    }
    spandrel::flush_current_thread();
}

/// A thread's whole life is stopped at its accesses, its end included, while others do `work`.
fn lives(name: &str, all: bool, life: impl Fn(u8) + Sync, work: impl Fn(u8) + Sync) {
    let life = || {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                VICTIM.set(true);
                life(1);
            });
            // Until it is gone: a scope alone would return before its last instructions.
            thread.join().expect("it does not panic");
        });
        let _ = spandrel::stats();
    };
    *PLACES.lock().expect("no panic") = Some(Vec::new());
    assert_eq!(run(usize::MAX, PATIENCE, life, |_| {}), End::Over);
    let places = PLACES.lock().expect("no panic").take().expect("just put there");
    let chosen = if all { (0..places.len()).collect() } else { chosen(&places) };
    let mut stopped = 0;
    for &at in &chosen {
        // What the process did before decides how long the path is this time.
        match run(at, PATIENCE, life, |number| work(number as u8)) {
            End::Passed(_) => stopped += 1,
            End::Over => {}
            stuck => panic!("{name}, access {at} of {}: {stuck:?}", places.len()),
        }
    }
    let different: std::collections::BTreeSet<_> = places.iter().collect();
    println!(
        "{name}: stopped {stopped} times in {} accesses at {} places of a thread's life",
        places.len(),
        different.len()
    );
    assert!(stopped * 2 > chosen.len());
}

fn nothing_is_left() {
    let stats = spandrel::stats();
    assert_eq!((stats.accounted(), stats.live), (stats.mapped, 0), "{stats}");
}

#[test]
fn the_others_go_on_in_a_whole_process() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    lives("Rust door", every_access(), |tag| rust_door(tag, 60), |tag| rust_door(tag, 60));
    nothing_is_left();
}

#[test]
fn the_others_go_on_behind_the_c_door() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    lives("C door", every_access(), |tag| c_door(tag, 60), |tag| c_door(tag, 60));
    nothing_is_left();
}

/// Every call comes the slow way, is shown to who watches, and freed blocks are kept back. What watches has atomics of
/// its own that do not tell, so this sees the floors below it, and the bins, in that mode.
#[test]
fn the_others_go_on_while_calls_are_observed() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    spandrel::check(Check::On);
    spandrel::watch_leaks(true);
    profile::start(64 << 10).expect("there is room for its tables");
    let work = |tag| {
        rust_door(tag, 3);
        c_door(tag, 3);
    };
    lives("observed", false, work, work);
    profile::stop();
    spandrel::watch_leaks(false);
    spandrel::check(Check::Off);
    nothing_is_left();
}

/// Checked mode is switched on and off by all, and who is stopped goes on in another mode than it was stopped in.
#[test]
fn the_others_go_on_while_modes_change() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    let work = |tag| {
        rust_door(tag, 1);
        c_door(tag, 1);
    };
    let switches = |tag| {
        spandrel::check(Check::Off);
        work(tag);
        spandrel::check(Check::On);
        work(tag);
        if tag % 2 == 0 {
            spandrel::check(Check::Off);
        }
    };
    lives("modes", false, switches, switches);
    // What a thread freed while another one switched off is kept back still.
    spandrel::check(Check::Off);
    nothing_is_left();
}

/// A call begins while nobody watches, and comes upon a block that others have freed since, watched: the free of that
/// block is none of one that is free.
#[test]
fn who_began_unseen_gets_a_block_that_was_freed_seen() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    let long = layout(9 << 20);
    // SAFETY: used within its size, if at all, and freed once with its own layout.
    unsafe {
        for take in [Spandrel::alloc, Spandrel::alloc_zeroed, by_resizing] {
            for at in 0.. {
                let victim = || {
                    let block = armed(|| take(&Spandrel, long));
                    Spandrel.dealloc(block, long);
                };
                let worker = |_| {
                    spandrel::watch_leaks(true);
                    Spandrel.dealloc(Spandrel.alloc(long), long);
                    spandrel::check(Check::On);
                };
                let end = run(at, PATIENCE, victim, worker);
                spandrel::check(Check::Off);
                spandrel::watch_leaks(false);
                if end == End::Over {
                    assert!(at > 5, "the call has accesses");
                    break;
                }
                assert!(matches!(end, End::Passed(_)), "{end:?}");
            }
        }
    }
    nothing_is_left();
}

/// A block that others have, but for its pages.
unsafe fn by_resizing(_: &Spandrel, long: Layout) -> *mut u8 {
    // SAFETY: the block is this function's.
    unsafe { Spandrel.realloc(Spandrel.alloc(layout(5 << 20)), layout(5 << 20), long.size()) }
}

/// A lock is what this test is there to find: with one in the way, the others do not finish.
#[test]
fn a_lock_is_seen() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    let lock = AtomicU32::new(0);
    let locked = || {
        while lock.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
            thread::yield_now();
        }
        lock.store(0, SeqCst);
    };
    let run = |at| run(at, Duration::from_millis(300), || armed(locked), |_| locked());
    assert!(matches!(run(0), End::Passed(_)), "before it is taken");
    assert!(matches!(run(1), End::Stuck(_)), "while it is held");
    assert_eq!(run(2), End::Over);
}
