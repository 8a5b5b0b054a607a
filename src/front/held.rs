//! Who holds what: objects that go out and come back are noted in the page heap's shadow. Where none is kept
//! (without the feature `shadow`) all of this is nothing.

use super::bare::{Block, block_at};
use super::building::{BUILDING, pages};
use crate::base::classes::Class;
use crate::base::death;
use crate::page::shadow::{KEPT, Said};
use crate::watch;
use crate::watch::claim::Claim;
use core::ptr::NonNull;

/// Whether a shadow is kept.
pub const NOTED: bool = KEPT != 0;

/// An object goes out to the program.
#[inline(always)]
pub fn goes_out(object: *mut u8, class: Class) {
    if NOTED && class.is_shadowed() {
        // SAFETY: an object of ours, or none.
        unsafe { pages().hold(object.addr()) };
    }
}

/// A block goes out of which the caller knows no class.
pub fn goes_out_as_it_is(at: NonNull<u8>) {
    if NOTED && let Some(Block::Object(class)) = block_at(at.addr().get()) {
        goes_out(at.as_ptr(), class);
    }
}

/// An object comes back: its class word, if it is noted that somebody holds it.
#[inline(always)]
pub fn comes_back(at: *mut u8) -> Option<usize> {
    pages().let_go(at.addr())
}

/// Whether an object starts at `addr`, of which the shadow knows that nobody holds it.
pub fn is_free(addr: usize) -> bool {
    NOTED
        && pages().said_of(addr) == Said::Free
        && matches!(block_at(addr), Some(Block::Object(class)) if class.is_shadowed())
}

/// Whether no block at all starts at `addr`, which a shadow covers.
pub fn is_nothing(addr: usize) -> bool {
    NOTED && pages().said_of(addr) == Said::Free && block_at(addr).is_none()
}

/// An object is given back with the layout of `class`; the answer is whether that is what the shadow knows, or
/// nothing: if not, it is for who watches, or the process dies by name. The size in words of 8 bytes and
/// the alignment are for the report.
#[inline(always)]
pub fn comes_back_as(object: *mut u8, words: usize, align: usize, class: Class) -> bool {
    !NOTED
        || !class.is_shadowed()
        || match comes_back(object) {
            Some(found) if Class::from_word(found) == class => true,
            found => comes_back_oddly(object, words, align, found),
        }
}

#[cold]
#[inline(never)]
fn comes_back_oddly(object: *mut u8, words: usize, align: usize, found: Option<usize>) -> bool {
    let addr = object.addr();
    if found.is_none() {
        if pages().said_of(addr) == Said::Nothing {
            return true;
        }
        if is_free(addr)
            && let Some(block) = NonNull::new(object)
        {
            freed_again(block, Some(Claim::layout((words * 8, align))));
        }
    }
    if BUILDING.mode() != 0 {
        // Perhaps the checker has laid it out.
        return false;
    }
    match block_at(addr) {
        Some(_) => death::wrong_class(addr),
        None => pages().not_a_block(addr),
    }
}

/// An object is given back that is free: dies by name, or as who watches knows it.
#[cold]
pub fn freed_again(at: NonNull<u8>, said: Option<Claim>) -> ! {
    if BUILDING.mode() != 0 {
        let _ = watch::dying(at, said);
    }
    death::double_free(at.addr().get())
}
