//! What the front calls, handed out to the consumers whose bit is set.

use super::claim::Claim;
use super::ledger::Entry;
use super::mode::Session;
use super::{check, guard, ledger, mode, sample, stacks, tags, trace};
use core::ptr::NonNull;

/// What becomes of a block that the program frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// It goes back to the heap.
    Free,
    /// A consumer keeps it back, and will release it later.
    Kept,
}

/// A block was handed out for `size` bytes at `align`; `laid_out`: by the checker, so that it gets a canary.
pub fn born(at: NonNull<u8>, size: usize, align: usize, laid_out: bool) {
    let mode = mode::get();
    if mode & mode::PROFILE != 0 {
        sample::see(at.addr().get(), size);
    }
    if mode & mode::LEDGER != 0 {
        enter(mode, at, size, align, laid_out);
    }
    if mode & mode::TRACE != 0 {
        trace::born(at, size, align);
    }
}

/// A block is about to be freed; `said` is what the call says of it.
pub fn dying(at: NonNull<u8>, said: Option<Claim>) -> Fate {
    let mode = mode::get();
    // First, so that what dies of this free has been recorded.
    if mode & mode::TRACE != 0 {
        trace::dying(at);
    }
    if mode & mode::PROFILE != 0 {
        sample::gone(at.addr().get());
    }
    if guard::holds(at.addr().get()) {
        guard::dying(at, said);
        return Fate::Kept;
    }
    if mode & mode::CHECK != 0 {
        return check::dying(at, said, || strike(mode, at));
    }
    if mode & mode::LEDGER != 0 {
        // That it is freed twice is the checker's business.
        let _ = strike(mode, at);
    }
    Fate::Free
}

/// What was known of a block before its pages moved.
#[derive(Debug)]
pub struct Before {
    /// What the ledger had of it.
    known: Option<(Session, Entry)>,
    /// The trace's time.
    time: Option<u64>,
}

/// The pages of a large block may move, after which others may have its place. Until [`moved`] or [`stayed`] nothing is
/// known of it; answers what was.
pub fn moving(at: NonNull<u8>) -> Before {
    let mode = mode::get();
    let time = if mode & mode::TRACE != 0 { trace::moving() } else { None };
    if mode & mode::PROFILE != 0 {
        // Whoever cannot have it resized at all loses its sample.
        sample::gone(at.addr().get());
    }
    let known = || {
        let block = ledger::find(at.addr().get())?;
        let known = block.live()?;
        block.forget(false);
        Some((block.session(), known))
    };
    Before { known: if mode & mode::LEDGER != 0 { known() } else { None }, time }
}

/// It has `size` bytes now, and its pages may have moved.
pub fn moved(was: Before, from: NonNull<u8>, to: NonNull<u8>, size: usize, align: usize) {
    let mode = mode::get();
    if mode & mode::TRACE != 0 {
        trace::resized(from, to, size, was.time);
    }
    if mode & mode::PROFILE != 0 {
        sample::see(to.addr().get(), size);
    }
    if mode & mode::LEDGER != 0 {
        if let Some((session, entry)) = was.known {
            tags::died(session, &entry);
        }
        enter(mode, to, size, align, false);
    }
}

/// It is where and as it was.
pub fn stayed(was: Before, at: NonNull<u8>) {
    if let Some((session, entry)) = was.known
        && let Some(block) = ledger::find_in(at.addr().get(), session)
        && block.born(entry.size, entry.align, entry.tag, entry.birth)
        && entry.canary
    {
        block.has_canary();
    }
}

/// A block of `old_size` bytes has `new_size` now, and may be somewhere else; then the answer says what
/// becomes of where it was.
pub fn resized(
    old_at: NonNull<u8>,
    old_size: usize,
    new_at: NonNull<u8>,
    new_size: usize,
    align: usize,
    laid_out: bool,
) -> Fate {
    let mode = mode::get();
    let _ = old_size;
    if mode & mode::TRACE != 0 {
        trace::resized(old_at, new_at, new_size, None);
    }
    if mode & mode::PROFILE != 0 {
        sample::gone(old_at.addr().get());
        sample::see(new_at.addr().get(), new_size);
    }
    let mut fate = Fate::Free;
    if old_at == new_at {
        if mode & mode::LEDGER != 0 {
            restrike(old_at);
        }
    } else if guard::holds(old_at.addr().get()) {
        guard::dying(old_at, None);
        fate = Fate::Kept;
    } else if mode & mode::CHECK != 0 {
        fate = check::dying(old_at, None, || strike(mode, old_at));
    } else if mode & mode::LEDGER != 0 {
        let _ = strike(mode, old_at);
    }
    if mode & mode::LEDGER != 0 {
        enter(mode, new_at, new_size, align, laid_out);
    }
    fate
}

/// Consumers for which stacks are kept in the ledger.
const STACKS: u64 = mode::CHECK_STACKS | mode::LEAKS;

/// The stack of this call, as far as it will be wanted.
pub(super) fn stack(mode: u64) -> u32 {
    if mode & STACKS != 0 { stacks::capture() } else { 0 }
}

fn enter(mode: u64, at: NonNull<u8>, size: usize, align: usize, laid_out: bool) {
    if laid_out {
        check::born(at, size);
    }
    if let Some(block) = ledger::find(at.addr().get()) {
        let tag = if mode & mode::TAGS != 0 { tags::current() } else { 0 };
        // Without room for a record the block is served all the same.
        if block.born(size, align, tag, stack(mode)) && tag != 0 {
            tags::born(block.session(), tag, size);
        }
        if laid_out {
            block.has_canary();
        }
    }
}

fn strike(mode: u64, at: NonNull<u8>) -> Result<(), Entry> {
    let Some(block) = ledger::find(at.addr().get()) else { return Ok(()) };
    let known = block.live();
    block.died(if mode & mode::CHECK_STACKS != 0 { stack(mode) } else { 0 })?;
    if let Some(entry) = known {
        tags::died(block.session(), &entry);
    }
    Ok(())
}

/// A block that stays where it is begins anew: only whom it was put down to changes.
fn restrike(at: NonNull<u8>) {
    if let Some(block) = ledger::find(at.addr().get())
        && let Some(entry) = block.live()
    {
        tags::died(block.session(), &entry);
    }
}

/// Where the records of all who watch lie, and how many bytes they may have.
pub fn each_record(mut see: impl FnMut(usize, usize)) {
    ledger::each_record(&mut see);
    sample::each_record(&mut see);
}
