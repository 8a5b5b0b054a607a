//! The page heap in a forked child: granules that threads which it does not have held in their hands.

use super::heap::PageHeap;
use super::window::Window;
use crate::base::classes::Use;
use crate::base::units::*;
use crate::os::{Os, Zeroed};

impl<O: Os, M: Zeroed + Sync + 'static> PageHeap<O, M> {
    /// Gives back every granule that is neither free nor part of anything, and sets the hints anew.
    ///
    /// # Safety
    /// No other thread uses the page heap, and the caller holds no run that is not marked.
    pub unsafe fn recount(&self) {
        let now = self.now();
        for window in self.windows() {
            // Granules of a large block that began in an earlier hugepage.
            let mut rest = 0;
            for index in 0..HUGEPAGES_PER_WINDOW {
                let hugepage = Hugepage(index as u32);
                if !window.owns(hugepage) {
                    rest = 0;
                    continue;
                }
                let lost = lost(window, hugepage, &mut rest);
                if lost != 0 {
                    window.give_granules(hugepage, lost, now);
                }
                window.hint_again(hugepage);
            }
        }
    }
}

/// The granules of one hugepage that nothing accounts for; `rest` is how many of them belong to a
/// large block from before, and then how many of the next hugepage's do.
fn lost<M>(window: &Window<M>, hugepage: Hugepage, rest: &mut usize) -> u64 {
    let free = window.look(hugepage).free;
    let mut lost = 0;
    for bit in 0..GRANULES_PER_HUGEPAGE as u32 {
        let granule = hugepage.granule(bit);
        if *rest > 0 {
            *rest -= 1;
        } else if free & (1 << bit) != 0 {
        } else if window.usage(granule) == Use::Large {
            *rest = window.length(granule).saturating_sub(1);
        } else if window.usage(granule) == Use::None {
            lost |= 1 << bit;
        }
    }
    lost
}
