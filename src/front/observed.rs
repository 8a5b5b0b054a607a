//! The front in observed mode: the same floors, and every call shown to who watches.
//!
//! All bins are pinned then, so that every call ends here. Blocks are found by the page map and not by
//! what the caller says of them: who watches may have laid them out otherwise.

use super::bare::{self, Block};
use super::building::{self, pages};
use super::held;
use crate::base::classes::{C_ALIGN, Class, MIN_ALIGN, Use};
use crate::base::death;
use crate::watch::claim::Claim;
use crate::watch::{self, Fate, check, guard, ledger, mode};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// The alignment that C promises for `size` bytes.
pub fn c_align(size: usize) -> usize {
    if size < C_ALIGN { MIN_ALIGN } else { C_ALIGN }
}

/// What C asks for, as a layout. `size` is one that a class serves.
pub fn c_layout(size: usize) -> Layout {
    // SAFETY: both alignments are powers of two, and the size is far from the largest.
    unsafe { Layout::from_size_align_unchecked(size, c_align(size)) }
}

/// A block, or null.
#[cold]
#[inline(never)]
pub fn take(size: usize, align: usize, zero: bool) -> *mut u8 {
    let Some((at, laid_out)) = place(size, align, zero) else { return ptr::null_mut() };
    watch::born(at, size, align, laid_out);
    held::goes_out_as_it_is(at);
    at.as_ptr()
}

/// A block, or null, was handed out by a call that began before somebody was switched on. It may have been freed
/// since, and then who watches knows it as freed: it is shown now. Such a call comes upon the block by hands
/// that have seen the mode, so it sees that the mode has changed.
#[cold]
#[inline(never)]
pub fn taken_unseen(at: *mut u8, size: usize, align: usize) {
    if let Some(at) = NonNull::new(at) {
        watch::born(at, size, align, false);
    }
}

/// A block that nobody has been shown yet, and whether the checker has laid it out.
fn place(size: usize, align: usize, zero: bool) -> Option<(NonNull<u8>, bool)> {
    let mode = mode::get();
    if mode & mode::GUARD != 0
        && let Some(at) = guard::place(size, align)
    {
        return Some((at, false));
    }
    let placed = if mode & mode::CHECK != 0 {
        check::place(size, align, zero)
    } else {
        NonNull::new(place_plain(size, align, zero)).map(|at| (at, false))
    };
    if mode & mode::LEDGER != 0
        && let Some((at, _)) = placed
    {
        check::look_before_use(at);
    }
    placed
}

/// A block as it would be if nobody watched.
pub fn place_plain(size: usize, align: usize, zero: bool) -> *mut u8 {
    match Class::of(size, align) {
        Some(class) => building::take_object(class),
        None => building::take_run(size, align, zero),
    }
}

/// Takes a block back, of which the caller may say size and alignment. Dies by name if it is none.
///
/// # Safety
/// The caller gives the block up.
#[cold]
#[inline(never)]
pub unsafe fn give(at: NonNull<u8>, layout: Option<(usize, usize)>) {
    let _ = held::comes_back(at.as_ptr());
    if watch::dying(at, layout.map(Claim::layout)) == Fate::Free {
        // SAFETY: the caller's promise.
        unsafe { release(at, layout) }
    }
}

/// As [`give`] for C. What it says of the block is for who watches: it may be longer than it was asked to be, as
/// after `realloc`.
///
/// # Safety
/// The caller gives the block up.
#[cold]
#[inline(never)]
pub unsafe fn give_said(at: NonNull<u8>, said: Claim) {
    let _ = held::comes_back(at.as_ptr());
    if watch::dying(at, Some(said)) == Fate::Free {
        // SAFETY: the caller's promise.
        unsafe { release(at, None) }
    }
}

/// Takes back a block that nobody who watches keeps.
///
/// # Safety
/// Nobody uses the block any more.
unsafe fn release(at: NonNull<u8>, layout: Option<(usize, usize)>) {
    let odd =
        laid_out_at(at.addr().get()).is_some_and(|(block, entry)| check::is_odd(&block, &entry));
    // SAFETY: the caller's promise.
    unsafe {
        if odd {
            release_known(at, true);
        } else {
            release_as(at, layout);
        }
    }
}

/// Takes back a block that the checker has let go; `odd` as it was laid out.
///
/// # Safety
/// Nobody uses the block any more.
pub unsafe fn release_known(at: NonNull<u8>, odd: bool) {
    // SAFETY: the caller's promise.
    unsafe { release_as(at, None) };
    if odd {
        mode::end_odd();
    }
}

/// # Safety
/// Nobody uses the block any more.
unsafe fn release_as(at: NonNull<u8>, layout: Option<(usize, usize)>) {
    let addr = at.addr().get();
    let Some(block) = bare::block_at(addr) else { pages().not_a_block(addr) };
    if let Some((size, align)) = layout {
        let fits = match (&block, Class::of(size, align)) {
            (Block::Object(class), its) => its == Some(*class),
            (Block::Large(..), its) => its.is_none(),
        };
        if !fits {
            death::wrong_class(addr);
        }
    }
    // SAFETY: the caller's promise, for each of these.
    unsafe {
        match (block, layout) {
            (Block::Object(class), _) => building::give_object(at.as_ptr(), class),
            (Block::Large(usage, bytes), None) => building::give_found(at, usage, bytes),
            // It checks the length.
            (Block::Large(..), Some((size, align))) => building::give_run(at, size, align),
        }
    }
}

/// Bytes of a block that the program may use, if more is known than its class.
pub fn usable_size(at: NonNull<u8>) -> Option<usize> {
    if guard::holds(at.addr().get()) {
        return Some(guard::size_of(at));
    }
    if mode::has(mode::CHECK) {
        return check::size_of(at, None);
    }
    left_by_check(at)
}

/// The size of a block that checked mode, now off, has left with a canary or a closed page behind it.
fn left_by_check(at: NonNull<u8>) -> Option<usize> {
    let (_, entry) = laid_out_at(at.addr().get())?;
    entry.canary.then_some(entry.size)
}

/// What the ledger has of a block, while it is kept: before and after, it does not count.
fn laid_out_at(addr: usize) -> Option<(ledger::Block, ledger::Entry)> {
    let block = mode::has(mode::LEDGER).then(|| ledger::find(addr))??;
    Some((block, block.entry()?))
}

/// Changes the size of a block: in place, by moving its pages, or by a copy. Null: nothing has changed.
///
/// # Safety
/// The block is the caller's; with a layout, one for which it was handed out.
#[cold]
#[inline(never)]
pub unsafe fn resize(at: NonNull<u8>, layout: Option<(usize, usize)>, size: usize) -> *mut u8 {
    let addr = at.addr().get();
    let mode = mode::get();
    let guarded = guard::holds(addr).then(|| guard::size_of(at));
    let checked = mode & mode::CHECK != 0 && guarded.is_none();
    let known = if checked {
        check::size_of(at, layout.map(Claim::layout))
    } else {
        guarded.or_else(|| left_by_check(at))
    };
    let block = match bare::block_at(addr) {
        Some(block) => block,
        // A guarded one is in no map, and never stays.
        None if guarded.is_some() => Block::Large(Use::None, 0),
        None => death::no_block(addr),
    };
    if held::is_free(addr) {
        death::no_block(addr);
    }
    let usable = known.unwrap_or(match block {
        Block::Object(class) => class.size(),
        Block::Large(_, bytes) => bytes,
    });
    let (old, align) = match layout {
        Some((old, _)) if old > usable => death::wrong_class(addr),
        Some(layout) => layout,
        None => (usable, c_align(size)),
    };
    let asked = if checked { size.saturating_add(check::fill::CANARY) } else { size };
    let odd = laid_out_at(addr).is_some_and(|(block, entry)| check::is_odd(&block, &entry));
    let stays = match block {
        // One that is odd, or would be, is counted: it moves.
        Block::Object(class) => {
            Class::of(asked, align) == Some(class)
                && (!checked || known.is_some())
                && odd == (checked && Class::of(size, align) != Some(class))
        }
        Block::Large(Use::Mapping, _) => {
            checked && known.is_some_and(|old| check::same_pages(old, size))
        }
        Block::Large(..) => false,
    };
    if stays {
        let _ = watch::resized(at, old, at, size, align, known.is_some());
        return at.as_ptr();
    }
    let run = match block {
        _ if checked || guarded.is_some() || odd => false,
        Block::Large(Use::Large, _) => true,
        Block::Large(_, bytes) => bytes > building::LARGEST_RUN,
        Block::Object(_) => false,
    };
    if run && Class::of(size, align).is_none() {
        // Told before: once its pages have moved, another thread may have the place.
        let was = watch::moving(at);
        // SAFETY: the caller's block, as the page map knows it.
        if let Some(new) = unsafe { building::resize_run(at, old, size, align) } {
            watch::moved(was, at, new, size, align);
            return new.as_ptr();
        }
        watch::stayed(was, at);
    }
    // One that had to move once will grow again: an eighth more, as in C's door without observers.
    let large = matches!(block, Block::Large(..)) && guarded.is_none() && !checked;
    let more = if layout.is_none() && size > old && large { size / 8 } else { 0 };
    let new = match place(size.saturating_add(more), align, false) {
        None if more != 0 => place(size, align, false),
        new => new,
    };
    let Some((new, laid_out)) = new else { return ptr::null_mut() };
    // SAFETY: both blocks are that long and disjoint.
    unsafe { ptr::copy_nonoverlapping(at.as_ptr(), new.as_ptr(), old.min(size)) };
    let _ = held::comes_back(at.as_ptr());
    held::goes_out_as_it_is(new);
    if watch::resized(at, old, new, size, align, laid_out) == Fate::Free {
        // SAFETY: the caller gives the old block up.
        unsafe { release(at, layout) };
    }
    new.as_ptr()
}
