//! Bins of thin classes keep apart what was freed.
//!
//! A bin hands out again what was freed last, wherever that lies. In a class of which much is free in its
//! spans this keeps objects in all of them, in turns, and none of them ever ends. There the bin's array is in
//! two parts: what came from the floor below, lowest addresses first, is on top and is handed out; what was
//! freed lies under the mark and goes back to its spans, a batch at a time. So an allocation takes the fast
//! way as ever, and a free the slow one, to be put under the mark.
//!
//! While somebody watches, such classes have no array at all.

use super::bin::Bin;
use super::sizing::Event;
use super::{Caches, Owner, ThreadCache};
use crate::base::classes::Class;
use crate::base::death;
use crate::span::Objects;

/// Of one bin, what only its owner knows: whether it keeps apart what was freed, and how much that is.
/// All zero bits if it does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Apart(u16);

impl Apart {
    pub(super) const NO: Self = Self(0);

    /// So many objects from the base up.
    fn new(count: usize) -> Self {
        Self(count as u16 + 1)
    }

    /// Objects under the mark, if it does. At most what the bin holds: whoever watched may have taken some.
    pub(super) fn count(self, bin: &Bin) -> Option<usize> {
        (self.0 != 0).then(|| (self.0 as usize - 1).min(bin.len()))
    }
}

impl<B: Objects> Caches<B> {
    /// Whether the bin is to keep apart what was freed.
    pub(super) fn is_thin(&self, class: Class) -> bool {
        self.mode() == 0 && self.below.is_thin(class)
    }

    /// The bin's bounds, when so many objects lie under its mark.
    pub(super) fn part(&self, cache: &ThreadCache, owner: &mut Owner, class: Class, count: usize) {
        owner.apart[class.index()] = Apart::new(count);
        cache.bin(class).part(count);
    }

    /// The bin is used as others are.
    pub(super) fn join(&self, cache: &ThreadCache, owner: &mut Owner, class: Class) {
        owner.apart[class.index()] = Apart::NO;
        // SAFETY: only the owner has its record; the rung is the one the array is of.
        unsafe { cache.bin(class).unpin(owner.capacity(class)) };
    }

    /// Before a refill of a bin of a thin class: what was freed goes back.
    pub(super) fn clear_apart(&self, cache: &ThreadCache, class: Class) {
        self.give_first(cache, class, cache.bin(class).len());
    }

    /// A free in a thin class. The caller sweeps and looks.
    ///
    /// # Safety
    /// As [`Caches::spill`].
    pub(super) unsafe fn keep_apart(
        &self,
        cache: &ThreadCache,
        owner: &mut Owner,
        class: Class,
        object: *mut u8,
    ) {
        let bin = cache.bin(class);
        let mut count = owner.apart[class.index()].count(bin).unwrap_or_else(|| {
            self.clear_apart(cache, class);
            0
        });
        // SAFETY: the caller owns the cache.
        if unsafe { bin.objects() }[..count].last() == Some(&object) {
            death::double_free(object.addr());
        }
        if bin.len() >= owner.capacity(class)
            && bin.len() >= self.climb(cache, owner, class, Event::Overflow)
        {
            let given = count.max(class.batch().min(bin.len()));
            self.give_first(cache, class, given);
            owner.surplus += given * class.size();
            count = 0;
        }
        if owner.surplus >= owner.release_at {
            self.release(cache, owner);
            count = 0;
        }
        if bin.len() < owner.capacity(class) {
            // SAFETY: the caller owns the cache and gives the object up; there is room.
            unsafe { bin.insert(count, object) };
            count += 1;
        } else {
            self.below.give(class, &mut [object]);
            owner.surplus += class.size();
        }
        self.part(cache, owner, class, count);
    }
}
