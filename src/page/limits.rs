//! Limits on how much memory the heap may have: granules that were handed out since they were last
//! known to be zero, and mappings of their own, each counted whole. The allocator's own records are not
//! in it.
//!
//! At the hard limit a request gets nothing, after all that is free was returned. Crossing the soft
//! limit returns what is free, and if that is not enough, tells whoever listens: later, on the
//! background thread, never inside an allocation.

use super::heap::PageHeap;
use super::window::Window;
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::{AtomicU8, AtomicU64, AtomicUsize};
use crate::base::units::{GRANULE, HUGEPAGE};
use crate::os::{Os, Zeroed};

/// How often, at most, memory is returned because the soft limit was crossed, in milliseconds.
const PRESS_MS: u64 = 100;

/// So much new memory, or a sixty-fourth of the heap, is reason to look for what lies idle: in pieces that
/// do not fit, higher up, or for another kind of block.
const PAY_EVERY: usize = HUGEPAGE;
/// A heap up to this size does not pay.
const PAY_FROM: usize = 4 * HUGEPAGE;
/// One part in so many may lie idle. What is above that pays for what is new, so that what is resident
/// grows only with what is in use.
const IDLE_PART: usize = 8;
/// The same once one part in [`PAID_OFTEN`] of the heap was returned for it since the last tick: then blocks
/// of changing size return and fault in the same memory again and again, which is dearer than keeping some
/// more of it.
const IDLE_PART_OFTEN: usize = 3;
const PAID_OFTEN: usize = 4;

/// Where the heap stands against its limits. Any thread, relaxed: policy and sums.
#[derive(Debug)]
pub(super) struct Pressure {
    /// 1 from the moment the soft limit was crossed until the heap is an eighth below it.
    above: AtomicU8,
    /// 1 when it was crossed so soon after the last time that only the background thread looks.
    pending: AtomicU8,
    /// When memory was last returned because of it, and how much was in use afterwards.
    pressed_at: AtomicU64,
    pressed_to: AtomicUsize,
    crossings: AtomicU64,
    refusals: AtomicU64,
    /// Bytes returned to pay for what is new, since the last tick.
    paid: AtomicUsize,
}

/// The limits and what became of them.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes that count against the limits now.
    pub used: usize,
    /// The soft limit in bytes.
    pub soft: Option<usize>,
    /// The hard limit in bytes.
    pub hard: Option<usize>,
    /// How often the soft limit was crossed although all that was free had been returned.
    pub crossings: u64,
    /// Requests refused because of the hard limit.
    pub refusals: u64,
}

impl Pressure {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                above: AtomicU8::new(0),
                pending: AtomicU8::new(0),
                pressed_at: AtomicU64::new(0),
                pressed_to: AtomicUsize::new(0),
                crossings: AtomicU64::new(0),
                refusals: AtomicU64::new(0),
                paid: AtomicUsize::new(0),
            }
        }
    }
}

/// How much of a heap of `backed` bytes may lie idle when `paid` of them were returned for what is new since
/// the last tick.
fn may_lie_idle(backed: usize, paid: usize) -> usize {
    backed / if paid > backed / PAID_OFTEN { IDLE_PART_OFTEN } else { IDLE_PART }
}

impl<O: Os, M: Zeroed + Sync + 'static> PageHeap<O, M> {
    /// Makes room for `bytes` more, if the limits allow: how much was counted for it already, which is
    /// nothing where there are no limits.
    pub(super) fn admit(&self, bytes: usize) -> Option<usize> {
        let (soft, hard) = (self.policy().soft(), self.policy().hard());
        if soft.is_none() && hard.is_none() {
            return Some(0);
        }
        self.admit_within(bytes, soft.unwrap_or(usize::MAX), hard.unwrap_or(usize::MAX))
    }

    #[cold]
    fn admit_within(&self, bytes: usize, soft: usize, hard: usize) -> Option<usize> {
        let mut used = self.count(bytes);
        if used > hard {
            self.discount(bytes);
            self.purge_all();
            used = self.count(bytes);
            // Another thread may be trying the same: then one of the two is refused early.
            if used > hard {
                self.discount(bytes);
                self.pressure.refusals.fetch_add(1, Relaxed);
                return None;
            }
        }
        if used > soft {
            self.press(used, soft);
        }
        Some(bytes)
    }

    /// Of what [`PageHeap::admit`] counted, `fresh` bytes are new; the rest was counted before.
    pub(super) fn admitted(&self, counted: usize, fresh: usize) {
        if fresh != counted {
            self.counters.backed.fetch_add(fresh.wrapping_sub(counted), Relaxed);
        }
        if fresh != 0 {
            let before = self.counters.fresh.fetch_add(fresh as u64, Relaxed) as usize;
            let backed = self.counters.backed.load(Relaxed);
            let every = PAY_EVERY.max(backed / 64);
            if before / every != (before + fresh) / every && backed > PAY_FROM {
                let may_lie = may_lie_idle(backed, self.pressure.paid.load(Relaxed));
                let spare = self.idle().saturating_sub(may_lie);
                let returned = self.purge_idle(spare.min(every.max(fresh)));
                self.pressure.paid.fetch_add(returned, Relaxed);
            }
        }
    }

    /// At each tick: what is paid is counted anew.
    pub(super) fn forget_payments(&self) {
        self.pressure.paid.store(0, Relaxed);
    }

    /// Bytes that are free and may have memory behind them.
    fn idle(&self) -> usize {
        let granules: u32 = self.windows().map(Window::idle).sum();
        granules as usize * GRANULE
    }

    /// Counts `bytes` more; answers how many there are.
    fn count(&self, bytes: usize) -> usize {
        self.counters.backed.fetch_add(bytes, Relaxed).saturating_add(bytes)
    }

    fn discount(&self, bytes: usize) {
        self.counters.backed.fetch_sub(bytes, Relaxed);
    }

    /// Bytes that counted went back: then the heap may be below its soft limit again, and the next crossing is
    /// told.
    pub(super) fn relieved(&self, bytes: usize) {
        self.discount(bytes);
        self.pressed();
    }

    /// Above the soft limit: returns what is free, not too often, and tells of it if that is not enough.
    fn press(&self, used: usize, soft: usize) {
        let (now, last) = (self.os.now_ms(), self.pressure.pressed_at.load(Relaxed));
        let due = last == 0
            || now >= last + PRESS_MS
            || used >= self.pressure.pressed_to.load(Relaxed).saturating_add(soft / 32);
        if due && self.pressure.pressed_at.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            self.relieve(soft);
        } else if self.pressure.above.load(Relaxed) == 0
            && self.pressure.pending.swap(1, Relaxed) == 0
        {
            self.ring();
        }
    }

    fn relieve(&self, soft: usize) {
        self.purge_all();
        self.pressure.pressed_to.store(self.counters.backed.load(Relaxed), Relaxed);
        if self.counters.backed.load(Relaxed) > soft && self.pressure.above.swap(1, Relaxed) == 0 {
            self.pressure.crossings.fetch_add(1, Relaxed);
            self.ring();
        }
    }

    fn ring(&self) {
        self.bell.ring();
        self.os.wake(self.bell.word());
    }

    /// For the background thread: what allocations had no time for.
    pub fn look_at_pressure(&self) {
        if self.pressure.pending.swap(0, Relaxed) != 0
            && let Some(soft) = self.policy().soft()
            && !self.pressed()
        {
            self.relieve(soft);
        }
    }

    /// Whether the heap is above its soft limit although all that was free here was returned: then the
    /// floors above keep less.
    pub fn pressed(&self) -> bool {
        if self.pressure.above.load(Relaxed) == 0 {
            return false;
        }
        let soft = self.policy().soft().unwrap_or(usize::MAX);
        let above = self.counters.backed.load(Relaxed) > soft - soft / 8;
        if !above {
            self.pressure.above.store(0, Relaxed);
        }
        above
    }

    /// The limits and what became of them.
    pub fn limits(&self) -> Limits {
        Limits {
            used: self.counters.backed.load(Relaxed),
            soft: self.policy().soft(),
            hard: self.policy().hard(),
            crossings: self.pressure.crossings.load(Relaxed),
            refusals: self.pressure.refusals.load(Relaxed),
        }
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn more_may_lie_idle_once_it_was_paid_with_often() {
        assert_eq!(may_lie_idle(960, 0), 120);
        assert_eq!(may_lie_idle(960, 240), 120, "a quarter is not often");
        assert_eq!(may_lie_idle(960, 241), 320);
    }
}
