//! The bell of a thread that returns memory while nobody allocates: it sleeps when there is nothing to
//! return, and who gives granules back wakes it.
//!
//! # Orderings
//! Both sides change one word, which orders them (model M9). If the sleeper lies down first, the giver
//! finds it asleep and rings. If the giver counts first, lying down acquires that, and the look at the
//! heap behind it sees what was given. Ringing changes `rings`, so a sleeper that was about to sleep on
//! the old value does not. Nobody waits here: sleeping is the background thread's own.

use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::sync::{AtomicU32, AtomicU64};

const ASLEEP: u64 = 1;

/// One sleeper and all who give.
#[derive(Debug)]
pub struct Bell {
    /// Twice the gives so far, plus 1 while the sleeper sleeps. Any thread.
    gives: AtomicU64,
    /// Changes with every ring; what the sleeper sleeps on. Any thread.
    rings: AtomicU32,
}

impl Bell {
    const_fn! {
        /// Nobody sleeps; all zero bits.
        pub fn new() -> Self {
            Self { gives: AtomicU64::new(0), rings: AtomicU32::new(0) }
        }
    }

    /// After something was given back: counts it. `true`: the sleeper slept, and the caller wakes it.
    pub fn note(&self) -> bool {
        let order = seed::weaken(Seed::NoteRelaxed, AcqRel);
        let asleep = self.gives.fetch_add(2, order) & ASLEEP != 0;
        asleep && self.gives.fetch_and(!ASLEEP, Relaxed) & ASLEEP != 0 && {
            self.ring();
            true
        }
    }

    /// Changes what the sleeper sleeps on, asleep or not.
    pub fn ring(&self) {
        self.rings.fetch_add(1, Release);
    }

    /// What to sleep on while it has the value that [`Bell::lie_down`] answered.
    pub fn word(&self) -> &AtomicU32 {
        &self.rings
    }

    /// What the word is now.
    pub fn heard(&self) -> u32 {
        self.rings.load(Acquire)
    }

    /// The sleeper is about to sleep. It looks once more for something to do before it does so.
    pub fn lie_down(&self) -> u32 {
        let heard = self.heard();
        self.gives.fetch_or(ASLEEP, AcqRel);
        heard
    }

    /// The sleeper is up again.
    pub fn get_up(&self) {
        self.gives.fetch_and(!ASLEEP, Relaxed);
    }

    /// Gives so far.
    pub fn gives(&self) -> u64 {
        self.gives.load(Relaxed) / 2
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}
