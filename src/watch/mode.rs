//! Which consumers watch, as bits of the one mode word ([`cache::switch`](crate::cache::switch)).
//!
//! Switching on goes in two steps: first every bin is pinned, then the consumers' bits are set. So no
//! thread is still on its fast path with a block that a consumer has laid out in a way of its own. Such
//! *odd* blocks (one with room for a canary that its `Layout` does not say, one behind a guard page) are
//! counted in the upper half of the word: as long as one lives, every free must come by, and the bins
//! stay pinned, whoever has been switched off meanwhile. Bits and count share the word so that the last
//! odd block and the last consumer are seen together.

use super::ledger;
use crate::front::building::BUILDING;

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
/// The ledger is kept. Follows from the others.
pub const LEDGER: u64 = 1 << 30;
/// Every bin is pinned. Follows from the others; alone it means that odd blocks are left.
const PINNED: u64 = 1 << 29;
/// Nobody watches but the heap profile, and owners may let allocations go the fast way again. Follows from
/// the others, but a consumer who is about to be switched on takes it away before it pins the bins.
const LIGHT: u64 = 1 << 28;

/// The mode in which nobody watches but the heap profile.
pub const PROFILE_ALONE: u64 = PROFILE | PINNED | LIGHT;

/// Consumers that need the ledger.
const KEEPS_LEDGER: u64 = CHECK | CHECK_STACKS | LEAKS | TAGS;
/// One odd block.
const ODD: u64 = 1 << 32;

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
        let was = BUILDING.switch_on(|mode| mode & !LIGHT | PINNED);
        if ledger != 0 && was & LEDGER == 0 {
            ledger::begin();
        }
        // Another thread may have switched meanwhile, and bounds may not be pinned: once more.
        let set = |mode| (mode & (PINNED | LIGHT) == PINNED).then(|| lit(mode | bits | ledger));
        if BUILDING.change_mode(set).is_ok() {
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
    } else if mode & !(LEDGER | PINNED | LIGHT) != 0 {
        lit(mode & !LEDGER)
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
        assert_eq!(settled(PINNED | LEDGER | TRACE), PINNED | TRACE);
        assert_eq!(settled(PINNED | LEDGER | TAGS), PINNED | LEDGER | TAGS);
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
