//! Large blocks: whole granules from the page heap up to 128 MiB, a mapping of their own above.
//!
//! Which of the two a block is follows from its size and alignment alone ([`Extent::of`]), so a
//! free that brings its `Layout` needs no look-up for a mapping of its own.

use super::heap::PageHeap;
use crate::base::classes::Use;
use crate::base::death;
use crate::base::sync::Ordering::Relaxed;
use crate::base::units::*;
use crate::os::{Os, Zeroed};
use core::ptr::{self, NonNull};

/// How a large block is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// This many granules, at a multiple of 2^order.
    Granules {
        /// How many.
        count: usize,
        /// The order of the run they are cut from.
        order: u32,
    },
    /// A mapping of this many bytes, at a multiple of `align`.
    Mapping {
        /// How many, a multiple of the page size.
        bytes: usize,
        /// Where it starts when it is new, at least a hugepage.
        align: usize,
    },
}

impl Extent {
    /// How a block of `size` bytes (0 is held like 1) at `align` is held; `None` if no system could.
    pub const fn of(size: usize, align: usize, page_size: usize) -> Option<Self> {
        let size = if size == 0 { 1 } else { size };
        if size <= GRANULE << MAX_ORDER && align <= GRANULE << MAX_ORDER {
            let count = granules_for(size);
            let (fits, aligned) = (order_for(count), order_for(granules_for(align)));
            let order = if fits > aligned { fits } else { aligned };
            return Some(Extent::Granules { count, order });
        }
        if size > isize::MAX as usize - HUGEPAGE {
            return None;
        }
        let align = if align > HUGEPAGE { align } else { HUGEPAGE };
        Some(Extent::Mapping { bytes: size.next_multiple_of(page_size), align })
    }
}

impl<O: Os, M: Zeroed + Sync + 'static> PageHeap<O, M> {
    /// Hands out a block of `size` bytes at `align`; if `zero`, all of it reads as zero.
    pub fn large_alloc(&self, size: usize, align: usize, zero: bool) -> Option<NonNull<u8>> {
        match Extent::of(size, align, self.os.page_size())? {
            Extent::Granules { count, order } => {
                let run =
                    if zero { self.take_zeroed(order, count) } else { self.take(order, count) }?;
                run.window.set_length(run.first, count);
                run.window.set_usage(run.first, 1, Use::Large);
                NonNull::new(ptr::with_exposed_provenance_mut(run.address()))
            }
            Extent::Mapping { bytes, align } => {
                let at = self.os.map(bytes, align)?;
                self.counters.huge.fetch_add(bytes, Relaxed);
                self.counters.huge_blocks.fetch_add(1, Relaxed);
                Some(at)
            }
        }
    }

    /// Takes a block back; dies by name if it is none.
    ///
    /// # Safety
    /// `at` was handed out for `size` and `align` and nobody uses it any more.
    pub unsafe fn large_free(&self, at: NonNull<u8>, size: usize, align: usize) {
        match Extent::of(size, align, self.os.page_size()) {
            Some(Extent::Granules { count, .. }) => {
                let addr = at.addr().get();
                let Some(window) = self.find(addr) else { death::foreign_free(addr) };
                let first = Granule::of(addr);
                match window.usage(first) {
                    Use::Large if !addr.is_multiple_of(GRANULE) => death::invalid_free(addr),
                    Use::Large if window.length(first) != count => death::wrong_class(addr),
                    Use::Large if window.unmark_large(first) => self.give(window, first, count),
                    Use::Large => death::double_free(addr),
                    Use::Span(_) => death::wrong_class(addr),
                    Use::None => window.not_a_block(addr),
                }
            }
            Some(Extent::Mapping { bytes, .. }) => {
                self.counters.huge.fetch_sub(bytes, Relaxed);
                self.counters.huge_blocks.fetch_sub(1, Relaxed);
                // SAFETY: the caller gives up a block that is this whole mapping.
                if !unsafe { self.os.unmap(at, bytes) } {
                    // The system would not take the addresses (its limit of mappings, most likely);
                    // the memory behind them goes back all the same.
                    // SAFETY: as above.
                    unsafe { self.os.purge(at, bytes) };
                    self.counters.stranded.fetch_add(bytes, Relaxed);
                }
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
                let Some(window) = self.find(addr) else { death::foreign_free(addr) };
                let first = Granule::of(addr);
                if window.usage(first) != Use::Large || window.length(first) != old {
                    death::wrong_class(addr);
                }
                if new < old {
                    window.set_length(first, new);
                    self.give(window, Granule(first.0 + new as u32), old - new);
                } else if new > old {
                    if !self.extend(window, Granule(first.0 + old as u32), new - old) {
                        return None;
                    }
                    window.set_length(first, new);
                }
                Some(at)
            }
            (Extent::Mapping { bytes: old, .. }, Extent::Mapping { bytes: new, .. }) => {
                if old == new {
                    return Some(at);
                }
                // A shrinking mapping stays where it is.
                if align > page_size && new > old {
                    return None;
                }
                // SAFETY: the caller's block is this whole mapping, and a page is alignment enough.
                let moved = unsafe { self.os.remap(at, old, new) }?;
                self.counters.huge.fetch_add(new, Relaxed);
                self.counters.huge.fetch_sub(old, Relaxed);
                Some(moved)
            }
            _ => None,
        }
    }
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
        assert_eq!(of(128 << 20, 1), Some(Extent::Granules { count: 4096, order: 12 }));
        let above = (128 << 20) + 1;
        assert_eq!(
            of(above, 1),
            Some(Extent::Mapping { bytes: (128 << 20) + 4096, align: HUGEPAGE })
        );
        for size in [0, 1] {
            assert_eq!(of(size, 1 << 30), Some(Extent::Mapping { bytes: 4096, align: 1 << 30 }));
        }
        assert_eq!(of(isize::MAX as usize, 1), None);
        assert_eq!(of(usize::MAX, 1), None);
    }
}
