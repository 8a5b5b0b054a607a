//! Threads that come and go, and what their last breath may do: allocate and free, in destructors
//! of every kind and in every order.

mod common;

use common::{Block, KIB, MIB, Rng, alone, resident, rng};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// One short life: some blocks of many classes, some of them handed to those who come later.
fn life(seed: u64, orphans: &Mutex<Vec<Block>>) {
    let mut rng = Rng::new(seed);
    let mut held: Vec<_> = (0..30).map(|_| Block::must(rng.size(4 * KIB), 8, rng.next())).collect();
    if rng.once_in(20) {
        held.push(Block::must(rng.size(MIB), 8, rng.next()));
    }
    let mut orphans = orphans.lock().expect("no panic");
    for _ in 0..10 {
        orphans.push(held.swap_remove(rng.below(held.len())));
    }
    // As many as came, on average, so that their number stays where it is.
    for _ in 0..10 {
        if orphans.len() > 500 {
            let at = rng.below(orphans.len());
            drop(orphans.swap_remove(at));
        }
    }
}

/// 10,000 threads, never more than 25 at a time: what they leave behind serves those who come.
#[test]
fn ten_thousand_threads_born_and_gone() {
    let _alone = alone();
    static ORPHANS: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let mut early = None;
    for generation in 0..400u64 {
        let threads: Vec<_> = (0..25)
            .map(|me| thread::spawn(move || life(rng::seed() ^ (generation * 25 + me), &ORPHANS)))
            .collect();
        // A join waits for the whole end of a thread, its destructors included.
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        if generation == 20 {
            early = Some((spandrel::stats(), resident()));
        }
    }
    let (early, resident_early) = early.expect("generation 20 came");
    let (late, resident_late) = (spandrel::stats(), resident());
    // A cache more where 25 did not meet before, a few nodes more; 9,500 caches would be a gibibyte.
    let mapped = late.mapped.saturating_sub(early.mapped);
    assert!(mapped <= 4 * MIB, "{mapped} bytes mapped\nearly\n{early}\nlate\n{late}");
    assert!(late.floors.caches <= 25 + 10, "{} caches for 25 threads", late.floors.caches);
    assert!(late.floors.caches - late.floors.idle_caches <= 10, "the dead hold caches");
    let grown = resident_late.saturating_sub(resident_early);
    assert!(grown < 48 * MIB, "{grown} bytes grown\nearly\n{early}\nlate\n{late}");
    let live = late.live.saturating_sub(early.live);
    assert!(live < 2 * MIB, "{live} bytes lost\nearly\n{early}\nlate\n{late}");
}

/// Threads that nobody joins, and threads that end by a panic.
#[test]
fn detached_and_panicking_threads() {
    let _alone = alone();
    static DONE: AtomicUsize = AtomicUsize::new(0);
    static ORPHANS: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    std::panic::set_hook(Box::new(|_| {}));
    for i in 0..300u64 {
        thread::spawn(move || {
            life(i, &ORPHANS);
            DONE.fetch_add(1, Relaxed);
        });
        let dies = thread::spawn(move || {
            let held = Block::must(1000, 8, i);
            std::panic::panic_any(held.addr());
        });
        assert!(dies.join().is_err());
    }
    while DONE.load(Relaxed) < 300 {
        thread::yield_now();
    }
    drop(std::panic::take_hook());
    ORPHANS.lock().expect("no panic").clear();
}

// ---- destructors ----

/// What every destructor does: checks and frees what its thread gave it, works, and leaves blocks
/// for the test to check after the thread is gone.
fn last_breath(held: Option<Block>) {
    drop(held);
    let mut rng = Rng::new(BREATHS.fetch_add(1, Relaxed) as u64);
    let mut blocks: Vec<_> =
        (0..40).map(|_| Block::must(rng.size(2 * KIB), 8, rng.next())).collect();
    assert!(blocks[0].resize(100 * KIB) && blocks[1].resize(1));
    blocks.truncate(20);
    LEFT.lock().expect("no panic").push(blocks.pop().expect("one of twenty"));
}

static BREATHS: AtomicUsize = AtomicUsize::new(0);
static LEFT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A Rust thread-local with a destructor.
struct OnExit(RefCell<Option<Block>>);

impl Drop for OnExit {
    fn drop(&mut self) {
        last_breath(self.0.borrow_mut().take());
    }
}

thread_local! {
    static LAZY: OnExit = OnExit(RefCell::new(Some(Block::must(200, 8, 1))));
    static CONST: OnExit = const { OnExit(RefCell::new(None)) };
    static PLAIN: Cell<u64> = const { Cell::new(7) };
}

/// A pthread key that is older than the allocator's own: made before `main`, before anything was
/// allocated, so that its destructors run before the allocator's in every round.
static EARLY: AtomicU32 = AtomicU32::new(0);
/// One that is younger, whose destructors run after it, also in the last round.
static LATE: AtomicU32 = AtomicU32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn make() {
        make_key(&EARLY);
    }
    make
};

fn make_key(key: &AtomicU32) {
    let mut made = 0;
    // SAFETY: `made` is writable and the destructor lives as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&mut made, Some(key_destructor)) }, 0);
    key.store(made + 1, Relaxed);
}

/// The value of a key: which one, how many rounds to come, and a block to free in the last.
struct Will {
    key: u32,
    rounds: u32,
    block: Block,
}

fn make_will(key: &AtomicU32, rounds: u32) {
    let key = key.load(Relaxed) - 1;
    let will = Box::new(Will { key, rounds, block: Block::must(300, 8, 2) });
    // SAFETY: the key exists; the destructor takes the box back.
    assert_eq!(unsafe { libc::pthread_setspecific(key, Box::into_raw(will).cast()) }, 0);
}

unsafe extern "C" fn key_destructor(will: *mut c_void) {
    // SAFETY: the value is the box that `make_will` or the round before stored.
    let mut will = unsafe { Box::from_raw(will.cast::<Will>()) };
    will.block.check();
    will.rounds -= 1;
    if will.rounds == 0 {
        return last_breath(Some(will.block));
    }
    last_breath(None);
    // Moved to another allocation each round, so that a box outlives the cache it came from.
    let again = Box::new(Will { key: will.key, rounds: will.rounds, block: will.block });
    // SAFETY: as in `make_will`.
    assert_eq!(unsafe { libc::pthread_setspecific(again.key, Box::into_raw(again).cast()) }, 0);
}

/// What a thread may set up in its life, in some order.
#[derive(Clone, Copy, Debug)]
enum Setup {
    LazyLocal,
    ConstLocal,
    EarlyKey,
    LateKey,
    Allocate,
}

const SETUPS: [Setup; 5] =
    [Setup::LazyLocal, Setup::ConstLocal, Setup::EarlyKey, Setup::LateKey, Setup::Allocate];

fn set_up(setup: Setup, rounds: u32) {
    match setup {
        Setup::LazyLocal => LAZY.with(|local| assert!(local.0.borrow().is_some())),
        Setup::ConstLocal => CONST.with(|local| {
            *local.0.borrow_mut() = Some(Block::must(5000, 64, 3));
        }),
        Setup::EarlyKey => make_will(&EARLY, rounds),
        Setup::LateKey => make_will(&LATE, rounds),
        Setup::Allocate => drop(Block::must(100, 8, 4)),
    }
    PLAIN.set(PLAIN.get() + 1);
}

/// All orders of `items`.
fn permutations<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for (i, &first) in items.iter().enumerate() {
        let rest: Vec<T> = [&items[..i], &items[i + 1..]].concat();
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, first);
            tail
        }));
    }
    all
}

/// A thread that C made: nothing of Rust's runtime has allocated on it before its own code does.
fn bare_thread(setups: &[Setup], rounds: u32) {
    struct Order<'a>(&'a [Setup], u32);
    extern "C" fn run(order: *mut c_void) -> *mut c_void {
        // SAFETY: the parent waits in `pthread_join` until this thread is gone.
        let order = unsafe { &*order.cast::<Order<'_>>() };
        for &setup in order.0 {
            set_up(setup, order.1);
        }
        ptr::null_mut()
    }
    let mut order = Order(setups, rounds);
    // SAFETY: zero is overwritten by pthread_create.
    let mut thread: libc::pthread_t = unsafe { std::mem::zeroed() };
    // SAFETY: `order` outlives the thread, which is joined here and gone afterwards.
    unsafe {
        let made = libc::pthread_create(&mut thread, ptr::null(), run, (&raw mut order).cast());
        assert_eq!(made, 0);
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
    }
}

/// Destructors that allocate and free, set up in each of 120 orders, with keys that come back for
/// one to four rounds, on threads of Rust's and of C's making.
#[test]
fn destructors_allocate_and_free_in_every_order() {
    let _alone = alone();
    make_key(&LATE);
    let before = spandrel::stats();
    let all = permutations(&SETUPS);
    assert_eq!(all.len(), 120);
    let mut most = 0;
    for (i, order) in all.iter().enumerate() {
        let rounds = 1 + i as u32 % 4;
        bare_thread(order, rounds);
        let order = order.clone();
        thread::spawn(move || order.iter().for_each(|&setup| set_up(setup, rounds)))
            .join()
            .expect("no panic");
        most = most.max(spandrel::stats().floors.caches);
        // What they left is whole after they are gone.
        LEFT.lock().expect("no panic").drain(..).for_each(drop);
    }
    // Per thread: two locals, and two keys for `rounds` rounds each.
    let breaths: usize = (0..120).map(|i| 2 * (2 + 2 * (1 + i % 4))).sum();
    assert_eq!(BREATHS.load(Relaxed), breaths, "every destructor ran");
    let after = spandrel::stats();
    assert!(most <= before.floors.caches + 2, "{most} caches for one thread at a time");
    // The harness may have begun another test's thread, no more.
    assert!(busy(&after) <= busy(&before) + 2, "{} caches were lost", busy(&after));
    let lost = after.live.saturating_sub(before.live);
    assert!(lost < 128 * KIB, "{lost} bytes lost\nbefore\n{before}\nafter\n{after}");
}

fn busy(stats: &spandrel::Stats) -> usize {
    stats.floors.caches - stats.floors.idle_caches
}

/// What a thread freed is not lost with it: the next one, or the snapshot, finds all of it.
#[test]
fn what_a_thread_kept_goes_on() {
    let _alone = alone();
    let before = spandrel::stats();
    for i in 0..800u64 {
        let kept = thread::spawn(move || {
            let mut rng = Rng::new(i);
            let blocks: Vec<_> = (0..100).map(|_| Block::must(rng.size(8 * KIB), 8, i)).collect();
            drop(blocks);
        });
        kept.join().expect("no panic");
    }
    let after = spandrel::stats();
    let lost = after.live.saturating_sub(before.live);
    assert!(lost < 64 * KIB, "{lost} bytes lost\nbefore\n{before}\nafter\n{after}");
    // One thread at a time needs a handful of caches, whatever it leaves in the idle ones.
    assert!(after.floors.caches <= before.floors.caches + 2);
}

/// What ended threads left in their caches goes back with `purge`.
#[test]
fn purge_empties_the_caches_of_ended_threads() {
    const THREADS: usize = 16;
    let _alone = alone();
    let all = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS as u64)
        .map(|me| {
            let all = Arc::clone(&all);
            thread::spawn(move || {
                let mut rng = Rng::new(me);
                let blocks: Vec<_> =
                    (0..300).map(|_| Block::must(rng.size(8 * KIB), 8, me)).collect();
                all.wait();
                drop(blocks);
            })
        })
        .collect();
    // To their very end: a scope would wait for the closures only.
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    spandrel::purge();
    let stats = spandrel::stats();
    assert!(stats.in_transfer == 0 && stats.cached < 128 * KIB, "{stats}");
    assert!(stats.free_granules < 4 * MIB, "{stats}");
}
