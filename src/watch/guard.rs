//! Sampled guard pages: about one small block in so many lies by itself at the end of pages of its own,
//! between closed ones, and its pages are closed when it is freed. A touch past its end, before its start or
//! after its free is caught in the act ([`fault`](super::fault)), with the stacks of its allocation and its free.
//!
//! There is a fixed number of slots; a freed one is used again as late as possible. When all are in use,
//! blocks are ordinary ones.

use super::check::fill;
use super::claim::Claim;
use super::ledger::{Entry, Life};
use super::{fault, mode, report, stacks};
use crate::base::classes::MIN_ALIGN;
use crate::base::death::{self, Cause};
use crate::base::line::Line;
use crate::base::units::GRANULE;
use crate::front::building::pages;
use crate::os::{Os, linux};
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

/// Blocks that can be guarded at a time, freed ones that are still closed among them.
const SLOTS: usize = 1024;
/// The largest block.
const LARGEST: usize = GRANULE;

/// What is known of a slot. Written by who has it in hand; `state` hands it on.
struct Slot {
    /// One of the four below.
    state: AtomicU32,
    align: AtomicU32,
    at: AtomicUsize,
    size: AtomicUsize,
    birth: AtomicU32,
    death: AtomicU32,
    thread: AtomicU32,
}

const UNUSED: u32 = 0;
/// Somebody is opening or closing it.
const BUSY: u32 = 1;
const LIVE: u32 = 2;
const FREED: u32 = 3;

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        state: AtomicU32::new(UNUSED),
        align: AtomicU32::new(0),
        at: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        birth: AtomicU32::new(0),
        death: AtomicU32::new(0),
        thread: AtomicU32::new(0),
    }
}; SLOTS];

/// The first page, or 0: all slots, each with a closed page before it and one behind the last.
static BASE: AtomicUsize = AtomicUsize::new(0);
/// Counts up; the slot that is looked at next.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// One block in so many.
static EVERY: AtomicU32 = AtomicU32::new(0);
/// Blocks until the next; and where random numbers come from, which is another place in every process. A lost
/// update moves one sample.
static LEFT: AtomicU64 = AtomicU64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);

fn page() -> usize {
    pages().os().page_size()
}

/// From one closed page to the next.
fn stride() -> usize {
    page() + LARGEST.next_multiple_of(page())
}

/// Guards one block in `every` from now on; 0: none. Those that are guarded stay so until they are freed.
/// `false`: the system has no room.
pub fn set(every: u32) -> bool {
    if every == 0 {
        EVERY.store(0, Relaxed);
        mode::off(mode::GUARD);
        return true;
    }
    if BASE.load(Relaxed) == 0 {
        let bytes = SLOTS * stride() + page();
        let Some(at) = linux::aside(bytes) else { return false };
        // SAFETY: mapped above.
        let closed = unsafe { linux::protect(at, bytes, false) };
        let base = at.as_ptr().expose_provenance();
        if !closed || BASE.compare_exchange(0, base, AcqRel, Acquire).is_err() {
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { linux::drop_aside(at, bytes) };
        }
        if !closed {
            return false;
        }
    }
    EVERY.store(every, Relaxed);
    RANDOM.store(linux::random() | 1, Relaxed);
    LEFT.store(random() % u64::from(every), Relaxed);
    fault::attend();
    mode::on(mode::GUARD);
    true
}

/// Whether the address lies in what is guarded, its closed pages among it.
pub fn holds(addr: usize) -> bool {
    let base = BASE.load(Acquire);
    base != 0 && addr >= base && addr - base < SLOTS * stride() + page()
}

/// Whether the next block is to be guarded.
fn is_due() -> bool {
    let left = LEFT.load(Relaxed);
    if left > 0 {
        LEFT.store(left - 1, Relaxed);
        return false;
    }
    // From half as many to half as many more.
    let every = u64::from(EVERY.load(Relaxed)).max(1);
    LEFT.store(every / 2 + random() % every, Relaxed);
    true
}

/// The next of a sequence (Marsaglia's xorshift).
fn random() -> u64 {
    let mut random = RANDOM.load(Relaxed);
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    RANDOM.store(random, Relaxed);
    random
}

/// A guarded block, if it is its turn and there is a slot. It reads as zero.
pub fn place(size: usize, align: usize) -> Option<NonNull<u8>> {
    // Every block starts at a word.
    let align = align.max(MIN_ALIGN);
    if size > LARGEST || align > page() || !is_due() || !mode::begin_odd(mode::GUARD) {
        return None;
    }
    let made = open(size, align);
    if made.is_none() {
        mode::end_odd();
    }
    made
}

fn open(size: usize, align: usize) -> Option<NonNull<u8>> {
    let base = BASE.load(Acquire);
    fault::attend_again();
    // A few: where they are all live, most are.
    for _ in 0..8 {
        let index = NEXT.fetch_add(1, Relaxed) % SLOTS;
        let slot = &TABLE[index];
        let was = slot.state.load(Relaxed);
        if !matches!(was, UNUSED | FREED)
            || slot.state.compare_exchange(was, BUSY, AcqRel, Relaxed).is_err()
        {
            continue;
        }
        let end = base + (index + 1) * stride();
        // At the end of its pages, as far as its alignment allows.
        let start = (end - size.max(1)) & !(align - 1);
        let first = start & !(page() - 1);
        let Some(pages) = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(first)) else {
            continue;
        };
        // SAFETY: pages of this slot, which this thread has alone.
        if !unsafe { linux::protect(pages, end - first, true) } {
            slot.state.store(was, Release);
            return None;
        }
        let at = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(start))?;
        // SAFETY: the bytes up to the end are open.
        unsafe { fill::plant(at, size, end - start - size) };
        slot.at.store(start, Relaxed);
        slot.size.store(size, Relaxed);
        slot.align.store(align as u32, Relaxed);
        slot.birth.store(stacks::capture(), Relaxed);
        slot.death.store(0, Relaxed);
        slot.thread.store(crate::front::building::pages().os().thread(), Relaxed);
        slot.state.store(LIVE, Release);
        return Some(at);
    }
    None
}

/// The slot whose pages, or the closed one before them, hold the address.
fn index_of(addr: usize) -> usize {
    ((addr - BASE.load(Acquire)) / stride()).min(SLOTS - 1)
}

fn entry(slot: &Slot) -> Entry {
    Entry {
        life: match slot.state.load(Acquire) {
            LIVE => Life::Live,
            FREED => Life::Freed,
            _ => Life::Unknown,
        },
        size: slot.size.load(Relaxed),
        align: slot.align.load(Relaxed) as usize,
        canary: true,
        tag: 0,
        birth: slot.birth.load(Relaxed),
        death: slot.death.load(Relaxed),
        thread: slot.thread.load(Relaxed),
        clock: 0,
    }
}

/// A live block's size; dies if `at` is none.
pub fn size_of(at: NonNull<u8>) -> usize {
    let addr = at.addr().get();
    let slot = &TABLE[index_of(addr)];
    let entry = entry(slot);
    if slot.at.load(Relaxed) != addr || entry.life == Life::Unknown {
        told(Cause::NoBlock, addr, slot, &entry, addr.checked_sub(slot.at.load(Relaxed)));
    }
    if entry.life != Life::Live {
        told(Cause::UseOfFreed, addr, slot, &entry, None);
    }
    entry.size
}

/// What is known of the live block that begins here, if one does.
pub fn live_at(addr: usize) -> Option<Entry> {
    let slot = holds(addr).then(|| &TABLE[index_of(addr)])?;
    let known = entry(slot);
    (known.life == Life::Live && slot.at.load(Relaxed) == addr).then_some(known)
}

/// A block is given back as what it is not.
#[cold]
pub fn wrong(addr: usize, entry: &Entry, said: &Claim) -> ! {
    let mut about = Line::new();
    about.push(b": ");
    report::block(&mut about, addr, entry);
    said.tell(&mut about, entry);
    death::told(Cause::WrongLayout, addr, about.bytes(), || report::stacks(entry, b"  here"))
}

/// A guarded block is freed: its pages are closed. Dies if it is none, or if what lies behind it has changed.
pub fn dying(at: NonNull<u8>, said: Option<Claim>) {
    let addr = at.addr().get();
    let index = index_of(addr);
    let slot = &TABLE[index];
    let known = entry(slot);
    let start = slot.at.load(Relaxed);
    if start != addr || known.life == Life::Unknown {
        told(Cause::InvalidFree, addr, slot, &known, addr.checked_sub(start));
    }
    if slot.state.compare_exchange(LIVE, BUSY, AcqRel, Acquire).is_err() {
        told(Cause::DoubleFree, addr, slot, &entry(slot), None);
    }
    // As it is kept here.
    let kept = |said: Claim| match said.align {
        0 => said,
        align => said.aligned_to(align.max(MIN_ALIGN)),
    };
    if let Some(said) = said.map(kept)
        && !said.agrees(&known)
    {
        wrong(addr, &known, &said);
    }
    let end = BASE.load(Acquire) + (index + 1) * stride();
    // SAFETY: planted when it was opened, and still open.
    if let Some(offset) = unsafe { fill::bitten(at, known.size, end - start - known.size) } {
        let past = start + known.size + offset;
        let mut about = Line::new();
        about.push(b": ");
        report::distance(&mut about, offset, b"past ");
        report::block(&mut about, start, &known);
        death::told(Cause::Overflow, past, about.bytes(), || report::stacks(&known, b"  found"));
    }
    let first = start & !(page() - 1);
    if let Some(from) = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(first)) {
        // SAFETY: pages of this slot, which the program has given up.
        unsafe {
            pages().os().purge(from, end - first);
            linux::protect(from, end - first, false);
        }
    }
    slot.death.store(stacks::capture(), Relaxed);
    slot.thread.store(pages().os().thread(), Relaxed);
    slot.state.store(FREED, Release);
    mode::end_odd();
}

#[cold]
fn told(cause: Cause, addr: usize, slot: &Slot, entry: &Entry, inside: Option<usize>) -> ! {
    let mut about = Line::new();
    about.push(b": ");
    if let Some(offset) = inside {
        report::distance(&mut about, offset, b"into ");
    }
    report::block(&mut about, slot.at.load(Relaxed), entry);
    death::told(cause, addr, about.bytes(), || report::stacks(entry, b"  here"))
}

/// What a touch of a closed page at `addr` was; `None` if nothing is known of it.
pub(super) fn fault_at(addr: usize) -> Option<(Cause, usize, Entry)> {
    let index = index_of(addr);
    let base = BASE.load(Acquire);
    let mine = entry(&TABLE[index]);
    let start = TABLE[index].at.load(Relaxed);
    let before =
        index.checked_sub(1).map(|index| (TABLE[index].at.load(Relaxed), entry(&TABLE[index])));
    if addr - base - index * stride() >= page() {
        let cause = match mine.life {
            Life::Freed => Cause::AccessAfterFree,
            Life::Live => Cause::AccessBefore,
            _ => return None,
        };
        return Some((cause, start, mine));
    }
    // The closed page between two: whose block is nearer?
    match before {
        Some((start, entry)) if entry.life != Life::Unknown => {
            let cause =
                if entry.life == Life::Live { Cause::AccessBehind } else { Cause::AccessAfterFree };
            Some((cause, start, entry))
        }
        _ if mine.life == Life::Live => Some((Cause::AccessBefore, start, mine)),
        _ => None,
    }
}
