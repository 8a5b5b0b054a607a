//! Seeded bugs: the places where a model can break the shipping code to prove that it would notice.
//!
//! In the shipping build [`on`] is a constant `false` and [`weaken`] returns its argument, so both
//! vanish. Under a model one seed at a time is switched on for the thread that runs the model, and
//! the run must go red. A green model that cannot go red proves nothing.

use super::sync::Ordering;

/// One way to break a protocol. The model that must notice is named behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// M1: the head's tag stands still, so a recycled node is mistaken for the old one.
    FrozenTag,
    /// M1: a node is published before its contents are.
    PushRelaxed,
    /// M1: a node is read without having acquired what its pusher wrote.
    PopRelaxed,
    /// M2: an object's bit is set after the count of live objects falls.
    LiveFallsFirst,
    /// M2: objects leave a span before they are counted as live.
    LiveRisesLate,
    /// M2: a span dies without acquiring what happened since its word last looked the same.
    DieRelaxed,
    /// M2: a span that someone owns is reaped.
    ReapOwned,
    /// M2: a span begins without releasing which of its bits are free.
    BeginRelaxed,
    /// M2: a span is owned without acquiring which bits its last owner cleared.
    OwnRelaxed,
    /// M2: live objects fall without releasing the last user's writes to who reaps the span.
    SettleRelaxed,
    /// M3: an owner lets go of a span without acquiring the bits that were given meanwhile.
    LetGoRelaxed,
    /// M3: an unlisted span that was searched in need stays listed, and no hint names it.
    ListUnhinted,
    /// M3: a hint is set without releasing what makes it true.
    InsertRelaxed,
    /// M3: a hint is cleared without acquiring what makes it true.
    RemoveRelaxed,
    /// M3: the same, one level up.
    TopRelaxed,
    /// M3: a stale hint is cleared and the span is not looked at again.
    NoHintRecheck,
    /// M3: the upper level of a hint set is cleared and the lower one not looked at again.
    NoTopRecheck,
    /// M2: bits are returned without releasing what the last user wrote.
    BitsRelaxed,
    /// M4: a whole hugepage is promoted by a plain store where a compare-and-swap must decide.
    PromoteByStore,
    /// M4: a hugepage is promoted without acquiring what the givers of its granules wrote.
    PromoteRelaxed,
    /// M4: granules are returned without releasing what the last user wrote.
    GranulesRelaxed,
    /// M4: the granules behind a block are claimed without acquiring what their last holder wrote.
    ExtendRelaxed,
    /// M4: granules are claimed by a load and a store where a compare-and-swap must decide.
    ClaimByStore,
    /// M5: a cache is offered for adoption before its owner has finished with it.
    OfferEarly,
    /// M5: a cache is adopted without acquiring what its last owner wrote.
    AdoptRelaxed,
    /// M15: a cache is taken over from a dead thread without acquiring what that one wrote.
    GoneUnfenced,
    /// M15: a dead thread's cache is taken over by a store where a compare-and-swap must decide.
    GoneByStore,
    /// M15: a cache that is offered still names the thread that had it.
    OwnerLeft,
    /// M5: a report believes the two ends of a bin that it read one after the other.
    TornReport,
    /// M6: a window is published before it is complete.
    PublishRelaxed,
    /// M6: a window is looked up without acquiring what its publisher wrote.
    FindRelaxed,
    /// M6: a lost publication race does not fall back to the winner's window.
    PublishByStore,
    /// M6: a window is listed without releasing what its publisher wrote.
    ListRelaxed,
    /// M6: memory is added to a window that its publisher has not put on the list yet.
    NotListed,
    /// M6: a block's mark is taken away by a load and a store where a compare-and-swap must decide.
    UnmarkByStore,
    /// M7: pages are released without claiming them first.
    PurgeUnclaimed,
    /// M7: a purged hugepage is noted as zero after it was given back.
    CleanseLate,
    /// M7: when a part of a hugepage was released, all of it is noted as zero.
    CleanseMore,
    /// M7: a hugepage goes into the map without releasing what its last holder wrote.
    MapRelaxed,
    /// M9: who gives counts it without releasing what was given to a sleeper that lies down.
    NoteRelaxed,
    /// M9: a sleeper does not look again after it lay down.
    NoLastLook,
    /// M10: pages of a span are released without owning it.
    ShedUnowned,
    /// M10: a page is released without acquiring the last writes of its objects' users.
    ShedRelaxed,
    /// M11: a stack's record is named before it is written.
    StackRelaxed,
    /// M11: a stack is found without acquiring its record.
    StackFoundRelaxed,
    /// M11: a stack takes a slot by a store where a compare-and-swap must decide.
    StackByStore,
    /// M14: units of a trace are claimed by a load and a store where a compare-and-swap must decide.
    ClaimUnitsByStore,
    /// M14: a record is counted before it is written.
    CountFirst,
    /// M14: a record is counted without releasing it.
    CountRelaxed,
    /// M8: a dying span is reaped by whoever sees it empty, not by the one who wins it.
    ReapTwice,
    /// M13: an object that is taken back stays noted as held.
    HeldForEver,
    /// M13: a window's shadow is published by a store where a compare-and-swap must decide.
    ShadowByStore,
    /// M13: the same, without releasing it to who finds it there.
    ShadowRelaxed,
    /// M12: the owner of a cache stores a bound and does not look at the mode afterwards.
    NoLook,
    /// M12: it looks, and the look may be done before the store.
    LookUnfenced,
    /// M12: the pins are set before the mode is.
    PinsFirst,
    /// M12: the owner opens a bin and does not look whether the mode is still the one that allows it.
    OpenUnseen,
}

/// Is this bug switched on?
#[cfg(not(spandrel_model))]
#[inline(always)]
pub const fn on(_: Seed) -> bool {
    false
}

/// The ordering to use: `right`, or `Relaxed` when the bug is switched on.
#[cfg(not(spandrel_model))]
#[inline(always)]
pub const fn weaken(_: Seed, right: Ordering) -> Ordering {
    right
}

#[cfg(spandrel_model)]
mod model {
    use super::{Ordering, Seed};
    use std::cell::Cell;

    std::thread_local! {
        static ACTIVE: Cell<Option<Seed>> = const { Cell::new(None) };
        static SEES: Cell<bool> = const { Cell::new(false) };
    }

    /// The words that a checker sees on demand are seen by models that run on this thread, or not.
    pub fn see(them: bool) {
        SEES.set(them);
    }

    pub fn sees() -> bool {
        SEES.get()
    }

    /// Switches one bug on (or all off) for models that run on this thread.
    pub fn sow(seed: Option<Seed>) {
        ACTIVE.set(seed);
    }

    pub fn on(seed: Seed) -> bool {
        ACTIVE.get() == Some(seed)
    }

    pub fn weaken(seed: Seed, right: Ordering) -> Ordering {
        if on(seed) { Ordering::Relaxed } else { right }
    }
}
#[cfg(spandrel_model)]
pub use model::{on, see, sees, sow, weaken};
