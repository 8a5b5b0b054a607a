//! Sizes near which the allocator changes its mind, and others.

use arbitrary::Arbitrary;
use spandrel::base::classes::{CLASSES, Class};
use spandrel::base::units::{GRANULE, HUGEPAGE, MAX_ORDER};

/// A size as a case's bytes say it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Size {
    /// A class's size, or one byte to either side.
    Class(u8, u8),
    /// A few granules.
    Granules(u8, u8),
    /// A few hugepages.
    Hugepages(u8, u8),
    /// A power of two.
    Power(u8, u8),
    /// Anything small.
    Small(u16),
    /// At the border of what has a mapping of its own, and above.
    Mapping(u8, u8),
}

impl Size {
    /// In bytes, at most about 200 MiB.
    pub fn bytes(self) -> usize {
        let near = |size: usize, by: u8| (size + by as usize % 3).saturating_sub(1);
        match self {
            Size::Class(class, by) => near(Class::from_index(class as usize % CLASSES).size(), by),
            Size::Granules(count, by) => near(count as usize % 70 * GRANULE, by),
            Size::Hugepages(count, by) => near(count as usize % 20 * HUGEPAGE, by),
            Size::Power(shift, by) => near(1 << (shift % 25), by),
            Size::Small(size) => size as usize % 1200,
            Size::Mapping(mib, by) => {
                near((GRANULE << MAX_ORDER) + ((mib as usize % 64) << 20), by)
            }
        }
    }
}
