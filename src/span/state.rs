//! The descriptor word of a span. All bits of it are in this file.
//!
//! | bits | what |
//! |---|---|
//! | 0..20 | `live`: objects that are not free in this span; never less than what is outstanding, and more by what givers have marked free but not yet subtracted, at most a batch each |
//! | 20..28 | size class |
//! | 28 | OWNED: one thread is taking from it |
//! | 29 | LISTED: its hint is set, or is about to be |
//! | 30 | DEAD: its granules belong to the page heap |
//! | 32..64 | generation, one more each time a span begins here |
//!
//! ```text
//!            begin                      own
//!   DEAD ───────────> LISTED live > 0 ───────> OWNED ──┬─ free bits left ──> LISTED
//!    ^                   ^                             ├─ full ────────────> unlisted
//!    │                   └── list (enough is free) ──────────────────────────┘
//!    └────── die: live == 0 and nobody owns it, by the one whose exchange wins
//! ```
//!
//! The generation makes every exchange on an old value fail once the granules have moved on.

use crate::base::classes::{CLASSES, Class};

const LIVE: u64 = 0xf_ffff;
const CLASS_SHIFT: u32 = 20;
const OWNED: u64 = 1 << 28;
const LISTED: u64 = 1 << 29;
const DEAD: u64 = 1 << 30;
const GENERATION_SHIFT: u32 = 32;

/// A span's state at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub u64);

/// What may be done with a span by someone who wants objects of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// Exchange the state for this one to own the span.
    Own(State),
    /// Somebody owns it; another span will do.
    Busy,
    /// It has nothing to offer for this class.
    None,
}

impl State {
    /// A span that begins: the next generation, with `live` objects handed out already.
    pub const fn begin(self, class: Class, live: u32, listed: bool) -> Self {
        let generation = self.generation().wrapping_add(1) as u64;
        Self(
            generation << GENERATION_SHIFT
                | (class.index() as u64) << CLASS_SHIFT
                | if listed { LISTED } else { 0 }
                | live as u64,
        )
    }

    /// Objects not free in the span.
    pub const fn live(self) -> u32 {
        (self.0 & LIVE) as u32
    }

    /// Counts up which span this granule is the start of.
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    const fn class_index(self) -> usize {
        (self.0 >> CLASS_SHIFT) as usize & 0xff
    }

    /// Whether it is a live span of `class`.
    pub const fn serves(self, class: Class) -> bool {
        self.class_index() == class.index() && self.0 & DEAD == 0 && self.generation() != 0
    }

    /// Whether its hint is, or is about to be, set.
    pub const fn listed(self) -> bool {
        self.0 & LISTED != 0
    }

    /// Whether a thread is taking from it.
    pub const fn owned(self) -> bool {
        self.0 & OWNED != 0
    }

    /// Whether its granules belong to the page heap.
    pub const fn dead(self) -> bool {
        self.0 & DEAD != 0
    }

    /// What a thread that wants objects of `class` may do. `unlisted_too`: in need, spans with too
    /// little to be listed will do as well.
    pub const fn offer(self, class: Class, unlisted_too: bool) -> Offer {
        if !self.serves(class) || !(self.listed() || unlisted_too) {
            Offer::None
        } else if self.owned() {
            Offer::Busy
        } else {
            Offer::Own(Self(self.0 | OWNED | LISTED))
        }
    }

    /// The owner lets go and leaves it listed, because bits are free.
    pub const fn released(self) -> Self {
        Self(self.0 & !OWNED)
    }

    /// The owner lets go of a full span.
    pub const fn released_full(self) -> Self {
        Self(self.0 & !OWNED & !LISTED)
    }

    /// Listed, because enough is free.
    pub const fn with_listing(self) -> Self {
        Self(self.0 | LISTED)
    }

    /// In a forked child, counted anew: nobody owns it.
    pub const fn recounted(self, live: u32, listed: bool) -> Self {
        let listed = if listed { LISTED } else { 0 };
        Self(self.0 & !(LIVE | OWNED | LISTED) | live as u64 | listed)
    }

    /// The end, by whoever wins the exchange.
    pub const fn died(self) -> Self {
        Self((self.0 & !OWNED & !LISTED) | DEAD)
    }
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let class = self.class_index();
        write!(f, "gen {} ", self.generation())?;
        if class < CLASSES {
            write!(f, "{:?} ", Class::from_index(class))?;
        }
        let flag = |on, name| if on { name } else { "" };
        write!(
            f,
            "live {}{}{}{}",
            self.live(),
            flag(self.owned(), " OWNED"),
            flag(self.listed(), " LISTED"),
            flag(self.dead(), " DEAD")
        )
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        for class in Class::all() {
            for live in [0, 1, 62, 4096, 0xf_ffff] {
                for listed in [false, true] {
                    let state = State(7 << GENERATION_SHIFT | DEAD).begin(class, live, listed);
                    assert_eq!((state.live(), state.generation()), (live, 8));
                    assert!(state.serves(class) && !state.owned() && !state.dead());
                    assert_eq!(state.listed(), listed);
                    assert_eq!(matches!(state.offer(class, false), Offer::Own(_)), listed);
                    let Offer::Own(owned) = state.offer(class, true) else { panic!("{state:?}") };
                    assert!(owned.owned() && owned.live() == live);
                    assert_eq!(owned.offer(class, true), Offer::Busy);
                    assert_eq!(owned.released(), state.with_listing());
                    assert!(!owned.released_full().listed());
                    let dead = owned.died();
                    assert_eq!(dead.offer(class, true), Offer::None);
                    assert_eq!((dead.live(), dead.generation()), (live, 8));
                }
            }
        }
        assert_eq!(State(0).offer(Class::from_index(0), true), Offer::None, "never a span yet");
        let last = State(u64::from(u32::MAX) << GENERATION_SHIFT);
        assert_eq!(last.begin(Class::from_index(0), 0, false).generation(), 0, "wraps");
    }
}
