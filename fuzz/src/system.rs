//! A system that fails when told to, for one building at a time.
//!
//! Beyond `spandrel::os::fake`: any kind of call fails by itself, in turn, at random or for ever; limits
//! come and go; threads can be dead; what the contract says is lost on a failure really is; and all of it
//! is unmapped in the end, so that a fuzzer can have a new one for every case.

use crate::shadow::Ranges;
use spandrel::os::linux::Linux;
use spandrel::os::{Move, Os, OsCounts, Resize};
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A kind of call that can fail. Its number is its bit in a set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `mmap`.
    Map,
    /// `munmap`.
    Unmap,
    /// `madvise(DONTNEED)`.
    Purge,
    /// Hugepage advice and collapsing.
    Advise,
    /// `mremap` in place.
    Resize,
    /// `mremap` onto another mapping, after which that may be gone.
    MoveOnto,
    /// `mremap` of single hugepages, which may stop half way.
    MovePages,
    /// Arming a thread's exit hook.
    Hook,
    /// A barrier of all threads; fails together with the hook.
    Barrier,
}

/// All kinds.
pub const KINDS: [Kind; 8] = [
    Kind::Map,
    Kind::Unmap,
    Kind::Purge,
    Kind::Advise,
    Kind::Resize,
    Kind::MoveOnto,
    Kind::MovePages,
    Kind::Hook,
];

thread_local! {
    /// The number the system gives the running thread; 0 is none.
    static THREAD: Cell<u32> = const { Cell::new(0) };
    /// Bytes of the block that the running thread resizes to.
    static TARGET: Cell<usize> = const { Cell::new(0) };
}

/// All zero bits are a healthy system with pages of 4 KiB that keeps no list.
#[derive(Debug)]
pub struct System {
    real: Linux,
    page_size: AtomicUsize,
    /// Failures planned: which kinds, of the calls of those kinds which ones.
    kinds: AtomicU8,
    calls: AtomicU64,
    from: AtomicU64,
    until: AtomicU64,
    /// Failures by chance: which kinds, one in how many.
    chance: AtomicU8,
    one_in: AtomicU32,
    random: AtomicU64,
    /// Zero is none, for the next three.
    limit: AtomicUsize,
    longest: AtomicUsize,
    cgroup: AtomicUsize,
    clock: AtomicU64,
    /// Threads that are gone, a bit for each number.
    dead: AtomicU64,
    list: AtomicPtr<Mutex<Ranges>>,
    failed: AtomicU64,
    /// Bytes that were not taken back, and those of the targets of moves that were refused.
    lost: AtomicUsize,
}

impl System {
    /// Sets it up, once, before anything is asked of it.
    pub fn begin(&self, page_size: usize) {
        self.page_size.store(page_size, Relaxed);
        self.list.store(Box::into_raw(Box::default()), Relaxed);
    }

    /// Unmaps everything.
    ///
    /// # Safety
    /// Nobody uses what was mapped any more, nor calls again.
    pub unsafe fn end(&self) {
        let list = self.list.swap(ptr::null_mut(), Relaxed);
        // SAFETY: made by `begin`, taken away by one call of this.
        let list = unsafe { Box::from_raw(list) };
        for (start, end) in list.into_inner().unwrap_or_else(PoisonError::into_inner).drain() {
            let at = ptr::with_exposed_provenance_mut(start);
            // SAFETY: mapped here, and nobody uses it.
            unsafe { libc::munmap(at, end - start) };
        }
    }

    /// Of the calls of these kinds, fails `count` after the next `skip`; `u64::MAX` is for ever.
    pub fn fail(&self, kinds: u8, skip: u64, count: u64) {
        self.kinds.store(kinds, Relaxed);
        self.calls.store(0, Relaxed);
        self.from.store(skip, Relaxed);
        self.until.store(skip.saturating_add(count), Relaxed);
    }

    /// Fails one call of these kinds in `one_in`.
    pub fn fail_by_chance(&self, kinds: u8, one_in: u32) {
        self.one_in.store(one_in.max(1), Relaxed);
        self.chance.store(kinds, Relaxed);
    }

    /// Maps no more than `bytes` in all.
    pub fn limit(&self, bytes: usize) {
        self.limit.store(bytes.max(1), Relaxed);
    }

    /// Maps no more than `bytes` at a time.
    pub fn longest(&self, bytes: usize) {
        self.longest.store(bytes.max(1), Relaxed);
    }

    /// The memory limit of a cgroup that it says the process is in.
    pub fn cgroup(&self, bytes: usize) {
        self.cgroup.store(bytes, Relaxed);
    }

    /// Works again, without limits.
    pub fn heal(&self) {
        self.kinds.store(0, Relaxed);
        self.chance.store(0, Relaxed);
        self.limit.store(0, Relaxed);
        self.longest.store(0, Relaxed);
    }

    /// Whether nothing is planned to fail.
    pub fn is_healthy(&self) -> bool {
        let zero = [&self.limit, &self.longest].iter().all(|a| a.load(Relaxed) == 0);
        zero && self.kinds.load(Relaxed) == 0 && self.chance.load(Relaxed) == 0
    }

    /// Calls of the kinds planned to fail, since that was planned.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Calls that were made to fail.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// The most that may be lost to refusals.
    pub fn most_lost(&self) -> usize {
        self.lost.load(Relaxed)
    }

    /// The running thread resizes to a block of that many bytes: a move that is refused may lose as many, which can be
    /// more than it was asked to move.
    pub fn resizes_to(&self, bytes: usize) {
        TARGET.set(bytes);
    }

    fn target_is_lost(&self) {
        self.lost.fetch_add(TARGET.get(), Relaxed);
    }

    /// Lets time pass.
    pub fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, Relaxed);
    }

    /// The running thread is number `thread` (1 to 63) from now on.
    pub fn be(&self, thread: u32) {
        THREAD.set(thread);
    }

    /// Thread number `thread` is gone.
    pub fn bury(&self, thread: u32) {
        // Release and Acquire: as the kernel orders the end of a thread before its number is free.
        self.dead.fetch_or(1 << (thread & 63), Release);
    }

    fn works(&self, kind: Kind) -> bool {
        let bit = 1 << (kind as u8).min(7);
        let mut works = true;
        if self.kinds.load(Relaxed) & bit != 0 {
            let call = self.calls.fetch_add(1, Relaxed);
            works = !(self.from.load(Relaxed)..self.until.load(Relaxed)).contains(&call);
        }
        if self.chance.load(Relaxed) & bit != 0 {
            let x = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
            let x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
            works &= !x.is_multiple_of(u64::from(self.one_in.load(Relaxed)));
        }
        if !works {
            self.failed.fetch_add(1, Relaxed);
        }
        works
    }

    fn room(&self) -> usize {
        match self.limit.load(Relaxed) {
            0 => usize::MAX,
            limit => limit.saturating_sub(self.real.counts().mapped),
        }
    }

    fn list(&self, f: impl FnOnce(&mut Ranges)) {
        // SAFETY: null, or made by `begin` and there until `end`, after which nobody calls.
        if let Some(list) = unsafe { self.list.load(Relaxed).as_ref() } {
            f(&mut list.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn mapped(&self, at: NonNull<u8>, bytes: usize) {
        let start = at.addr().get();
        self.list(|list| list.insert(start, start + bytes).expect("the kernel mapped it once"));
    }

    fn unmapped(&self, at: NonNull<u8>, bytes: usize) {
        let start = at.addr().get();
        self.list(|list| list.remove(start, start + bytes));
    }

    /// What the contract calls lost cannot be touched from now on.
    fn lose(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: whole pages that are nobody's from now on.
        let lost = unsafe { libc::mprotect(at.as_ptr().cast(), bytes, libc::PROT_NONE) };
        assert_eq!(lost, 0, "pages of ours can be protected");
    }
}

/// With `SPANDREL_NO_MOVES` set no pages are moved: qemu 7.2 says that it released the memory that pages were moved
/// out of, and does not.
fn never_moves() -> bool {
    static NEVER: OnceLock<bool> = OnceLock::new();
    *NEVER.get_or_init(|| std::env::var_os("SPANDREL_NO_MOVES").is_some())
}

impl Os for System {
    fn page_size(&self) -> usize {
        self.page_size.load(Relaxed).max(4096)
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        assert!(bytes.is_multiple_of(self.page_size()) && align.is_power_of_two());
        let longest = self.longest.load(Relaxed);
        if !self.works(Kind::Map) || bytes > self.room() || (longest != 0 && bytes > longest) {
            return None;
        }
        let at = self.real.map(bytes, align.max(self.page_size()))?;
        self.mapped(at, bytes);
        Some(at)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
        assert!(bytes.is_multiple_of(self.page_size()));
        let gone = self.works(Kind::Unmap) && {
            self.unmapped(at, bytes);
            // SAFETY: the caller's promise.
            unsafe { self.real.unmap(at, bytes) }
        };
        if !gone {
            self.lost.fetch_add(bytes, Relaxed);
        }
        gone
    }

    unsafe fn purge(&self, at: NonNull<u8>, bytes: usize) -> bool {
        assert!(bytes.is_multiple_of(self.page_size()));
        assert!(at.addr().get().is_multiple_of(self.page_size()));
        // SAFETY: the caller's promise.
        self.works(Kind::Purge) && unsafe { self.real.purge(at, bytes) }
    }

    unsafe fn advise_hugepages(&self, _: NonNull<u8>, _: usize, _: bool) -> bool {
        self.works(Kind::Advise)
    }

    unsafe fn collapse(&self, _: NonNull<u8>, _: usize) -> bool {
        self.works(Kind::Advise)
    }

    fn wake(&self, _: &spandrel::base::sync::AtomicU32) {}

    unsafe fn resize(&self, at: NonNull<u8>, old: usize, new: usize) -> Resize {
        assert!(old.is_multiple_of(self.page_size()) && new.is_multiple_of(self.page_size()));
        if !self.works(Kind::Resize) || new.saturating_sub(old) > self.room() {
            return Resize::NoRoom;
        }
        // SAFETY: the caller's promise.
        let resized = unsafe { self.real.resize(at, old, new) };
        if resized == Resize::Done {
            self.unmapped(at, old);
            self.mapped(at, new);
        }
        resized
    }

    unsafe fn move_onto(&self, at: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> bool {
        if !self.works(Kind::MoveOnto) {
            self.target_is_lost();
            self.lose(to, new);
            return false;
        }
        // SAFETY: the caller's promise.
        let moved = unsafe { self.real.move_onto(at, old, to, new) };
        if moved {
            self.unmapped(at, old);
        } else {
            self.target_is_lost();
        }
        moved
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize, drop: bool) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.real.clear(at, bytes, drop) }
    }

    unsafe fn move_pages(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Move {
        let moved = if !self.works(Kind::MovePages) || never_moves() {
            Move::Refused
        } else if !self.works(Kind::MovePages) {
            self.lose(to, bytes);
            Move::TargetLost
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.real.move_pages(from, to, bytes) }
        };
        if !matches!(moved, Move::Done) {
            self.target_is_lost();
        }
        moved
    }

    fn memory_limit(&self) -> Option<usize> {
        Some(self.cgroup.load(Relaxed)).filter(|&bytes| bytes != 0)
    }

    fn now_ms(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    fn at_thread_exit(&self, _: unsafe extern "C" fn(*mut u8), _: NonNull<u8>) -> bool {
        self.works(Kind::Hook)
    }

    fn thread(&self) -> u32 {
        THREAD.get()
    }

    fn is_gone(&self, thread: u32) -> bool {
        thread < 64 && self.dead.load(Acquire) & (1 << thread) != 0
    }

    fn barrier(&self) -> bool {
        self.real.barrier() && self.works(Kind::Barrier)
    }

    fn process(&self) -> u32 {
        1
    }

    fn counts(&self) -> OsCounts {
        self.real.counts()
    }
}
