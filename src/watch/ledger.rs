//! What is known of every block that was born while somebody watched: a record apart from the block.
//!
//! Each window has a shadow: a mapping with room for a record of every object that could lie in it,
//! found by arithmetic from the first granule of the object's span and its index there. The system
//! gives it memory only as far as there are blocks. A large block has the first record of its first granule.
//!
//! A record counts only if it was written in this [`Session`] (what happened before, nobody saw) and in this life
//! of its span. Records are written by who has the block in hand; of two that free one block the exchange of
//! `state` tells which was first.

use super::mode::Session;
use crate::base::classes::Use;
use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicU32, AtomicU64};
use crate::base::units::{
    GRANULE, GRANULE_SHIFT, GRANULES_PER_WINDOW, Granule, WINDOW_SHIFT, WINDOWS,
};
use crate::cache::{ThreadCache, slot};
use crate::front::building::pages;
use crate::os::{Os, linux};
use crate::page::Window;
use crate::span::{Span, SpanTable};
use core::ptr::{self, NonNull};

/// One block. All zero: nothing is known.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    /// Bits 0..48 the size that was asked for, 48..64 the tag.
    size: AtomicU64,
    /// Bits 0..2 [`Life`], 2..8 log2 of the alignment, 8 whether it has a canary, 9..32 the session, 32..64
    /// the span's generation.
    state: AtomicU64,
    /// Where it was allocated, as [`stacks`](super) names it; 0 unknown.
    birth: AtomicU32,
    /// Where it was freed.
    death: AtomicU32,
    /// The thread that allocated it; once it is freed, the one that freed it.
    thread: AtomicU32,
    /// When it was allocated, in milliseconds of the coarse clock.
    clock: AtomicU32,
}

const _: () = assert!(size_of::<Record>() == 32);

/// The state of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// Nothing is known of it.
    Unknown = 0,
    /// The program has it.
    Live = 1,
    /// The program has freed it.
    Freed = 2,
    /// Besides, it is back in the heap, its bytes as the checker filled them.
    Filled = 3,
}

impl Life {
    const fn of(state: u64) -> Self {
        match state & 3 {
            1 => Life::Live,
            2 => Life::Freed,
            3 => Life::Filled,
            _ => Life::Unknown,
        }
    }
}

/// Records a granule has room for: as many as objects of the smallest class.
const PER_GRANULE: usize = GRANULE / 8;
/// Bytes of a shadow, which get memory as far as they are used.
const SHADOW: usize = GRANULES_PER_WINDOW * PER_GRANULE * size_of::<Record>();

const SIZE: u64 = (1 << 48) - 1;
const CANARY: u64 = 1 << 8;

/// By number of the window. Published once, complete by being zero.
static SHADOWS: [AtomicPtr<Record>; WINDOWS] = [const { AtomicPtr::new(ptr::null_mut()) }; WINDOWS];

/// The running thread, as the system numbers threads; its cache knows, and the system takes longer to answer.
fn thread() -> u32 {
    slot::existing().map_or_else(|| pages().os().thread(), ThreadCache::thread)
}

/// A place where a block is or may be.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Its first byte.
    pub start: usize,
    /// How many bytes it has.
    pub bytes: usize,
    /// What it is.
    pub usage: Use,
    /// Which life of its span this is; 0 for what is no object.
    generation: u32,
    /// In which session it was found: its record is of that one, or does not count.
    session: Session,
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its state.
    pub life: Life,
    /// The size that was asked for.
    pub size: usize,
    /// The alignment that was asked for.
    pub align: usize,
    /// Whether the checker has written a canary behind it.
    pub canary: bool,
    /// Whom it is put down to.
    pub tag: u16,
    /// Where it was allocated.
    pub birth: u32,
    /// Where it was freed.
    pub death: u32,
    /// The thread that allocated it; once it is freed, the one that freed it.
    pub thread: u32,
    /// When it was allocated, in milliseconds of the coarse clock, which wraps.
    pub clock: u32,
}

/// The block that holds the byte at `addr`, whoever has it; `None` where there is none. Lock-free; of a
/// place that other threads take and give meanwhile it may be out of date.
pub fn find(addr: usize) -> Option<Block> {
    find_in(addr, Session::now())
}

/// The same, as it was in a session that may be over.
pub fn find_in(addr: usize, session: Session) -> Option<Block> {
    let window = pages().find(addr)?;
    let granule = Granule::of(addr);
    if let Use::Span(class) = window.usage(granule) {
        let span = Span::at(window, addr, class);
        let shape = class.shape();
        let index = shape.index_of(addr - span.start());
        return (index < shape.objects).then(|| Block {
            start: span.start() + index as usize * class.size(),
            bytes: class.size(),
            usage: Use::Span(class),
            generation: span.state(Relaxed).generation(),
            session,
        });
    }
    // A large block marks its first granule only. One with a mapping of its own may begin in a window
    // below; no block is longer than what is mapped.
    let mut at = addr & !(GRANULE - 1);
    loop {
        if let Some((usage, bytes)) = pages().large_at(at) {
            let holds = addr - at < bytes;
            return holds.then_some(Block { start: at, bytes, usage, generation: 0, session });
        }
        if at & ((1 << WINDOW_SHIFT) - 1) == 0 && pages().find(at.checked_sub(GRANULE)?).is_none() {
            return None;
        }
        at -= GRANULE;
        if matches!(pages().find(at)?.usage(Granule::of(at)), Use::Span(_)) {
            return None;
        }
    }
}

const _: () = assert!(Session::MOST < 1 << 23);

impl Block {
    /// The session in which it was found.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Where its record lies; `None` if there is none yet.
    fn place(&self) -> Option<&'static Record> {
        let shadow = NonNull::new(SHADOWS[self.start >> WINDOW_SHIFT].load(Acquire))?;
        let (granule, index) = match self.usage {
            Use::Span(class) => {
                let start = self.start & !(class.span_bytes() - 1);
                let index = class.shape().index_of(self.start - start) as usize;
                (Granule::of(start), index)
            }
            _ => (Granule::of(self.start), 0),
        };
        // SAFETY: a shadow has a record for every index below PER_GRANULE of every granule; the
        // smallest objects are no more than that many in a granule, and spans of larger ones no more in
        // all.
        Some(unsafe { shadow.add(granule.index() * PER_GRANULE + index).as_ref() })
    }

    /// The same, and a shadow is mapped if there is none. `None`: the system has no room for one, or the ledger is
    /// not kept.
    fn place_made(&self) -> Option<&'static Record> {
        if self.session == Session::NONE {
            return None;
        }
        let entry = &SHADOWS[self.start >> WINDOW_SHIFT];
        if entry.load(Relaxed).is_null() {
            let shadow = linux::aside(SHADOW)?;
            let new = shadow.as_ptr().cast();
            if entry.compare_exchange(ptr::null_mut(), new, AcqRel, Relaxed).is_err() {
                // SAFETY: mapped above, and nobody has seen it.
                unsafe { linux::drop_aside(shadow, SHADOW) };
            }
        }
        self.place()
    }

    fn counts(&self, state: u64) -> bool {
        Life::of(state) != Life::Unknown
            && self.session != Session::NONE
            && (state as u32) >> 9 == self.session.number()
            && (state >> 32) as u32 == self.generation
    }

    fn state(&self, life: Life, align: usize) -> u64 {
        life as u64
            | u64::from(align.trailing_zeros()) << 2
            | u64::from(self.session.number()) << 9
            | u64::from(self.generation) << 32
    }

    /// What is known of it.
    pub fn entry(&self) -> Option<Entry> {
        let record = self.place()?;
        let state = record.state.load(Acquire);
        if !self.counts(state) {
            return None;
        }
        let size = record.size.load(Relaxed);
        Some(Entry {
            life: Life::of(state),
            size: (size & SIZE) as usize,
            align: 1 << (state >> 2 & 63),
            canary: state & CANARY != 0,
            tag: (size >> 48) as u16,
            birth: record.birth.load(Relaxed),
            death: record.death.load(Relaxed),
            thread: record.thread.load(Relaxed),
            clock: record.clock.load(Relaxed),
        })
    }

    /// The same, if the program has it.
    pub fn live(&self) -> Option<Entry> {
        self.entry().filter(|entry| entry.life == Life::Live)
    }

    /// The program has it now. `false`: there is no room for its record.
    pub fn born(&self, size: usize, align: usize, tag: u16, stack: u32) -> bool {
        let Some(record) = self.place_made() else { return false };
        record.size.store(size as u64 & SIZE | u64::from(tag) << 48, Relaxed);
        record.birth.store(stack, Relaxed);
        record.death.store(0, Relaxed);
        record.thread.store(thread(), Relaxed);
        record.clock.store(pages().os().now_ms() as u32, Relaxed);
        record.state.store(self.state(Life::Live, align), Release);
        true
    }

    /// The checker has written a canary behind it. By who has it in hand.
    pub fn has_canary(&self) {
        if let Some(record) = self.place() {
            record.state.store(record.state.load(Relaxed) | CANARY, Release);
        }
    }

    /// The program frees it. `Err`: it is freed already, as far as is known. One that is not known is
    /// known from now on, with the size of its class.
    pub fn died(&self, stack: u32) -> Result<(), Entry> {
        let Some(record) = self.place_made() else { return Ok(()) };
        let mut state = record.state.load(Acquire);
        loop {
            let new = if !self.counts(state) {
                self.state(Life::Freed, 1)
            } else if Life::of(state) == Life::Live {
                state & !3 | Life::Freed as u64
            } else {
                return match self.entry() {
                    Some(entry) => Err(entry),
                    None => Ok(()),
                };
            };
            match record.state.compare_exchange_weak(state, new, AcqRel, Acquire) {
                Ok(_) if !self.counts(state) => {
                    record.size.store(self.bytes as u64, Relaxed);
                    record.birth.store(0, Relaxed);
                    break;
                }
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        record.death.store(stack, Relaxed);
        record.thread.store(thread(), Relaxed);
        Ok(())
    }

    /// Nothing is known of it any more, or only that it is back in the heap and filled.
    pub fn forget(&self, filled: bool) {
        if let Some(record) = self.place() {
            let state = record.state.load(Relaxed);
            if self.counts(state) {
                let life = if filled { Life::Filled } else { Life::Unknown };
                record.state.store(state & !3 | life as u64, Release);
            }
        }
    }
}

/// Every block that the program has and the ledger knows. Other threads go on meanwhile: a block that
/// they take or give may be seen or not.
pub fn each_live(mut see: impl FnMut(Block, Entry)) {
    let session = Session::now();
    let mut each = |block: Block| {
        if let Some(entry) = block.entry()
            && entry.life == Life::Live
        {
            see(block, entry);
        }
    };
    for (number, shadow) in SHADOWS.iter().enumerate() {
        if shadow.load(Relaxed).is_null() {
            continue;
        }
        let Some(window) = pages().find(number << WINDOW_SHIFT) else { continue };
        let mut index = 0;
        while index < GRANULES_PER_WINDOW {
            index += each_of(window, Granule(index as u32), session, &mut each);
        }
    }
}

/// Every place for a block of which nothing is known: it is free, or was allocated before the ledger was
/// begun. As [`each_live`].
pub fn each_unknown(mut see: impl FnMut(Block)) {
    let session = Session::now();
    let mut each = |block: Block| {
        if block.entry().is_none() {
            see(block);
        }
    };
    for number in 0..WINDOWS {
        let Some(window) = pages().find(number << WINDOW_SHIFT) else { continue };
        let mut index = 0;
        while index < GRANULES_PER_WINDOW {
            index += each_of(window, Granule(index as u32), session, &mut each);
        }
    }
}

/// Where the records lie, and how many bytes they may have.
pub(super) fn each_record(mut see: impl FnMut(usize, usize)) {
    for shadow in SHADOWS.iter().map(|shadow| shadow.load(Relaxed)) {
        if !shadow.is_null() {
            see(shadow.addr(), SHADOW);
        }
    }
}

/// The blocks that begin in a granule, or in the span that begins there; answers how many granules that is.
fn each_of(
    window: &Window<SpanTable>,
    first: Granule,
    session: Session,
    each: &mut impl FnMut(Block),
) -> usize {
    let start = window.address(first);
    match window.usage(first) {
        usage @ Use::Span(class) if start.is_multiple_of(class.span_bytes()) => {
            let generation = Span::at(window, start, class).state(Relaxed).generation();
            for i in 0..class.shape().objects as usize {
                let start = start + i * class.size();
                each(Block { start, bytes: class.size(), usage, generation, session });
            }
            class.span_bytes() >> GRANULE_SHIFT
        }
        usage @ (Use::Large | Use::Mapping) => {
            let bytes = window.length(first) << GRANULE_SHIFT;
            each(Block { start, bytes, usage, generation: 0, session });
            1
        }
        _ => 1,
    }
}
