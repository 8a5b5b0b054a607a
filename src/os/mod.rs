//! The OS floor: what the allocator asks of a system, as one short contract; one file per system and
//! one fake.
//!
//! # The contract
//! - Memory comes from [`Os::map`]: zeroed, readable and writable, aligned as asked, costing nothing
//!   until touched. Every byte mapped is counted in [`Os::counts`] until it is unmapped.
//! - A failure is `None` or `false`, never a panic or an abort, and leaves everything as it was.
//! - No call allocates through the allocator, takes a lock of ours, or changes `errno`.
//! - Any call may come from any thread, and from several at once.

use crate::base::sync::AtomicU32;
use core::ptr::NonNull;

#[cfg(all(target_os = "linux", not(spandrel_model)))]
mod cgroup;
#[cfg(any(spandrel_model, test, feature = "fake"))]
pub mod fake;
#[cfg(all(target_os = "linux", not(spandrel_model)))]
pub mod file;
#[cfg(all(target_os = "linux", not(spandrel_model)))]
pub mod linux;
#[cfg(all(target_os = "linux", not(spandrel_model)))]
pub mod process;

/// A type whose all-zero bytes are its valid initial state, so that fresh pages hold one ready made.
///
/// # Safety
/// In the shipping build every byte pattern of zeros must be a valid value.
pub unsafe trait Zeroed: Sized {
    /// The same initial state, built field by field, for a model checker's atomics.
    #[cfg(spandrel_model)]
    fn zeroed() -> Self;
}

/// What became of [`Os::resize`]. Nothing has changed unless it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Resize {
    /// Its length is the new one.
    Done,
    /// There is no room behind it, or the system is at a limit.
    NoRoom,
    /// The system holds it as several mappings, which it cannot treat as one.
    InPieces,
}

/// What became of [`Os::move_pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Move {
    /// It is done.
    Done,
    /// It cannot be done, and nothing has changed.
    Refused,
    /// It failed half way: what was at `from` is there again, but the pages at `to` may be mapped no
    /// longer and are nobody's.
    TargetLost,
}

/// What one system offers. See the module page for the rules all functions share.
pub trait Os: Sync {
    /// Bytes in the system's smallest page; a power of two, read at run time.
    fn page_size(&self) -> usize;

    /// Maps `bytes` (a multiple of the page size) at a multiple of `align` (a power of two).
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>>;

    /// Gives a mapping, or whole pages of one, back.
    ///
    /// # Safety
    /// The pages came from [`Os::map`] and nobody uses them any more.
    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool;

    /// Returns the memory behind whole pages and keeps the addresses: on `true` they read as zero.
    ///
    /// # Safety
    /// The pages came from [`Os::map`] and nobody uses their contents any more.
    unsafe fn purge(&self, at: NonNull<u8>, bytes: usize) -> bool;

    /// Asks for hugepages behind whole hugepages of a mapping, where the system has any, or for none.
    /// Advice: the answer says only whether it was taken.
    ///
    /// # Safety
    /// The range came from [`Os::map`].
    unsafe fn advise_hugepages(&self, at: NonNull<u8>, bytes: usize, wanted: bool) -> bool;

    /// Puts one page behind a whole hugepage that the system holds in small ones, if it can, whoever
    /// uses it meanwhile; the contents stay.
    ///
    /// # Safety
    /// The range came from [`Os::map`].
    unsafe fn collapse(&self, at: NonNull<u8>, bytes: usize) -> bool;

    /// Wakes whoever sleeps on `word`. Wakes only; nothing here ever waits.
    fn wake(&self, word: &AtomicU32);

    /// Resizes a mapping where it is; the contents up to the smaller size stay.
    ///
    /// # Safety
    /// `at` and `old` are one whole mapping of the caller's; both sizes are multiples of the page
    /// size.
    unsafe fn resize(&self, at: NonNull<u8>, old: usize, new: usize) -> Resize;

    /// Moves the pages of one mapping onto the front of a longer one, whose own go: one mapping is left.
    ///
    /// # Safety
    /// `at` and `old`, `to` and `new` are two whole mappings of the caller's, the first in one piece and no
    /// longer than the second. On `true` the first is gone; on `false` the target may be.
    unsafe fn move_onto(&self, at: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> bool;

    /// Makes whole pages read as zero, whatever they held, and answers how many bytes of them held
    /// something else, about. Where no memory was, none is afterwards; the rest is written, or (`drop`)
    /// returned like [`Os::purge`] does.
    ///
    /// # Safety
    /// The pages came from [`Os::map`] and are the caller's.
    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize, drop: bool) -> usize;

    /// Moves the memory behind whole hugepages to others, without copying it: then those at `from` read
    /// as zero, and what was at `to` is gone.
    ///
    /// # Safety
    /// Both ranges came from [`Os::map`], do not overlap, and are the caller's; no mapping of either
    /// begins or ends inside a hugepage of theirs.
    unsafe fn move_pages(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Move;

    /// Bytes that the system lets this process use, where something limits it. Not cheap.
    fn memory_limit(&self) -> Option<usize>;

    /// Milliseconds on a clock that never goes back; coarse and cheap.
    fn now_ms(&self) -> u64;

    /// Has `hook` called with `token` when this thread ends, after its other destructors; called
    /// again from inside the hook it asks for one more round. `false`: no hook can be had.
    fn at_thread_exit(&self, hook: unsafe extern "C" fn(*mut u8), token: NonNull<u8>) -> bool;

    /// The system's number of the running thread; 0 where it cannot be told.
    fn thread(&self) -> u32;

    /// Whether a thread of this process with that number has ended, for good and all of it. Its last
    /// store comes before: who is told so, and acquires, sees all that it did.
    fn is_gone(&self, thread: u32) -> bool;

    /// Has every running thread of this process pass a full memory barrier between the call and the
    /// answer. `false`: the system has no such call, and nothing is promised.
    fn barrier(&self) -> bool;

    /// This process's number: at least 1, and another one in a forked child.
    fn process(&self) -> u32;

    /// What was asked so far.
    fn counts(&self) -> OsCounts;

    /// Maps a `T` that is never unmapped while the system lasts.
    #[cfg(not(spandrel_model))]
    fn metadata<T: Zeroed>(&self) -> Option<NonNull<T>> {
        let at = self.map(metadata_bytes::<T>(self.page_size()), self.page_size())?;
        Some(at.cast())
    }

    /// Under a model the fake builds and owns the `T`.
    #[cfg(spandrel_model)]
    fn metadata<T: Zeroed + 'static>(&self) -> Option<NonNull<T>>;
}

/// Bytes that [`Os::metadata`] maps for a `T`.
pub const fn metadata_bytes<T>(page_size: usize) -> usize {
    core::mem::size_of::<T>().next_multiple_of(page_size)
}

/// Calls so far, and what they left mapped.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsCounts {
    /// Bytes of address space mapped now.
    pub mapped: usize,
    /// Calls of [`Os::map`], failures included.
    pub maps: u64,
    /// Calls of [`Os::unmap`].
    pub unmaps: u64,
    /// Calls of [`Os::purge`].
    pub purges: u64,
    /// Calls of [`Os::advise_hugepages`] and [`Os::collapse`].
    pub advices: u64,
    /// Calls of [`Os::resize`], [`Os::move_onto`] and [`Os::move_pages`].
    pub remaps: u64,
    /// Calls of [`Os::wake`].
    pub wakes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Nanoseconds spent in all of these.
    pub nanos: u64,
    /// Of `mapped`: what was mapped too much to reach an alignment, and the system would not take back.
    pub untrimmed: usize,
}
