//! The heap profile: one byte in so many is looked at, and what block it lies in is remembered.
//!
//! Each thread counts down the bytes it asks for; the distance to the next byte that is looked at is
//! drawn from an exponential distribution, so that every byte has the same chance, whatever the program's
//! rhythm (a Poisson process). A block of `s` bytes is met with probability `1 - exp(-s/interval)`, and
//! stands for the inverse of that many blocks: sums over samples are unbiased. With an interval of 1
//! every block is met and stands for itself. While nobody else watches, it is decided of objects in the bins,
//! before anyone asks for them, which will be met ([`draw_among`]); the bytes are their class's then.
//!
//! A sampled block goes into a table by its address until it is freed, and into the sums of its *site*:
//! the stack and the tag it was allocated under. A free asks a filter of counters first, of which
//! a program touches little at a time, so a block that was not sampled costs a load and a comparison. Every
//! table is bounded; what finds no room is counted, not silently lost.
//!
//! All words here are sums and guesses for a report. They order nothing but a key's own row, and a reader
//! sees other threads' samples in progress as there or not there.

use super::chance;
use super::stacks::{self, depot::StackId};
use crate::cache::beside::Beside;
use crate::cache::{ThreadCache, slot};
use crate::os::linux::Linux;
use crate::os::{Os, Zeroed};
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use crossbeam_utils::CachePadded;

/// Bytes between two samples unless the program says otherwise.
pub const INTERVAL: usize = 512 << 10;

/// Counts of blocks are kept in parts of so many, because a sample stands for a fraction too.
pub const PART: u64 = 1024;

/// Rows of the table of live samples, and how many of them a block may be in.
const ROWS: usize = 1 << 17;
const REACH: usize = 16;

/// Sites, and slots that lead to them.
const SITES: usize = 1 << 15;
const SLOTS: usize = 1 << 17;
const SLOT_REACH: usize = 64;

/// Spans of life that are told apart: the first is shorter than [`SHORTEST`] nanoseconds, each is ten times as
/// long as the one before it, and the last has no end.
pub const LIVES: usize = 9;
pub const SHORTEST: u64 = 10_000;

/// The copy of all sites that is the peak is renewed when the heap has outgrown it by one part in this.
const PEAK_STEP: u64 = 64;

/// A block that was sampled and not freed yet.
#[derive(Debug)]
struct Row {
    size: AtomicUsize,
    /// What it stands for: blocks in [`PART`]s, and bytes.
    blocks: AtomicU64,
    bytes: AtomicU64,
    born: AtomicU64,
    site: AtomicU32,
    run: AtomicU32,
}

/// What was seen of one stack under one tag; weighted, so that it speaks of all blocks.
#[derive(Debug)]
struct Place {
    /// The stack in the lower half, the tag above it.
    key: AtomicU64,
    allocated: [AtomicU64; 2],
    freed: [AtomicU64; 2],
    peak: [AtomicU64; 2],
    /// Of the freed blocks, by [`span_of_life`]: how many, and the nanoseconds that they lived, times blocks.
    lived: [[AtomicU64; 2]; LIVES],
}

#[derive(Debug)]
struct Tables {
    /// Addresses of sampled blocks: 0 is free, 1 taken by someone who writes the row.
    keys: [AtomicUsize; ROWS],
    rows: [Row; ROWS],
    /// Numbers of sites, plus one.
    slots: [AtomicU32; SLOTS],
    sites: [Place; SITES],
}

// SAFETY: atomics are zero when their bytes are.
unsafe impl Zeroed for Tables {}

const BUSY: usize = 1;

/// Its own, so that what the floors account for stays what they mapped.
static SYSTEM: Linux = Linux::new();
/// Null until a profile is started. Any thread.
static TABLES: AtomicPtr<Tables> = AtomicPtr::new(ptr::null_mut());
/// How many live samples begin in a 4 KiB page with this number, modulo 256 MiB; a counter that is full
/// stays so. By pages, so that neighbours ask the same line of the first-level cache.
static FILTER: [AtomicU8; 1 << 16] = [const { AtomicU8::new(0) }; 1 << 16];
const PAGE_SHIFT: u32 = 12;
static INTERVAL_NOW: AtomicU64 = AtomicU64::new(INTERVAL as u64);
/// Bytes that a bin keeps at most before it is drawn again: a part of the interval, and a count of them is small.
static WINDOW: AtomicU64 = AtomicU64::new(0);
/// What a byte's chance is at most, in parts of 2^64.
static SCALE: AtomicU64 = AtomicU64::new(0);
/// Counts the starts; samples of earlier runs do not count. Read often, so what samples write lies
/// elsewhere.
static RUN: CachePadded<AtomicU32> = CachePadded::new(AtomicU32::new(0));
/// Sites in use.
static USED: AtomicU32 = AtomicU32::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// Weighted bytes in use, and what they were when the peak was last copied.
static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);
static COPYING: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static SAMPLES: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds on the monotonic clock: when the run began, and when it ended (0: it goes on).
static BEGAN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

fn tables() -> Option<&'static Tables> {
    // SAFETY: null, or tables that are never unmapped.
    unsafe { TABLES.load(Acquire).as_ref() }
}

/// Forgets what was sampled and samples from now on, every `interval` bytes on average. The caller switches
/// the mode on afterwards, and keeps two starts apart. `false`: there is no room for the tables.
pub fn begin(interval: usize) -> bool {
    if tables().is_none() {
        let Some(fresh) = SYSTEM.metadata::<Tables>() else { return false };
        if TABLES.compare_exchange(ptr::null_mut(), fresh.as_ptr(), AcqRel, Acquire).is_err() {
            let bytes = crate::os::metadata_bytes::<Tables>(SYSTEM.page_size());
            // SAFETY: the race is lost, so no other thread has seen these.
            unsafe { SYSTEM.unmap(fresh.cast(), bytes) };
        }
    }
    let Some(tables) = tables() else { return false };
    RUN.fetch_add(1, Relaxed);
    // Samples of the last run that other threads still write are of that run, and do not count.
    for key in &tables.keys {
        if key.load(Relaxed) != 0 {
            key.store(0, Relaxed);
        }
    }
    FILTER.iter().filter(|n| n.load(Relaxed) != 0).for_each(|n| n.store(0, Relaxed));
    tables.slots.iter().filter(|slot| slot.load(Relaxed) != 0).for_each(|s| s.store(0, Relaxed));
    for site in &tables.sites[..SITES.min(USED.load(Relaxed) as usize)] {
        for sum in site.allocated.iter().chain(&site.freed).chain(&site.peak) {
            sum.store(0, Relaxed);
        }
        site.lived.iter().flatten().for_each(|sum| sum.store(0, Relaxed));
    }
    USED.store(0, Relaxed);
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    DROPPED.store(0, Relaxed);
    SAMPLES.store(0, Relaxed);
    INTERVAL_NOW.store(interval.max(1) as u64, Relaxed);
    WINDOW.store((interval / 32).min(1 << 24) as u64, Relaxed);
    SCALE.store((u64::MAX / interval.max(1) as u64).saturating_add(1), Relaxed);
    BEGAN.store(now(), Relaxed);
    ENDED.store(0, Relaxed);
    true
}

/// The mode was switched off: what was sampled stays as it is.
pub fn end() {
    ENDED.store(now(), Relaxed);
}

/// Where the tables lie, and how many bytes they have.
pub(super) fn each_record(mut see: impl FnMut(usize, usize)) {
    let tables = TABLES.load(Relaxed);
    if !tables.is_null() {
        see(tables.addr(), size_of::<Tables>());
    }
}

/// A block was handed out to the running thread.
pub fn see(at: usize, size: usize) {
    /// Of threads that have no cache.
    static NOBODY: Beside = Beside::new();
    let thread = slot::existing().map_or(&NOBODY, ThreadCache::beside);
    let another_run = thread.run.load(Relaxed) != RUN.load(Relaxed);
    if (count_down(thread, size) || another_run) && reached(thread, size) {
        born(at, size, size, thread.tag.load(Relaxed));
    }
}

/// More than any distance that is drawn.
const QUIET: i64 = i64::MAX / 2;

/// While this lives, what the running thread allocates is not sampled: it is the report's own.
#[derive(Debug)]
pub struct Quiet {
    left: i64,
    /// A thread's own.
    here: PhantomData<*const ()>,
}

impl Quiet {
    /// From here on.
    pub fn begin() -> Self {
        let left = slot::existing().map_or(0, |cache| {
            let thread = cache.beside();
            begins_run(thread);
            let left = thread.left.load(Relaxed);
            // No program asks for so much that this falls below `QUIET`.
            thread.left.store(i64::MAX, Relaxed);
            left
        });
        Self { left, here: PhantomData }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(cache) = slot::existing() {
            cache.beside().left.store(self.left, Relaxed);
        }
    }
}

/// Takes bytes off what is left to the next one that is looked at; whether it has come, or may have. Then
/// [`reached`] knows.
#[inline(always)]
fn count_down(thread: &Beside, bytes: usize) -> bool {
    thread.left.store(thread.left.load(Relaxed).wrapping_sub(bytes as i64), Relaxed);
    // Loaded again, so that the compiler may subtract in memory: only the owner stores.
    thread.left.load(Relaxed) < 0
}

/// So many bytes have been [counted down](count_down): whether one of them is looked at. If so, or if what was
/// left is of another run, the next distance is drawn.
#[cold]
#[inline(never)]
fn reached(thread: &Beside, bytes: usize) -> bool {
    if begins_run(thread) {
        let left = thread.left.load(Relaxed).wrapping_sub(bytes as i64);
        thread.left.store(left, Relaxed);
    }
    let met = thread.left.load(Relaxed) < 0;
    if met {
        // The distances do not remember where they began: from the end of this block on is as good.
        thread.left.store(distance(thread), Relaxed);
    }
    met
}

/// If what the thread has left is of another run, it is drawn anew.
#[cold]
#[inline(never)]
fn begins_run(thread: &Beside) -> bool {
    let run = RUN.load(Relaxed);
    let another = thread.run.load(Relaxed) != run;
    if another {
        thread.run.store(run, Relaxed);
        let seed = RANDOM.fetch_add(STRIDE, Relaxed) ^ (&raw const RANDOM).addr() as u64;
        thread.random.store(mixed(seed), Relaxed);
        thread.left.store(distance(thread), Relaxed);
    }
    another
}

/// What was drawn of the objects that a bin will keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// So many will not be met.
    pub objects: usize,
    /// The one after them will, or nothing is decided of it.
    pub then_one: bool,
}

/// Which of `held` objects of `size` bytes in a bin, and of those that it will keep next, will be met when they are
/// handed out: each with its chance, whatever happens to the others. Answers how many of those it holds lie up to
/// and with the hottest of them; which of those below it will be is drawn when it is gone, as nothing has come to
/// depend on it.
#[inline(always)]
pub fn draw_among(thread: &Beside, held: usize, size: usize) -> (usize, Ahead) {
    if thread.run.load(Relaxed) != RUN.load(Relaxed) {
        begins_run(thread);
    }
    // As many as are seldom met, so that the logarithm is seldom needed: the draw is at least so far from 1.
    let most = (WINDOW.load(Relaxed) as usize / size).max(1);
    let random = random(thread);
    if is_none(random, held + most, size) {
        return (0, Ahead { objects: most, then_one: false });
    }
    draw_exactly(thread, random, held, most, size)
}

/// Whether a draw is so small that for certain none of so many objects will be met.
#[inline(always)]
fn is_none(random: u64, objects: usize, size: usize) -> bool {
    !random > ((objects * size) as u64).saturating_mul(SCALE.load(Relaxed))
}

#[cold]
#[inline(never)]
fn draw_exactly(
    thread: &Beside,
    first: u64,
    held: usize,
    most: usize,
    size: usize,
) -> (usize, Ahead) {
    let interval = INTERVAL_NOW.load(Relaxed);
    if interval == 1 {
        return (held, Ahead { objects: 0, then_one: true });
    }
    let before = |random| distance_of(fraction(random), interval) as usize / size;
    let first = before(first);
    let next = if first < held { before(random(thread)) } else { first - held };
    (held.saturating_sub(first), Ahead { objects: next.min(most), then_one: next < most })
}

/// An object that was [drawn](draw_among) is handed out for `size` bytes; its class has objects of `class` bytes.
pub fn drawn(thread: &Beside, at: usize, size: usize, class: usize) {
    // The report's own are left out.
    if thread.left.load(Relaxed) < QUIET {
        born(at, size, class, thread.tag.load(Relaxed));
    }
}

/// Bytes to the next one that is looked at.
fn distance(thread: &Beside) -> i64 {
    match INTERVAL_NOW.load(Relaxed) {
        1 => -1,
        interval => distance_of(fraction(random(thread)), interval),
    }
}

fn distance_of(uniform: f64, interval: u64) -> i64 {
    (-chance::ln(uniform) * interval as f64) as i64
}

/// Above 0 and at most 1, so its logarithm is finite.
fn fraction(random: u64) -> f64 {
    ((random >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn random(thread: &Beside) -> u64 {
    let state = thread.random.load(Relaxed).wrapping_add(STRIDE);
    thread.random.store(state, Relaxed);
    mixed(state)
}

/// Steps of a Weyl sequence, which [`mixed`] makes random numbers of (splitmix64: Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014).
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mixed(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// What one sampled block of `size` bytes, of which so many were `looked` at, stands for: blocks in [`PART`]s,
/// and bytes.
fn weight(size: usize, looked: usize, interval: u64) -> (u64, u64) {
    let looked = looked.max(1) as f64;
    let met = if interval == 1 { 1.0 } else { chance::within(looked / interval as f64) };
    ((PART as f64 / met) as u64, (size.max(1) as f64 / met) as u64)
}

fn hash(at: usize) -> usize {
    ((at as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

fn counter(at: usize) -> &'static AtomicU8 {
    &FILTER[(at >> PAGE_SHIFT) % FILTER.len()]
}

/// A sampled block was handed out, of which so many bytes were `looked` at.
fn born(at: usize, size: usize, looked: usize, tag: u16) {
    let Some(tables) = tables() else { return };
    let (blocks, bytes) = weight(size, looked, INTERVAL_NOW.load(Relaxed));
    let run = RUN.load(Relaxed);
    SAMPLES.fetch_add(1, Relaxed);
    let Some(site) = site(tables, stacks::capture(), tag) else {
        DROPPED.fetch_add(1, Relaxed);
        return;
    };
    let place = &tables.sites[site as usize];
    add(&place.allocated, blocks, bytes);
    if !remember(tables, at, size, blocks, bytes, site, run) {
        // Without a row its free will not be seen: as if it were freed at once.
        add(&place.freed, blocks, bytes);
        DROPPED.fetch_add(1, Relaxed);
        return;
    }
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    let peak = PEAK.load(Relaxed);
    if live > peak + peak / PEAK_STEP {
        copy_peak(tables, live);
    }
}

fn remember(
    tables: &Tables,
    at: usize,
    size: usize,
    blocks: u64,
    bytes: u64,
    site: u32,
    run: u32,
) -> bool {
    for step in 0..REACH {
        let n = (hash(at) + step) % ROWS;
        let key = &tables.keys[n];
        if key.load(Relaxed) != 0 || key.compare_exchange(0, BUSY, Acquire, Relaxed).is_err() {
            continue;
        }
        let row = &tables.rows[n];
        row.size.store(size, Relaxed);
        row.blocks.store(blocks, Relaxed);
        row.bytes.store(bytes, Relaxed);
        row.born.store(now(), Relaxed);
        row.site.store(site, Relaxed);
        row.run.store(run, Relaxed);
        let _ = counter(at).fetch_update(Relaxed, Relaxed, |n| n.checked_add(1));
        key.store(at, Release);
        return true;
    }
    false
}

/// Whether the block at `at` may have been sampled; if not, [`dying`] need not be told.
#[inline(always)]
pub fn maybe(at: usize) -> bool {
    // As a volatile byte, which the compiler compares in memory; it does not with an atomic one.
    // SAFETY: a byte of a static, which is always read and written whole.
    (unsafe { counter(at).as_ptr().read_volatile() }) != 0
}

/// A block is about to be freed.
pub fn gone(at: usize) {
    if maybe(at) {
        dying(at);
    }
}

/// A block that may have been sampled is about to be freed.
#[cold]
#[inline(never)]
pub fn dying(at: usize) {
    let Some(tables) = tables() else { return };
    for step in 0..REACH {
        let n = (hash(at) + step) % ROWS;
        let key = &tables.keys[n];
        if key.load(Acquire) != at {
            continue;
        }
        let row = &tables.rows[n];
        let (blocks, bytes) = (row.blocks.load(Relaxed), row.bytes.load(Relaxed));
        let lived = now().saturating_sub(row.born.load(Relaxed));
        let (site, run) = (row.site.load(Relaxed), row.run.load(Relaxed));
        if key.compare_exchange(at, 0, AcqRel, Relaxed).is_err() {
            return;
        }
        let full = |n: u8| (n != 0 && n != u8::MAX).then(|| n - 1);
        let _ = counter(at).fetch_update(Relaxed, Relaxed, full);
        if run == RUN.load(Relaxed) {
            let place = &tables.sites[site as usize % SITES];
            add(&place.freed, blocks, bytes);
            let long = lived.saturating_mul(blocks) / PART;
            add(&place.lived[span_of_life(lived)], blocks, long);
            let less = |live: u64| Some(live.saturating_sub(bytes));
            let _ = LIVE.fetch_update(Relaxed, Relaxed, less);
        }
        return;
    }
}

/// Which span of life so many nanoseconds are.
fn span_of_life(nanoseconds: u64) -> usize {
    (nanoseconds / SHORTEST).checked_ilog10().map_or(0, |power| (power as usize + 1).min(LIVES - 1))
}

fn add(sums: &[AtomicU64; 2], blocks: u64, more: u64) {
    sums[0].fetch_add(blocks, Relaxed);
    sums[1].fetch_add(more, Relaxed);
}

/// The number of a site, a new one if it was not met before.
fn site(tables: &Tables, stack: StackId, tag: u16) -> Option<u32> {
    let wanted = u64::from(stack) | u64::from(tag) << 32;
    let mut fresh = None;
    for step in 0..SLOT_REACH {
        let slot = &tables.slots[(mixed(wanted) as usize).wrapping_add(step) % SLOTS];
        let mut number = slot.load(Acquire);
        if number == 0 {
            let mine = match fresh {
                Some(mine) => mine,
                None => {
                    let grow = |used: u32| ((used as usize) < SITES).then_some(used + 1);
                    let mine = USED.fetch_update(Relaxed, Relaxed, grow).ok()?;
                    tables.sites[mine as usize].key.store(wanted, Relaxed);
                    *fresh.insert(mine)
                }
            };
            match slot.compare_exchange(0, mine + 1, AcqRel, Acquire) {
                Ok(_) => return Some(mine),
                Err(theirs) => number = theirs,
            }
        }
        if tables.sites[number as usize - 1].key.load(Relaxed) == wanted {
            return Some(number - 1);
        }
    }
    None
}

/// The heap is larger than ever: what each site has in use is its share of the peak. One thread at a time
/// does it, others go on.
fn copy_peak(tables: &Tables, live: u64) {
    if COPYING.swap(true, Acquire) {
        return;
    }
    PEAK.fetch_max(live, Relaxed);
    for place in &tables.sites[..SITES.min(USED.load(Relaxed) as usize)] {
        for i in 0..2 {
            let (born, freed) = (place.allocated[i].load(Relaxed), place.freed[i].load(Relaxed));
            place.peak[i].store(born.saturating_sub(freed), Relaxed);
        }
    }
    COPYING.store(false, Release);
}

fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable, and the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Blocks and bytes, estimated from the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Blocks in [`PART`]s.
    pub parts: u64,
    /// Bytes, as they were asked for.
    pub bytes: u64,
}

/// What is known of one stack under one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Where the blocks were allocated.
    pub stack: StackId,
    /// Under which tag.
    pub tag: u16,
    /// Since the profile was started.
    pub allocated: Amount,
    /// Of them, what is in use.
    pub in_use: Amount,
    /// What was in use when the heap was largest.
    pub peak: Amount,
    /// Blocks that were freed, in [`PART`]s, and the nanoseconds they lived in all, by span of life.
    pub lived: [(u64, u64); LIVES],
}

/// How the profile stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes between two samples on average.
    pub interval: u64,
    /// Samples taken.
    pub samples: u64,
    /// Of them, those for which a table had no room.
    pub dropped: u64,
    /// Nanoseconds since the start, or from the start to the end.
    pub duration: u64,
}

/// How the profile stands.
pub fn summary() -> Summary {
    let end = match ENDED.load(Relaxed) {
        0 => now(),
        ended => ended,
    };
    Summary {
        interval: INTERVAL_NOW.load(Relaxed),
        samples: SAMPLES.load(Relaxed),
        dropped: DROPPED.load(Relaxed),
        duration: end.saturating_sub(BEGAN.load(Relaxed)),
    }
}

/// Every site that was met.
pub fn each_site(mut see: impl FnMut(Site)) {
    let Some(tables) = tables() else { return };
    for place in &tables.sites[..SITES.min(USED.load(Relaxed) as usize)] {
        let amount = |sums: &[AtomicU64; 2]| Amount {
            parts: sums[0].load(Relaxed),
            bytes: sums[1].load(Relaxed),
        };
        let (key, freed) = (place.key.load(Relaxed), amount(&place.freed));
        let (allocated, peak) = (amount(&place.allocated), amount(&place.peak));
        if allocated.bytes == 0 {
            continue;
        }
        see(Site {
            stack: key as u32,
            tag: (key >> 32) as u16,
            allocated,
            in_use: Amount {
                parts: allocated.parts.saturating_sub(freed.parts),
                bytes: allocated.bytes.saturating_sub(freed.bytes),
            },
            peak,
            lived: place.lived.each_ref().map(|[n, long]| (n.load(Relaxed), long.load(Relaxed))),
        });
    }
}

/// Every sampled block that is in use: its address, its size and the stack it was allocated under.
pub fn each_live(mut see: impl FnMut(usize, usize, StackId)) {
    let Some(tables) = tables() else { return };
    let run = RUN.load(Relaxed);
    for (key, row) in tables.keys.iter().zip(&tables.rows) {
        let at = key.load(Acquire);
        if at > BUSY && row.run.load(Relaxed) == run {
            let site = row.site.load(Relaxed) as usize % SITES;
            let stack = tables.sites[site].key.load(Relaxed) as u32;
            see(at, row.size.load(Relaxed), stack);
        }
    }
}
