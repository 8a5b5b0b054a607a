//! The page heap: aligned runs of granules, by buddies, without a tree, a list or a lock.
//!
//! [`hugepage`] is the arithmetic of one word, [`window`] the claims and gives on 1 GiB, [`map`]
//! finds the window of an address, [`heap`] decides where a run comes from, [`large`] makes blocks of
//! runs, [`purge`] returns memory to the system and [`demand`] says what to keep, [`limits`] bound the
//! whole, [`shadow`] knows which objects are held, [`bell`] wakes who returns memory when nobody allocates, [`policy`] is what can be set.

pub mod bell;
#[cfg(not(spandrel_model))]
pub mod check;
pub mod demand;
pub mod heap;
pub mod hugepage;
mod inherit;
pub mod large;
pub mod limits;
pub mod map;
pub mod policy;
pub mod purge;
pub mod shadow;
pub mod window;

pub use heap::{PageCounts, PageHeap, Run};
pub use large::Extent;
pub use limits::Limits;
pub use policy::Policy;
pub use window::{Grain, HugepageView, Window};
