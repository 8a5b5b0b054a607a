//! Checked mode: what a program does wrong with a block is seen, and told with all that is known of it.
//!
//! A block has room for a canary behind it that its class may not have had, so it may be of another class
//! than its `Layout` says, or have a mapping of its own that ends in a closed page: it is *odd*
//! ([`mode`](super::mode)). A block that is freed is filled and kept back ([`quarantine`]); its bytes are looked at when it
//! leaves, when the mode ends, and when the process does; and once more when it is handed out again, if
//! nobody else had its memory meanwhile. A large block that is freed has its pages closed instead: whoever
//! touches it is caught in the act ([`fault`](super::fault)).

pub mod fill;
pub mod quarantine;

use super::claim::Claim;
use super::hooks::Fate;
use super::ledger::{self, Block, Entry, Life};
use super::mode::Session;
use super::{fault, guard, mode, report};
use crate::base::classes::{Class, MIN_ALIGN, Use};
use crate::base::death::{self, Cause};
use crate::base::line::Line;
use crate::base::options::Check;
use crate::front::building::{self, pages};
use crate::front::{bare, observed};
use crate::os::{Os, linux};
use crate::page::Extent;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use fill::CANARY;

/// Blocks with a closed page behind them, freed and kept ones among them.
static CLOSED: AtomicUsize = AtomicUsize::new(0);
/// So many at most: each takes three of the 65,530 mappings that Linux gives a process.
const CLOSED_MOST: usize = 8192;

/// Memory for a block, with room for its canary, and whether it has that: not if checked mode was switched
/// off meanwhile.
pub fn place(size: usize, align: usize, zero: bool) -> Option<(NonNull<u8>, bool)> {
    let asked = size.checked_add(CANARY)?;
    let plain = || Some((NonNull::new(observed::place_plain(size, align, zero))?, false));
    let natural = Class::of(size, align);
    let page = pages().os().page_size();
    if let Some(class) = Class::of(asked, align) {
        let odd = natural != Some(class);
        if odd && !mode::begin_odd(mode::CHECK) {
            return plain();
        }
        return counted(building::take_object(class), odd);
    }
    let open = asked.checked_next_multiple_of(page)?;
    if CLOSED.load(Relaxed) < CLOSED_MOST && mode::begin_odd(mode::CHECK) {
        let at = open.checked_add(page).map(|bytes| building::take_own(bytes, align));
        if let Some((block, _)) = counted(at.unwrap_or(ptr::null_mut()), true) {
            let bytes = ledger::find(block.addr().get()).map_or(open, |block| block.bytes);
            CLOSED.fetch_add(1, Relaxed);
            fault::attend_again();
            // What the system refuses to close is open, and has no canary in it.
            // SAFETY: pages of a mapping that was made just now, beyond what the program asked for.
            unsafe { linux::protect(block.add(open), bytes - open, false) };
            return Some((block, true));
        }
    }
    let extent = |size| Extent::of(size, align, page);
    let odd = natural.is_some() || extent(size) != extent(asked);
    if odd && !mode::begin_odd(mode::CHECK) {
        return plain();
    }
    counted(building::take_run(asked, align, zero), odd)
}

/// What cannot be had is no odd block.
fn counted(at: *mut u8, odd: bool) -> Option<(NonNull<u8>, bool)> {
    if at.is_null() && odd {
        mode::end_odd();
    }
    Some((NonNull::new(at)?, true))
}

/// Bytes of a block that are open and its own.
fn open_bytes(block: &Block, size: usize) -> usize {
    match block.usage {
        Use::Span(_) => block.bytes,
        _ => {
            let page = pages().os().page_size();
            size.saturating_add(CANARY).next_multiple_of(page).min(block.bytes)
        }
    }
}

/// Whether blocks of both sizes, each with its canary, end on the same page.
pub fn same_pages(old: usize, new: usize) -> bool {
    let page = pages().os().page_size();
    let pages = |size: usize| size.saturating_add(CANARY).div_ceil(page);
    pages(old) == pages(new) && new != 0
}

/// Whether a block with a canary is not as its size and alignment alone would have it.
pub fn is_odd(block: &Block, entry: &Entry) -> bool {
    let natural = Class::of(entry.size, entry.align);
    entry.canary
        && match block.usage {
            Use::Span(class) => natural != Some(class),
            usage => {
                let extent = Extent::of(entry.size, entry.align, pages().os().page_size());
                let run = matches!(extent, Some(Extent::Granules { .. }));
                natural.is_some()
                    || run != (usage == Use::Large)
                    || extent.is_none_or(|extent| extent.bytes() != block.bytes)
            }
        }
}

/// A block comes from the heap, and nobody has written to it yet: what it held when it was freed must be what
/// it holds.
pub fn look_before_use(at: NonNull<u8>) {
    let Some(block) = ledger::find(at.addr().get()) else { return };
    if let Some(entry) = block.entry()
        && entry.life == Life::Filled
        // SAFETY: it was filled when it was freed, has been in the heap since, and nobody else's.
        && let Some(offset) = unsafe { fill::changed_since(at, block.bytes) }
    {
        write_after_free(&block, &entry, offset);
    }
}

/// A block that was laid out for it gets its canary.
pub fn born(at: NonNull<u8>, size: usize) {
    if let Some(block) = ledger::find(at.addr().get()) {
        // SAFETY: those bytes are beyond what the program asked for, and open.
        unsafe { fill::plant(at, size, open_bytes(&block, size).saturating_sub(size)) };
    }
}

/// Looks at a block that the program says is its own, before it is freed, resized or measured; answers what
/// is known of it. Dies if it is none, or not as the caller says.
fn examine(at: NonNull<u8>, said: Option<Claim>, freeing: bool) -> (Block, Option<Entry>) {
    let addr = at.addr().get();
    let Some(block) = ledger::find(addr) else { nothing(addr, freeing) };
    let entry = block.entry();
    if block.start != addr {
        let cause = if freeing { Cause::InvalidFree } else { Cause::NoBlock };
        die_inside(cause, addr, &block, entry);
    }
    let Some(entry) = entry else {
        if let Some(said) = said
            && !natural(&block, &said)
        {
            wrong(addr, &block, &unknown(&block), &said);
        }
        return (block, None);
    };
    if entry.life != Life::Live {
        let cause = if freeing { Cause::DoubleFree } else { Cause::UseOfFreed };
        die_of(cause, addr, &block, &entry);
    }
    if let Some(said) = said
        && !said.agrees(&entry)
    {
        wrong(addr, &block, &entry, &said);
    }
    look_behind(&block, &entry);
    (block, Some(entry))
}

/// Whether a block of which nothing else is known may be what it is said to be.
fn natural(block: &Block, &Claim { size, align, .. }: &Claim) -> bool {
    match (block.usage, align) {
        (_, 0) => size <= block.bytes,
        (Use::Span(class), _) => Class::of(size, align) == Some(class),
        _ => Class::of(size, align).is_none() && size <= block.bytes,
    }
}

/// C++'s sized `delete` says this of a block and frees it next. What the runtime's `new` asked for is the size, 1 for 0,
/// and with an alignment perhaps rounded up to that or to a word. What is no live block is told by the free.
pub fn deleted(addr: usize, size: usize, align: usize) {
    let said = Claim::asked(size, align);
    if let Some(entry) = guard::live_at(addr) {
        if !may_be_deleted_as(&entry, &said) {
            guard::wrong(addr, &entry, &said);
        }
    } else if let Some(block) = ledger::find(addr).filter(|block| block.start == addr)
        && let Some(entry) = block.live()
        && !may_be_deleted_as(&entry, &said)
    {
        wrong(addr, &block, &entry, &said);
    }
}

/// Whether C++'s `delete` may say this of a block of its `new`.
fn may_be_deleted_as(entry: &Entry, &Claim { size, align, .. }: &Claim) -> bool {
    let steps = if align == 0 { [1; 3] } else { [1, align, align.max(MIN_ALIGN)] };
    let asked = |step| size.max(1).checked_next_multiple_of(step) == Some(entry.size);
    let plain = observed::c_align(entry.size);
    let asked_align = if align == 0 { plain } else { bare::kept_align(entry.size, align) };
    asked_align == entry.align && steps.into_iter().any(asked)
}

/// Dies if the canary behind a block has changed.
fn look_behind(block: &Block, entry: &Entry) {
    let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(block.start)) else {
        return;
    };
    let room = open_bytes(block, entry.size).saturating_sub(entry.size);
    if !entry.canary {
        return;
    }
    // SAFETY: it was planted when the block was handed out.
    if let Some(offset) = unsafe { fill::bitten(at, entry.size, room) } {
        // At the end of the process its owner may free or resize it at this moment.
        if block.entry().is_none_or(|now| now.life != Life::Live || now.size != entry.size) {
            return;
        }
        let mut about = Line::new();
        about.push(b": ");
        report::distance(&mut about, offset, b"past ");
        report::block(&mut about, block.start, entry);
        death::told(Cause::Overflow, block.start + entry.size + offset, about.bytes(), || {
            report::stacks(entry, b"  found");
        });
    }
}

/// A block is about to be freed.
pub fn dying(
    at: NonNull<u8>,
    said: Option<Claim>,
    strike: impl FnOnce() -> Result<(), Entry>,
) -> Fate {
    let (block, _) = examine(at, said, true);
    if let Err(entry) = strike() {
        die_of(Cause::DoubleFree, at.addr().get(), &block, &entry);
    }
    if block.usage == Use::Mapping {
        close(at, &block);
    } else if block.bytes <= quarantine::BYTES / 4 {
        // SAFETY: the program has given it up, and it is in nobody's hands but this thread's.
        unsafe { fill::fill(at, block.bytes) };
    } else {
        return Fate::Free;
    }
    quarantine::keep(at, held(&block), |old| leave(old, block.session(), true));
    Fate::Kept
}

/// Memory that a kept block keeps from use.
fn held(block: &Block) -> usize {
    if block.usage == Use::Mapping { 0 } else { block.bytes }
}

/// Returns the memory of a large block and closes its pages.
fn close(at: NonNull<u8>, block: &Block) {
    // SAFETY: the program has given it up; the mapping is all its own.
    unsafe {
        pages().os().purge(at, block.bytes);
        linux::protect(at, block.bytes, false);
    }
}

/// A block leaves the quarantine: its bytes must be as they were filled. Answers how many it held.
fn leave(at: NonNull<u8>, session: Session, release: bool) -> usize {
    let Some(block) = ledger::find_in(at.addr().get(), session) else { return 0 };
    let entry = block.entry();
    if block.usage != Use::Mapping {
        // SAFETY: it was filled before it was kept, and is still nobody else's.
        if let Some(offset) = unsafe { fill::changed(at, block.bytes) } {
            write_after_free(&block, &entry.unwrap_or(unknown(&block)), offset);
        }
    }
    if release {
        let odd = entry.is_some_and(|entry| is_odd(&block, &entry));
        if block.usage == Use::Mapping && odd {
            CLOSED.fetch_sub(1, Relaxed);
        }
        block.forget(matches!(block.usage, Use::Span(_)));
        // SAFETY: the program has given it up long ago, and this thread has taken it out.
        unsafe { observed::release_known(at, odd) };
    }
    held(&block)
}

/// Switches checked mode. When it ends, what was kept back is looked at and goes.
pub fn set(check: Check) {
    match check {
        Check::Off => {
            let session = Session::now();
            mode::off(mode::CHECK | mode::CHECK_STACKS);
            quarantine::empty(|at| leave(at, session, true));
        }
        Check::On => {
            fault::attend();
            mode::off(mode::CHECK_STACKS);
            mode::on(mode::CHECK);
        }
        Check::Stacks => {
            fault::attend();
            mode::on(mode::CHECK | mode::CHECK_STACKS);
        }
    }
}

/// Run by the loader after `main` has returned or `exit` was called.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

/// The process ends: what is kept back is looked at, and what lies behind the blocks that are still in use.
extern "C" fn at_exit() {
    if mode::has(mode::CHECK) {
        let session = Session::now();
        quarantine::empty(|at| leave(at, session, false));
        ledger::each_live(|block, entry| look_behind(&block, &entry));
    }
}

/// Before a block is resized or measured; answers its size, if that is known.
pub fn size_of(at: NonNull<u8>, said: Option<Claim>) -> Option<usize> {
    let (_, entry) = examine(at, said, false);
    entry.filter(|entry| entry.canary).map(|entry| entry.size)
}

fn unknown(block: &Block) -> Entry {
    Entry { size: block.bytes, ..NOWHERE }
}

#[cold]
fn nothing(addr: usize, freeing: bool) -> ! {
    // Where a block was, the heap knows how to call it.
    if freeing && pages().find(addr).is_some() {
        pages().not_a_block(addr);
    }
    let mut about = Line::new();
    about.push(b": ");
    report::place(addr).tell(&mut about);
    let cause = if freeing { Cause::ForeignFree } else { Cause::NoBlock };
    death::told(cause, addr, about.bytes(), || report::stacks(&NOWHERE, b"  here"))
}

/// An entry that has nothing to tell but this call's stack.
const NOWHERE: Entry = Entry {
    life: Life::Unknown,
    size: 0,
    align: 1,
    canary: false,
    tag: 0,
    birth: 0,
    death: 0,
    thread: 0,
    clock: 0,
};

#[cold]
fn die_of(cause: Cause, addr: usize, block: &Block, entry: &Entry) -> ! {
    let mut about = Line::new();
    about.push(b": ");
    report::block(&mut about, block.start, entry);
    death::told(cause, addr, about.bytes(), || report::stacks(entry, b"  here"))
}

#[cold]
fn die_inside(cause: Cause, addr: usize, block: &Block, entry: Option<Entry>) -> ! {
    let entry = entry.unwrap_or(unknown(block));
    let mut about = Line::new();
    about.push(b": ");
    report::distance(&mut about, addr - block.start, b"into ");
    report::block(&mut about, block.start, &entry);
    death::told(cause, addr, about.bytes(), || report::stacks(&entry, b"  here"))
}

#[cold]
fn wrong(addr: usize, block: &Block, entry: &Entry, said: &Claim) -> ! {
    let mut about = Line::new();
    about.push(b": ");
    report::block(&mut about, block.start, entry);
    said.tell(&mut about, entry);
    death::told(Cause::WrongLayout, addr, about.bytes(), || report::stacks(entry, b"  here"))
}

#[cold]
fn write_after_free(block: &Block, entry: &Entry, offset: usize) -> ! {
    let mut about = Line::new();
    about.push(b": ");
    report::distance(&mut about, offset, b"into ");
    report::block(&mut about, block.start, entry);
    death::told(Cause::WriteAfterFree, block.start + offset, about.bytes(), || {
        report::stacks(entry, b"  found");
    })
}
