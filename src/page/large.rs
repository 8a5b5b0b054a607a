//! Large blocks: whole granules from the page heap up to 128 MiB, a mapping of their own above.
//!
//! Which of the two a block is follows from its size and alignment alone ([`Extent::of`]). Either
//! leaves the same record: a mark on its first granule in the window that holds it, and a length.
//! So every free is checked, and one that brings no `Layout` finds what it needs. A window that
//! holds nothing but such records is published and not listed: no search for granules comes by.
//!
//! # Orderings
//! Mark and length are Relaxed: the program's own hand-over of the block orders its holder and who
//! gives it back. Of two that give one block back, the exchange of the mark lets one through
//! (model M6).

use super::heap::{PageHeap, WINDOWS_SPLIT};
use super::window::{Grain, Window};
use crate::base::classes::Use;
use crate::base::death;
use crate::base::options::HugepagePolicy;
use crate::base::sync::Ordering::Relaxed;
use crate::base::units::*;
use crate::os::{Move, Os, Resize, Zeroed};
use core::ptr::{self, NonNull};

/// How a large block is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// This many granules, at a multiple of 2^order.
    Granules {
        /// How many.
        count: usize,
        /// Their alignment; up to a hugepage also the order of the run they are cut from.
        order: u32,
    },
    /// A mapping of this many bytes, at a multiple of `align`.
    Mapping {
        /// How many, a multiple of the page size and of a granule.
        bytes: usize,
        /// Where it starts when it is new, at least a hugepage.
        align: usize,
    },
}

impl Extent {
    /// Bytes of the block.
    pub const fn bytes(self) -> usize {
        match self {
            Extent::Granules { count, .. } => count * GRANULE,
            Extent::Mapping { bytes, .. } => bytes,
        }
    }

    /// How a block of `size` bytes (0 is held like 1) at `align` is held; `None` if no system could.
    pub const fn of(size: usize, align: usize, page_size: usize) -> Option<Self> {
        let size = if size == 0 { 1 } else { size };
        if size <= GRANULE << MAX_ORDER && align <= GRANULE << MAX_ORDER {
            let count = granules_for(size);
            // Neighbouring hugepages need no further alignment than each of them has.
            let fits = order_for(count);
            let fits = if fits > HUGEPAGE_ORDER { HUGEPAGE_ORDER } else { fits };
            let aligned = order_for(granules_for(align));
            let order = if fits > aligned { fits } else { aligned };
            return Some(Extent::Granules { count, order });
        }
        if size > isize::MAX as usize - HUGEPAGE {
            return None;
        }
        let align = if align > HUGEPAGE { align } else { HUGEPAGE };
        let unit = if page_size > GRANULE { page_size } else { GRANULE };
        Some(Extent::Mapping { bytes: size.next_multiple_of(unit), align })
    }
}

impl<O: Os, M: Zeroed + Sync + 'static> PageHeap<O, M> {
    /// Hands out a block of `size` bytes at `align`; if `zero`, all of it reads as zero.
    pub fn large_alloc(&self, size: usize, align: usize, zero: bool) -> Option<NonNull<u8>> {
        match Extent::of(size, align, self.os.page_size())? {
            Extent::Granules { count, order } => {
                let grain = Grain::of_block(count);
                let run = if zero {
                    self.take_zeroed(grain, order, count)
                } else {
                    self.take_for(grain, order, count)
                }?;
                run.window.set_length(run.first, count);
                run.window.set_usage(run.first, 1, Use::Large);
                NonNull::new(ptr::with_exposed_provenance_mut(run.address()))
            }
            Extent::Mapping { bytes, align } => {
                let counted = self.admit(bytes)?;
                let at = self.new_mapping(bytes, align);
                // It counts by itself now, or not at all.
                self.admitted(counted, 0);
                at
            }
        }
    }

    /// Hands out a mapping of its own whatever the size: one that touches nothing of the heap.
    pub fn large_alloc_apart(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let unit = self.os.page_size().max(GRANULE);
        let bytes = size.max(1).checked_next_multiple_of(unit)?;
        self.new_mapping(bytes, align.max(HUGEPAGE))
    }

    /// The same within the limits, for a request that is not in need.
    pub fn large_alloc_own(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let unit = self.os.page_size().max(GRANULE);
        let bytes = size.max(1).checked_next_multiple_of(unit)?;
        let counted = self.admit(bytes)?;
        let at = self.new_mapping(bytes, align.max(HUGEPAGE));
        self.admitted(counted, 0);
        at
    }

    fn new_mapping(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let (at, window) = self.map_block(bytes, align)?;
        self.note_mapping(window, at, bytes);
        Some(at)
    }

    /// What a block's first granule is marked with, and how many bytes the block has, if a large
    /// block or a mapping starts at `addr`. Lock-free; for a block in the program's hands it is exact.
    pub fn large_at(&self, addr: usize) -> Option<(Use, usize)> {
        let window = self.find(addr)?;
        let first = Granule::of(addr);
        match window.usage(first) {
            usage @ (Use::Large | Use::Mapping) if addr.is_multiple_of(GRANULE) => {
                Some((usage, window.length(first) * GRANULE))
            }
            _ => None,
        }
    }

    /// Takes a block back that [`PageHeap::large_at`] has found; one free of several, the others die.
    ///
    /// # Safety
    /// Nobody uses the block any more.
    pub unsafe fn large_free_found(&self, at: NonNull<u8>, usage: Use, bytes: usize) {
        if usage == Use::Mapping {
            self.forget_mapping(at, bytes);
            // SAFETY: the caller gives up a block that is this whole mapping.
            return unsafe { self.drop_mapping(at, bytes) };
        }
        // SAFETY: the caller gives up a run of this many granules.
        unsafe { self.large_free(at, bytes, 1) }
    }

    /// A mapping of its own for a block, without its record, and the window that will hold the record.
    /// A heap that holds such a block is large, so hugepages are asked for.
    fn map_block(&self, bytes: usize, align: usize) -> Option<(NonNull<u8>, &Window<M>)> {
        let at = self.os.map(bytes, align)?;
        let Some(window) = self.window_at(at.addr().get()) else {
            // SAFETY: nobody else knows of this mapping.
            unsafe { self.drop_mapping(at, bytes) };
            return None;
        };
        if self.policy().hugepages() == HugepagePolicy::Auto {
            // SAFETY: the mapping is new and ours.
            unsafe { self.os.advise_hugepages(at, bytes / HUGEPAGE * HUGEPAGE, true) };
        }
        Some((at, window))
    }

    fn note_mapping(&self, window: &Window<M>, at: NonNull<u8>, bytes: usize) {
        let first = Granule::of(at.addr().get());
        window.set_length(first, bytes / GRANULE);
        window.set_usage(first, 1, Use::Mapping);
        self.counters.huge.fetch_add(bytes, Relaxed);
        self.counters.huge_blocks.fetch_add(1, Relaxed);
        self.counters.backed.fetch_add(bytes, Relaxed);
    }

    /// Takes the record of a mapping away, for one caller of all that try; dies by name if `at` is
    /// not the start of a mapping of that many bytes.
    fn forget_mapping(&self, at: NonNull<u8>, bytes: usize) -> &Window<M> {
        let addr = at.addr().get();
        let Some(window) = self.find(addr) else { self.not_a_block(addr) };
        let first = Granule::of(addr);
        match window.usage(first) {
            Use::Mapping if !addr.is_multiple_of(GRANULE) => death::invalid_free(addr),
            Use::Mapping if window.length(first) * GRANULE != bytes => death::wrong_class(addr),
            Use::Mapping if window.unmark(first, Use::Mapping) => {}
            Use::Mapping => death::double_free(addr),
            Use::Span(_) | Use::Large => death::wrong_class(addr),
            Use::None => self.not_a_block(addr),
        }
        self.counters.huge.fetch_sub(bytes, Relaxed);
        self.counters.huge_blocks.fetch_sub(1, Relaxed);
        self.relieved(bytes);
        window
    }

    /// # Safety
    /// The whole mapping is the caller's to give up.
    unsafe fn drop_mapping(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise.
        if !unsafe { self.os.unmap(at, bytes) } {
            // The system would not take the addresses (its limit of mappings, most likely); the
            // memory behind them goes back all the same.
            // SAFETY: as above.
            unsafe { self.os.purge(at, bytes) };
            self.counters.stranded.fetch_add(bytes, Relaxed);
        }
    }

    /// An address that is the start of no block was given back: dies by the name that fits.
    #[cold]
    pub fn not_a_block(&self, addr: usize) -> ! {
        if self.inside_mapping(addr) {
            death::invalid_free(addr)
        }
        match self.find(addr) {
            Some(window) => window.not_a_block(addr),
            None => death::foreign_free(addr),
        }
    }

    /// Whether the nearest mark of a mapping below `addr` is that of one which reaches beyond it.
    fn inside_mapping(&self, addr: usize) -> bool {
        let mut end = if self.map.covers(addr) { addr } else { 0 };
        while end != 0 {
            let start = (end - 1) & !(WINDOW - 1);
            if let Some(window) = self.find(start) {
                let granules = (end - start).div_ceil(GRANULE);
                let marked = |&index: &usize| window.usage(Granule(index as u32)) == Use::Mapping;
                if let Some(index) = (0..granules).rev().find(marked) {
                    let first = Granule(index as u32);
                    return addr - window.address(first) < window.length(first) * GRANULE;
                }
            }
            end = start;
        }
        false
    }

    /// Takes a block back; dies by name if it is none.
    ///
    /// # Safety
    /// `at` was handed out for `size` and `align` and nobody uses it any more.
    pub unsafe fn large_free(&self, at: NonNull<u8>, size: usize, align: usize) {
        match Extent::of(size, align, self.os.page_size()) {
            Some(Extent::Granules { count, .. }) => {
                let addr = at.addr().get();
                let Some(window) = self.find(addr) else { self.not_a_block(addr) };
                let first = Granule::of(addr);
                match window.usage(first) {
                    Use::Large if !addr.is_multiple_of(GRANULE) => death::invalid_free(addr),
                    Use::Large if window.length(first) != count => death::wrong_class(addr),
                    Use::Large if window.unmark(first, Use::Large) => {
                        self.give(window, first, count);
                    }
                    Use::Large => death::double_free(addr),
                    // From `large_alloc_apart`, for a request that granules would have served.
                    Use::Mapping if window.length(first) == count => {
                        // SAFETY: the caller's promise.
                        unsafe { self.large_free_found(at, Use::Mapping, count * GRANULE) };
                    }
                    Use::Span(_) | Use::Mapping => death::wrong_class(addr),
                    Use::None => self.not_a_block(addr),
                }
            }
            Some(Extent::Mapping { bytes, .. }) => {
                self.forget_mapping(at, bytes);
                // SAFETY: the caller gives up a block that is this whole mapping.
                unsafe { self.drop_mapping(at, bytes) };
            }
            None => death::wrong_class(at.addr().get()),
        }
    }

    /// Resizes a block without copying it: in place, or, where it has a mapping of its own, by
    /// moving its pages. `None`: it cannot be done and nothing has changed.
    ///
    /// # Safety
    /// `at` was handed out for `old` bytes at `align`. On `Some` the block is where that says and
    /// `new` bytes long, and the old address is gone.
    pub unsafe fn large_resize(
        &self,
        at: NonNull<u8>,
        old: usize,
        new: usize,
        align: usize,
    ) -> Option<NonNull<u8>> {
        let page_size = self.os.page_size();
        match (Extent::of(old, align, page_size)?, Extent::of(new, align, page_size)?) {
            (Extent::Granules { count: old, .. }, Extent::Granules { count: new, .. }) => {
                let addr = at.addr().get();
                let Some(window) = self.find(addr) else { self.not_a_block(addr) };
                let first = Granule::of(addr);
                if window.usage(first) != Use::Large || window.length(first) != old {
                    death::wrong_class(addr);
                }
                if new < old {
                    window.set_length(first, new);
                    self.give(window, Granule(first.0 + new as u32), old - new);
                } else if new > old {
                    if begins_to_move(first, old, new)
                        || !self.extend(window, Granule(first.0 + old as u32), new - old)
                    {
                        return self.move_block(window, first, old, new, align);
                    }
                    window.set_length(first, new);
                }
                Some(at)
            }
            (Extent::Granules { count, .. }, Extent::Mapping { bytes, align })
                if count >= MOVED_FROM =>
            {
                let addr = at.addr().get();
                let Some(window) = self.find(addr) else { self.not_a_block(addr) };
                let first = Granule::of(addr);
                if window.usage(first) != Use::Large || window.length(first) != count {
                    death::wrong_class(addr);
                }
                let counted = self.admit(bytes)?;
                // SAFETY: the block is the caller's and has that many granules.
                let moved = unsafe { self.move_to_mapping(window, first, count, bytes, align) };
                // It counts by itself now, or not at all.
                self.admitted(counted, 0);
                moved
            }
            (Extent::Mapping { bytes: old, .. }, Extent::Mapping { bytes: new, align }) => {
                let counted = self.admit(new.saturating_sub(old))?;
                // SAFETY: the caller's promise.
                let moved = unsafe { self.resize_mapping(at, old, new, align) };
                // It counts by itself, whatever came of it.
                self.admitted(counted, 0);
                moved
            }
            _ => None,
        }
    }

    /// Resizes a mapping in place, or moves its pages to a new one at a multiple of `align`.
    ///
    /// # Safety
    /// As [`PageHeap::large_resize`].
    unsafe fn resize_mapping(
        &self,
        at: NonNull<u8>,
        old: usize,
        new: usize,
        align: usize,
    ) -> Option<NonNull<u8>> {
        // Without a record while it changes: the old addresses may be somebody else's at any moment.
        let window = self.forget_mapping(at, old);
        if old == new {
            self.note_mapping(window, at, old);
            return Some(at);
        }
        // SAFETY: the caller's block is this whole mapping.
        let resized = unsafe { self.os.resize(at, old, new) };
        if resized == Resize::Done {
            self.note_mapping(window, at, new);
            return Some(at);
        }
        if new > old
            && let Some((to, its)) = self.map_block(new, align)
        {
            // SAFETY: two whole mappings, the second made above; the block is shorter.
            let moved = unsafe {
                match resized {
                    Resize::InPieces => self.move_bytes(at, to, old).is_some_and(|_| {
                        self.drop_mapping(at, old);
                        true
                    }),
                    _ => self.os.move_onto(at, old, to, new),
                }
            };
            if moved {
                self.note_mapping(its, to, new);
                return Some(to);
            }
            // The system may have taken the target away before it refused, and given the addresses to
            // somebody else: they are left alone.
            self.counters.stranded.fetch_add(new, Relaxed);
        }
        self.note_mapping(window, at, old);
        None
    }

    /// Moves a block of `count` granules to a mapping of its own of `bytes`, which is longer. `None`:
    /// nothing has changed.
    ///
    /// # Safety
    /// The block is the caller's.
    unsafe fn move_to_mapping(
        &self,
        window: &Window<M>,
        first: Granule,
        count: usize,
        bytes: usize,
        align: usize,
    ) -> Option<NonNull<u8>> {
        let (to, its) = self.map_block(bytes, align)?;
        // SAFETY: the block is the caller's, and the mapping was made above.
        if !unsafe { self.move_out(window, first, count, to) } {
            // As in `resize_mapping`.
            self.counters.stranded.fetch_add(bytes, Relaxed);
            return None;
        }
        self.note_mapping(its, to, bytes);
        Some(to)
    }

    /// Finds a block of `old` granules a place of `new` granules and moves its pages there. `None` where
    /// copying is cheaper or moving is impossible; then nothing has changed.
    fn move_block(
        &self,
        window: &Window<M>,
        first: Granule,
        old: usize,
        new: usize,
        align: usize,
    ) -> Option<NonNull<u8>> {
        if old < MOVED_FROM || self.windows().nth(WINDOWS_SPLIT).is_some() {
            return None;
        }
        let page_size = self.os.page_size();
        let Extent::Granules { order, .. } = Extent::of(new * GRANULE, align, page_size)? else {
            return None;
        };
        let run = self.take_for(Grain::of_block(new), order, new)?;
        let to = NonNull::new(ptr::with_exposed_provenance_mut(run.address()))?;
        // SAFETY: the caller's block, and a longer run that was claimed above.
        if !unsafe { self.move_out(window, first, old, to) } {
            // Not given back: the system may have taken some of it away before it refused.
            self.counters.stranded.fetch_add(new * GRANULE, Relaxed);
            return None;
        }
        run.window.set_length(run.first, new);
        run.window.set_usage(run.first, 1, Use::Large);
        Some(to)
    }

    /// Moves a block of `count` granules to `to` and gives its granules back. `false`: the block is as
    /// it was, and what is at `to` may be gone.
    ///
    /// # Safety
    /// The block and at least as many bytes at `to` are the caller's.
    unsafe fn move_out(
        &self,
        window: &Window<M>,
        first: Granule,
        count: usize,
        to: NonNull<u8>,
    ) -> bool {
        let addr = window.address(first);
        let Some(from) = NonNull::new(ptr::with_exposed_provenance_mut(addr)) else { return false };
        // SAFETY: the caller's promise.
        let Some(moved) = (unsafe { self.move_bytes(from, to, count * GRANULE) }) else {
            return false;
        };
        if !window.unmark(first, Use::Large) {
            death::double_free(addr);
        }
        let cleansed = window.cleanse_all(first, moved / GRANULE);
        self.relieved(cleansed * GRANULE);
        self.give(window, first, count);
        true
    }

    /// Moves whole hugepages and copies the rest; copies all where the system cannot move or one of the
    /// two does not begin at a hugepage. Answers how many bytes at `from` read as zero now; `None`: they
    /// are as they were, and what is at `to` may be gone.
    ///
    /// # Safety
    /// As [`Os::move_pages`], but for the last hugepage.
    unsafe fn move_bytes(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Option<usize> {
        let aligned = (from.addr().get() | to.addr().get()).is_multiple_of(HUGEPAGE);
        let whole = if aligned { bytes / HUGEPAGE * HUGEPAGE } else { 0 };
        let moved = if whole == 0 {
            Move::Refused
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.os.move_pages(from, to, whole) }
        };
        let done = match moved {
            Move::Done => whole,
            Move::Refused => 0,
            Move::TargetLost => return None,
        };
        // SAFETY: both are that long and the caller's.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr().add(done), to.as_ptr().add(done), bytes - done);
        }
        Some(done)
    }
}

/// From this many granules on, a block is moved by its pages and not by its bytes: two hugepages.
/// Below, copying costs less than what the system does for a move.
const MOVED_FROM: usize = 2 * GRANULES_PER_HUGEPAGE;

/// Whether a growing block becomes large enough for moves by whole hugepages, but does not begin at
/// one: the last time that copying it is cheap.
fn begins_to_move(first: Granule, old: usize, new: usize) -> bool {
    first.bit() != 0 && old <= GRANULES_PER_HUGEPAGE && new > GRANULES_PER_HUGEPAGE
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn extent_by_size_and_alignment() {
        let of = |size, align| Extent::of(size, align, 4096);
        assert_eq!(of(1, 1), Some(Extent::Granules { count: 1, order: 0 }));
        assert_eq!(of(GRANULE + 1, 8), Some(Extent::Granules { count: 2, order: 1 }));
        assert_eq!(of(3 * GRANULE, 8), Some(Extent::Granules { count: 3, order: 2 }));
        assert_eq!(of(1, HUGEPAGE), Some(Extent::Granules { count: 1, order: 6 }));
        assert_eq!(of(128 << 20, 1), Some(Extent::Granules { count: 4096, order: 6 }));
        assert_eq!(of(1, 128 << 20), Some(Extent::Granules { count: 1, order: 12 }));
        let above = (128 << 20) + 1;
        assert_eq!(
            of(above, 1),
            Some(Extent::Mapping { bytes: (128 << 20) + GRANULE, align: HUGEPAGE })
        );
        for size in [0, 1] {
            assert_eq!(of(size, 1 << 30), Some(Extent::Mapping { bytes: GRANULE, align: 1 << 30 }));
        }
        assert_eq!(of(isize::MAX as usize, 1), None);
        assert_eq!(of(usize::MAX, 1), None);
    }
}
