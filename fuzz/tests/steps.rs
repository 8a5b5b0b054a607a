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
use spandrel::Spandrel;
use spandrel::base::steps::set_hook;
use spandrel::base::sync::{AtomicU32, Ordering::SeqCst};
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

/// Which accesses of a path to stop at, given where each of them is.
fn chosen(places: &[Place]) -> Vec<usize> {
    if std::env::var("SPANDREL_STEPS").is_ok_and(|value| value == "all") {
        return (0..places.len()).collect();
    }
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
    let (mut all, mut runs) = (BTreeMap::new(), 0);
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
        let chosen = chosen(&places);
        println!("{:4} of {:6} accesses: {}", chosen.len(), places.len(), path.name);
        assert!(places.len() > 5, "{}: the path is not slow", path.name);
        for &at in &chosen {
            let building = Building::new(Entry::Caches, 4096);
            let end = run(at, PATIENCE, || victim(&building), |_| worker(&building));
            assert_eq!(end, End::Passed(places[at]), "{}, access {at}", path.name);
            building.close();
        }
        runs += chosen.len();
        places.into_iter().for_each(|place| *all.entry(place).or_insert(0) += 1);
    }
    println!("stopped {runs} times, at {} places in the source; nobody waited", all.len());
}

// ---- the process-wide building, through the Rust door ----

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid layout")
}

/// Allocates, marks and frees a bit of everything.
fn door(tag: u8) {
    const SIZES: [usize; 7] = [8, 64, 700, 5000, 33 << 10, 300 << 10, 5 << 20];
    let mut held = Vec::with_capacity(500);
    // SAFETY: every block is used within its size and freed once with its own layout.
    unsafe {
        for round in 0..3 {
            for size in SIZES {
                for _ in 0..(20_000 / size).clamp(1, 60) {
                    let at = match round {
                        0 => Spandrel.alloc_zeroed(layout(size)),
                        _ => Spandrel.alloc(layout(size)),
                    };
                    assert!(!at.is_null());
                    at.write(tag);
                    at.add(size - 1).write(tag);
                    held.push((at, size));
                }
            }
            for (at, size) in held.drain(..) {
                assert_eq!((at.read(), at.add(size - 1).read()), (tag, tag));
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

#[test]
fn the_others_go_on_in_a_whole_process() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    // A thread's whole life, its end included: armed until it is gone.
    let life = || {
        let thread = thread::spawn(|| {
            VICTIM.set(true);
            door(1);
        });
        thread.join().expect("it does not panic");
        drop(spandrel::stats());
    };
    *PLACES.lock().expect("no panic") = Some(Vec::new());
    assert_eq!(run(usize::MAX, PATIENCE, life, |_| {}), End::Over);
    let places = PLACES.lock().expect("no panic").take().expect("just put there");
    let chosen = chosen(&places);
    let mut stopped = 0;
    for &at in &chosen {
        // What the process did before decides how long the path is this time.
        match run(at, PATIENCE, life, |number| door(number as u8)) {
            End::Passed(_) => stopped += 1,
            End::Over => {}
            stuck => panic!("access {at} of {}: {stuck:?}", places.len()),
        }
    }
    println!("stopped {stopped} times in {} accesses of a thread's life", places.len());
    assert!(stopped * 2 > chosen.len());
    let stats = spandrel::stats();
    assert_eq!((stats.accounted(), stats.live), (stats.mapped, 0), "{stats}");
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
