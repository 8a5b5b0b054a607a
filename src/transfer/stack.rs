//! A stack of nodes in one word: `{ tag:32 | count:10 | index:22 }`.
//!
//! Treiber's stack (IBM RJ 5118, 1986) with a tag that rises on every change. Index and tag share
//! the word, so a head that was popped and pushed back in between no longer compares equal: the ABA
//! remedy without 128-bit atomics. LIFO, one word, no commit cursor, nobody to wait for.
//!
//! # Orderings
//! - push: the exchange releases the node's load and link; pop's load of the head acquires them.
//! - pop: its exchange can be Relaxed. On success the head is the very value that was loaded with
//!   Acquire (tags do not repeat), and an exchange continues the release sequences of the pushes
//!   below, so the next pop acquires what *its* node's pusher released.
//! - walk: a report that is too late may follow a link that was written since it read the head. The
//!   link itself is released and acquired, so the node it names is there.

use super::node::{Batch, INDEX_BITS, NodeId, Nodes};
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{AtomicU64, Tally};
use core::num::NonZeroU32;

const COUNT_BITS: u32 = 10;
/// The most nodes a stack can count. A stack without a limit counts modulo this plus one.
pub const MAX_COUNT: u32 = (1 << COUNT_BITS) - 1;

/// The head word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head(u64);

impl Head {
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn count(self) -> u32 {
        (self.0 >> INDEX_BITS) as u32 & MAX_COUNT
    }

    fn top(self) -> Option<NodeId> {
        NonZeroU32::new(self.0 as u32 & ((1 << INDEX_BITS) - 1)).map(NodeId)
    }

    /// The head after a change: `index` on top, `count` nodes.
    fn then(self, index: u32, count: u32) -> Self {
        let tag = if seed::on(Seed::FrozenTag) { 0 } else { self.tag().wrapping_add(1) };
        Self(u64::from(tag) << 32 | u64::from(count & MAX_COUNT) << INDEX_BITS | u64::from(index))
    }
}

/// A lock-free stack of batch nodes.
#[derive(Debug)]
pub struct Stack {
    head: AtomicU64,
    /// Exchanges that another thread made fail.
    pub(super) retries: Tally,
}

impl Stack {
    const_fn! {
        /// The empty stack; all zero bits.
        pub fn new() -> Self {
            Self { head: AtomicU64::new(0), retries: Tally::new() }
        }
    }

    /// Pushes unless `limit` nodes are on it already; then the batch comes back.
    pub fn push<'a>(&self, batch: Batch<'a>, limit: u32) -> Result<(), Batch<'a>> {
        let mut head = Head(self.head.load(Relaxed));
        loop {
            if head.count() >= limit {
                return Err(batch);
            }
            batch.node().next.store(head.top().map_or(0, |id| id.0.get()), Release);
            let new = head.then(batch.id().0.get(), head.count().wrapping_add(1));
            let success = seed::weaken(Seed::PushRelaxed, Release);
            match self.head.compare_exchange_weak(head.0, new.0, success, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => {
                    self.retries.note();
                    head = Head(now);
                }
            }
        }
    }

    /// Pops the node on top.
    pub fn pop<'a>(&self, nodes: &'a Nodes) -> Option<Batch<'a>> {
        let acquire = seed::weaken(Seed::PopRelaxed, Acquire);
        let mut head = Head(self.head.load(acquire));
        loop {
            let id = head.top()?;
            let next = nodes.node(id).next.load(Relaxed);
            let new = head.then(next, head.count().wrapping_sub(1));
            match self.head.compare_exchange_weak(head.0, new.0, Relaxed, acquire) {
                Ok(_) => {
                    // The next pop would wait for it: what lies on a stack has not been used for long.
                    #[cfg(not(spandrel_model))]
                    if let Some(below) = NonZeroU32::new(next) {
                        nodes.fetch(NodeId(below));
                    }
                    // SAFETY: the exchange took this node off the stack, so it is this thread's alone.
                    return Some(unsafe { nodes.hold(id) });
                }
                Err(now) => {
                    self.retries.note();
                    head = Head(now);
                }
            }
        }
    }

    /// Forgets its nodes; whoever still means to pop one of them fails.
    pub(super) fn clear(&self) {
        self.head.store(Head(self.head.load(Relaxed)).then(0, 0).0, Release);
    }

    /// Nodes on it, at one moment, modulo [`MAX_COUNT`] plus one.
    pub fn count(&self) -> u32 {
        Head(self.head.load(Relaxed)).count()
    }

    /// Sums `f` over the nodes from the top; exact while nobody pushes or pops, and finite always.
    pub(super) fn walk(&self, nodes: &Nodes, mut f: impl FnMut(NodeId)) {
        let head = Head(self.head.load(Acquire));
        let mut at = head.top();
        let mut left = head.count();
        while let Some(id) = at
            && left > 0
        {
            f(id);
            left -= 1;
            at = NonZeroU32::new(nodes.node(id).next.load(Acquire)).map(NodeId);
        }
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn head_fields_round_trip() {
        let last = NonZeroU32::new((1 << INDEX_BITS) - 1).unwrap();
        for tag in [0, 1, u32::MAX] {
            let head = Head(u64::from(tag) << 32);
            let next = head.then(last.get(), MAX_COUNT);
            assert_eq!(next.tag(), tag.wrapping_add(1));
            assert_eq!((next.count(), next.top()), (MAX_COUNT, Some(NodeId(last))));
            assert_eq!(next.then(0, MAX_COUNT + 1).top(), None);
            assert_eq!(next.then(0, MAX_COUNT + 1).count(), 0);
        }
    }
}
