//! What a call says of a block that it gives back.

use super::ledger::Entry;
use crate::base::line::Line;
use crate::front::bare;
use crate::front::building::pages;
use crate::os::Os;
use crate::page::Extent;

/// A size, an alignment, and how exact they are.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// In bytes.
    pub size: usize,
    /// In bytes; 0: nothing was said of it.
    pub align: usize,
    exact: Exact,
}

/// How exact a size is.
#[derive(Clone, Copy, Debug)]
enum Exact {
    /// What was asked for, as C23 has it.
    Bytes,
    /// The fast path has rounded it up to words of 8 bytes, as of a `Layout`.
    Words,
    /// What was asked for, or more, up to what `nallocx` says of that.
    Usable,
}

impl Claim {
    /// Of a `Layout`.
    pub fn layout((size, align): (usize, usize)) -> Self {
        Self { size, align, exact: Exact::Words }
    }

    /// Of C23's `free_sized` and `free_aligned_sized`.
    pub fn asked(size: usize, align: usize) -> Self {
        Self { size, align, exact: Exact::Bytes }
    }

    /// Of jemalloc's `sdallocx`.
    pub fn usable(size: usize, align: usize) -> Self {
        Self { size, align, exact: Exact::Usable }
    }

    /// The same with another alignment.
    pub fn aligned_to(self, align: usize) -> Self {
        Self { align, ..self }
    }

    /// Whether the block that is known so may be the one.
    pub fn agrees(&self, entry: &Entry) -> bool {
        let sized = match self.exact {
            Exact::Bytes => self.size == entry.size,
            Exact::Words => self.size.div_ceil(8) == entry.size.div_ceil(8),
            Exact::Usable => (entry.size..=usable(entry)).contains(&self.size),
        };
        sized && (self.align == 0 || self.align == entry.align)
    }

    /// Adds it to a line about the block.
    pub fn tell(&self, line: &mut Line, entry: &Entry) {
        if entry.align > 1 {
            line.push(b", aligned to ");
            line.push_number(entry.align);
        }
        line.push(b", given back as ");
        line.push_number(self.size);
        line.push(b" bytes");
        if self.align != 0 {
            line.push(b" aligned to ");
            line.push_number(self.align);
        }
    }
}

/// What `nallocx` says of a block that was asked for so.
fn usable(entry: &Entry) -> usize {
    match bare::class_of(entry.size, entry.align) {
        Some(class) => class.size(),
        None => Extent::of(entry.size, entry.align, pages().os().page_size())
            .map_or(entry.size, |extent| extent.bytes()),
    }
}
