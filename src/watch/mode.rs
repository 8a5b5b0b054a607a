//! Which consumers watch, as bits of the one mode word ([`cache::switch`](crate::cache::switch)).
//!
//! Switching on goes in two steps: first every bin is pinned, then the consumers' bits are set. So no
//! thread is still on its fast path with a block that a consumer has laid out in a way of its own. Such
//! *odd* blocks (one with room for a canary that its `Layout` does not say, one behind a guard page) are
//! counted in the upper half of the word: as long as one lives, every free must come by, and the bins
//! stay pinned, whoever has been switched off meanwhile. Bits and count share the word so that the last
//! odd block and the last consumer are seen together.
//!
//! The word also says which [`Session`] of the ledger this is: whoever sets the ledger's bit where it was clear
//! stores a new number with it, and whoever clears the bit clears the number. So of several that switch on at
//! once one begins the session, and no thread sees the bit before it.

use super::tags;
use crate::base::sync::AtomicU32;
use crate::base::sync::Ordering::{Acquire, Relaxed};
use crate::front::building::BUILDING;
use core::sync::atomic::fence;

/// Blocks are filled when freed, kept back for a while, and have canaries behind them.
pub const CHECK: u64 = 1 << 0;
/// Besides, the stacks of their allocation and their free are kept.
pub const CHECK_STACKS: u64 = 1 << 1;
/// Sampled heap profile.
pub const PROFILE: u64 = 1 << 2;
/// Every block is kept in the ledger with its stack.
pub const LEAKS: u64 = 1 << 3;
/// Every block is kept in the ledger with its tag.
pub const TAGS: u64 = 1 << 4;
/// Calls are recorded.
pub const TRACE: u64 = 1 << 5;
/// One block of many has pages of its own.
pub const GUARD: u64 = 1 << 6;
/// Nobody watches but the heap profile, and owners may let allocations go the fast way again. Follows from
/// the others, but a consumer who is about to be switched on takes it away before it pins the bins.
const LIGHT: u64 = 1 << 7;
/// Every bin is pinned. Follows from the others; alone it means that odd blocks are left.
const PINNED: u64 = 1 << 8;
/// The ledger is kept. Follows from the others.
pub const LEDGER: u64 = 1 << 9;
/// Which session of the ledger it is; 0 while it is not kept.
const SESSION: u64 = ODD - (1 << SESSION_SHIFT);
const SESSION_SHIFT: u32 = 10;

/// The mode in which nobody watches but the heap profile.
pub const PROFILE_ALONE: u64 = PROFILE | PINNED | LIGHT;

/// Consumers that need the ledger.
const KEEPS_LEDGER: u64 = CHECK | CHECK_STACKS | LEAKS | TAGS;
/// One odd block.
const ODD: u64 = 1 << 32;

/// Counts the sessions that were begun, or nearly; the next one's number comes from it.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// The time from when somebody first needs the ledger until nobody does: what was written down in another one
/// does not count. A number that comes back after four million sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session(u32);

impl Session {
    /// The one that is on; [`Session::NONE`] while the ledger is not kept.
    pub fn now() -> Self {
        Self::of(get())
    }

    /// The one that is on in this mode.
    pub fn of(mode: u64) -> Self {
        // Whoever has seen a block of this session sees whatever the session began with, and hands it on.
        fence(Acquire);
        Self(((mode & SESSION) >> SESSION_SHIFT) as u32)
    }

    /// Not any.
    pub const NONE: Self = Self(0);
    /// No number is larger.
    pub const MOST: u32 = (SESSION >> SESSION_SHIFT) as u32;

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// A number that no other session has.
    fn fresh() -> Self {
        loop {
            let next = SESSIONS.fetch_add(1, Relaxed) & Self::MOST;
            if next != 0 {
                return Self(next);
            }
        }
    }

    const fn bits(self) -> u64 {
        (self.0 as u64) << SESSION_SHIFT
    }
}

/// The mode as it is.
#[inline(always)]
pub fn get() -> u64 {
    BUILDING.mode()
}

/// Whether one of these consumers watches.
#[inline(always)]
pub fn has(bits: u64) -> bool {
    get() & bits != 0
}

/// Switches consumers on: they see every call that any thread begins after this.
pub fn on(bits: u64) {
    crate::front::doors::trim();
    let ledger = if bits & KEEPS_LEDGER != 0 { LEDGER } else { 0 };
    loop {
        BUILDING.switch_on(|mode| mode & !LIGHT | PINNED);
        let mut begun = Session::NONE;
        // Another thread may have switched meanwhile, and bounds may not be pinned: once more.
        let set = |mode| {
            begun = match ledger != 0 && mode & LEDGER == 0 {
                true => Session::fresh(),
                false => Session::NONE,
            };
            (mode & (PINNED | LIGHT) == PINNED).then(|| lit(mode | bits | ledger | begun.bits()))
        };
        if BUILDING.change_mode(set).is_ok() {
            if begun != Session::NONE {
                tags::begin(begun);
            }
            return;
        }
    }
}

/// Switches consumers off. Calls that other threads have begun may still be seen.
pub fn off(bits: u64) {
    let _ = BUILDING.change_mode(|mode| Some(settled(mode & !bits)));
}

/// A mode without what nobody needs.
const fn settled(mode: u64) -> u64 {
    let odd = mode / ODD != 0;
    if mode & KEEPS_LEDGER != 0 || odd {
        mode
    } else if mode & !(LEDGER | SESSION | PINNED | LIGHT) != 0 {
        lit(mode & !(LEDGER | SESSION))
    } else {
        0
    }
}

/// A mode with [`LIGHT`] as it follows from the rest.
const fn lit(mode: u64) -> u64 {
    match mode & !LIGHT {
        rest if rest == PROFILE | PINNED => rest | LIGHT,
        rest => rest,
    }
}

/// Before an odd block is made, by a consumer in `bits`. `false`: it has been switched off, and the block
/// must be an ordinary one.
pub fn begin_odd(bits: u64) -> bool {
    BUILDING.change_mode(|mode| (mode & bits != 0).then(|| mode + ODD)).is_ok()
}

/// An odd block is gone.
pub fn end_odd() {
    let _ = BUILDING.change_mode(|mode| Some(settled(mode.checked_sub(ODD)?)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_is_off() {
        assert_eq!(settled(PINNED | LEDGER), 0);
        let kept = PINNED | LEDGER | Session(7).bits();
        assert_eq!(settled(kept), 0);
        assert_eq!(settled(kept | TRACE), PINNED | TRACE);
        assert_eq!(settled(kept | PROFILE), PROFILE_ALONE);
        assert_eq!(settled(kept | TAGS), kept | TAGS);
        assert_eq!(settled(kept | ODD), kept | ODD);
        assert_eq!(settled(PINNED | LEDGER | ODD), PINNED | LEDGER | ODD);
        assert_eq!(settled(PINNED | LIGHT), 0);
    }

    #[test]
    fn the_profile_alone_is_light() {
        assert_eq!(settled(PINNED | LEDGER | PROFILE), PROFILE_ALONE);
        assert_eq!(settled(PROFILE_ALONE), PROFILE_ALONE);
        assert_eq!(lit(PROFILE_ALONE | TRACE), PROFILE | PINNED | TRACE);
        assert_eq!(lit(PROFILE | PINNED | ODD), PROFILE | PINNED | ODD);
    }
}
