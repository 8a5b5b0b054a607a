//! Linux: mmap, munmap, mremap, madvise, a pthread key, the coarse clock.

use super::{Move, Os, OsCounts, Resize, Zeroed, cgroup, metadata_bytes};
use crate::base::quiet::quietly;
use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::base::sync::{AtomicU32, AtomicU64, AtomicUsize};
use crate::base::units::HUGEPAGE;
use core::ptr::{self, NonNull};
use libc::c_void;

/// Since Linux 6.1; the C library's headers may be older.
const MADV_COLLAPSE: libc::c_int = 25;

/// The system this process runs on. All fields are counters or set once; any thread may use it.
#[derive(Debug, Default)]
pub struct Linux {
    /// Set once: 0, or the page size.
    page_size: AtomicUsize,
    /// Set once: 0, or the pthread key plus one.
    exit_key: AtomicU32,
    mapped: AtomicUsize,
    maps: AtomicU64,
    unmaps: AtomicU64,
    purges: AtomicU64,
    advices: AtomicU64,
    wakes: AtomicU64,
    remaps: AtomicU64,
    failures: AtomicU64,
    nanos: AtomicU64,
    untrimmed: AtomicUsize,
}

impl Linux {
    /// The system with all counts zero; all zero bytes.
    pub const fn new() -> Self {
        Self {
            page_size: AtomicUsize::new(0),
            exit_key: AtomicU32::new(0),
            mapped: AtomicUsize::new(0),
            maps: AtomicU64::new(0),
            unmaps: AtomicU64::new(0),
            purges: AtomicU64::new(0),
            advices: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            remaps: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            untrimmed: AtomicUsize::new(0),
        }
    }

    /// Runs a system call, counts it, and leaves `errno` as it was.
    fn call<T>(&self, counter: &AtomicU64, f: impl FnOnce() -> Option<T>) -> Option<T> {
        counter.fetch_add(1, Relaxed);
        // SAFETY: `__errno_location` returns this thread's errno, which outlives the call.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above; an int that only this thread touches.
        let saved = unsafe { *errno };
        let begun = monotonic(libc::CLOCK_MONOTONIC);
        let result = f();
        let nanos = monotonic(libc::CLOCK_MONOTONIC).saturating_sub(begun);
        self.nanos.fetch_add(nanos, Relaxed);
        // SAFETY: as above.
        unsafe { *errno = saved };
        if result.is_none() {
            self.failures.fetch_add(1, Relaxed);
        }
        result
    }

    fn mmap(&self, bytes: usize) -> Option<usize> {
        let at = self.call(&self.maps, || {
            // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing.
            let at = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    bytes,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            (at != libc::MAP_FAILED).then(|| at.expose_provenance())
        })?;
        self.mapped.fetch_add(bytes, Relaxed);
        Some(at)
    }

    fn munmap(&self, at: usize, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let done = self.call(&self.unmaps, || {
            // SAFETY: the callers own these pages and give them up.
            (unsafe { libc::munmap(ptr::with_exposed_provenance_mut(at), bytes) } == 0)
                .then_some(())
        });
        if done.is_some() {
            self.mapped.fetch_sub(bytes, Relaxed);
        }
        done.is_some()
    }

    /// Unmaps what a mapping has too much, or counts it where the system refuses.
    fn trim(&self, at: usize, bytes: usize) {
        if !self.munmap(at, bytes) {
            self.untrimmed.fetch_add(bytes, Relaxed);
        }
    }

    /// The key whose destructor is `hook`; the first to ask makes it, a loser deletes its own.
    fn key(&self, hook: unsafe extern "C" fn(*mut u8)) -> Option<libc::pthread_key_t> {
        let known = self.exit_key.load(Acquire);
        if known != 0 {
            return Some(known - 1);
        }
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: a destructor takes one pointer-sized argument; `*mut u8` and `*mut c_void` have
        // the same ABI.
        let hook = unsafe {
            core::mem::transmute::<unsafe extern "C" fn(*mut u8), unsafe extern "C" fn(*mut c_void)>(
                hook,
            )
        };
        // SAFETY: `key` is writable and `hook` lives as long as the program.
        if unsafe { libc::pthread_key_create(&mut key, Some(hook)) } != 0 {
            return None;
        }
        match self.exit_key.compare_exchange(0, key + 1, AcqRel, Acquire) {
            Ok(_) => Some(key),
            Err(winner) => {
                // SAFETY: this key was made above and no thread has seen it.
                unsafe { libc::pthread_key_delete(key) };
                Some(winner - 1)
            }
        }
    }
}

/// A number that differs from process to process. Not for secrets. Leaves `errno` as it was.
pub fn random() -> u64 {
    let mut number = [0u8; 8];
    quietly(|| {
        // SAFETY: as many bytes as there is room for. Where the system has none yet, the clock's will do.
        if unsafe { libc::getrandom(number.as_mut_ptr().cast(), number.len(), libc::GRND_NONBLOCK) }
            != 8
        {
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a clock that is always there.
            unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
            number = (now.tv_nsec as u64).to_ne_bytes();
        }
    });
    u64::from_ne_bytes(number)
}

/// Maps `bytes` of address space for a table of which little is ever touched, and asks for small pages behind
/// it. Not counted as the allocator's: almost none of it is memory. Leaves `errno` as it was.
pub fn aside(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: `__errno_location` returns this thread's errno, which outlives the call.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; an int that only this thread touches.
    let saved = unsafe { *errno };
    let mapped = apart(bytes, page_size()).inspect(|at| {
        // SAFETY: mapped above.
        unsafe { libc::madvise(at.as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
    });
    // SAFETY: as above.
    unsafe { *errno = saved };
    mapped
}

/// Maps `bytes` with a closed page at each end: what runs past the end of a mapping beside it does not get there.
fn apart(bytes: usize, page: usize) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let all = bytes.checked_add(2 * page)?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing.
    let at = unsafe { libc::mmap(ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: mapped above, and that long.
    let inside = unsafe { at.byte_add(page) };
    // SAFETY: as above; nobody knows of it yet.
    unsafe {
        if libc::mprotect(inside, bytes, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            libc::munmap(at, all);
            return None;
        }
    }
    inside.expose_provenance();
    NonNull::new(inside.cast())
}

fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the running kernel.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Takes such a mapping back.
///
/// # Safety
/// It came from [`aside`] with this length, and nobody uses it any more.
pub unsafe fn drop_aside(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise. It cannot fail: the whole mapping goes.
    unsafe {
        let page = page_size();
        libc::munmap(at.as_ptr().byte_sub(page).cast(), bytes + 2 * page);
    }
}

/// Opens whole pages to reading and writing, or closes them to both. Leaves `errno` as it was.
///
/// # Safety
/// The pages are the caller's, and while they are closed nobody who may has any business there.
pub unsafe fn protect(at: NonNull<u8>, bytes: usize, open: bool) -> bool {
    // SAFETY: `__errno_location` returns this thread's errno, which outlives the call.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; an int that only this thread touches.
    let saved = unsafe { *errno };
    let how = if open { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    // SAFETY: the caller's promise.
    let done = unsafe { libc::mprotect(at.as_ptr().cast(), bytes, how) } == 0;
    // SAFETY: as above.
    unsafe { *errno = saved };
    done
}

/// Pages whose residence is asked for at a time: what fits on the stack of a small thread.
const PAGES_LOOKED_AT: usize = 512;
/// Of pages that are dropped one in so many is looked at.
const PAGES_A_LOOK: usize = 16;

impl Linux {
    /// Moves one hugepage; whether that is done, and whether the kernel knows how at all.
    ///
    /// # Safety
    /// As [`Os::move_pages`], for one hugepage.
    unsafe fn move_one(&self, from: NonNull<u8>, to: NonNull<u8>) -> (bool, bool) {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let mut known = true;
        let moved = self.call(&self.remaps, || {
            // SAFETY: the caller owns both; what is at `to` may go. DONTUNMAP keeps `from` mapped, so
            // that nobody else's mapping gets there.
            let moved = unsafe {
                libc::mremap(from.as_ptr().cast(), HUGEPAGE, HUGEPAGE, flags, to.as_ptr())
            };
            // SAFETY: errno is this thread's own.
            known =
                moved != libc::MAP_FAILED || unsafe { *libc::__errno_location() } != libc::EINVAL;
            (moved != libc::MAP_FAILED).then_some(())
        });
        (moved.is_some(), known)
    }

    /// Clears up to [`PAGES_LOOKED_AT`] pages; answers how many bytes of them held something. Those
    /// that are not resident are dropped, which costs nothing where nothing is behind them and is right
    /// where it was swapped out; those that read as zero are left alone: reading is cheaper than writing,
    /// and behind them may be the system's one page of zeros, which is resident and costs nothing.
    ///
    /// # Safety
    /// As [`Os::clear`].
    unsafe fn clear_part(&self, at: NonNull<u8>, bytes: usize, page: usize, drop: bool) -> usize {
        let mut there = [1u8; PAGES_LOOKED_AT];
        let pages = bytes / page;
        // SAFETY: the range is mapped and there is a byte for each of its pages.
        if unsafe { libc::mincore(at.as_ptr().cast(), bytes, there.as_mut_ptr()) } != 0 {
            there = [1; PAGES_LOOKED_AT];
        }
        // What is dropped need not be read: some pages tell enough.
        let every = if drop { PAGES_A_LOOK } else { 1 };
        let mut held = 0;
        for (number, page_there) in there[..pages].iter_mut().enumerate() {
            *page_there &= 1;
            if *page_there == 1 && number % every == 0 {
                // SAFETY: a page inside the caller's range.
                if unsafe { reads_as_zero(at.add(number * page), page) } {
                    *page_there = 2;
                } else {
                    held += every.min(pages - number);
                }
            }
        }
        let mut first = 0;
        while first < pages {
            let state = there[first];
            let run = there[first..pages].iter().take_while(|&&s| drop || s == state).count();
            // SAFETY: these pages are inside the caller's range.
            unsafe {
                let part = at.add(first * page);
                match state {
                    2 if !drop => {}
                    1 if !drop => part.write_bytes(0, run * page),
                    _ if self.purge(part, run * page) => {}
                    _ => part.write_bytes(0, run * page),
                }
            }
            first += run;
        }
        held * page
    }
}

/// Whether a page holds nothing but zeros.
///
/// # Safety
/// It is mapped, page aligned, and nobody writes to it meanwhile.
unsafe fn reads_as_zero(at: NonNull<u8>, page: usize) -> bool {
    // SAFETY: the caller's promise; a page is a multiple of eight words.
    let words = unsafe { core::slice::from_raw_parts(at.cast::<[u64; 8]>().as_ptr(), page / 64) };
    words.iter().all(|line| line.iter().fold(0, |all, word| all | word) == 0)
}

/// Nanoseconds on a clock that never goes back.
fn monotonic(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable; the clocks exist on every Linux this builds for, and if one did not,
    // time would stand still at zero.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Os for Linux {
    fn page_size(&self) -> usize {
        let known = self.page_size.load(Relaxed);
        if known != 0 {
            return known;
        }
        let size = page_size();
        self.page_size.store(size, Relaxed);
        size
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let page = self.page_size();
        // The kernel aligns mappings of hugepages by itself often enough to try that first.
        if align <= HUGEPAGE {
            let at = self.mmap(bytes)?;
            if at.is_multiple_of(align) {
                return NonNull::new(ptr::with_exposed_provenance_mut(at));
            }
            self.trim(at, bytes);
        }
        let room = bytes.checked_add(align - page)?;
        let at = self.mmap(room)?;
        let aligned = at.next_multiple_of(align);
        self.trim(at, aligned - at);
        self.trim(aligned + bytes, at + room - (aligned + bytes));
        NonNull::new(ptr::with_exposed_provenance_mut(aligned))
    }

    /// With a closed page at each end, which are no memory and not counted. One that is unmapped again, because
    /// another was published first, leaves those two behind.
    #[cfg(not(spandrel_model))]
    fn metadata<T: Zeroed>(&self) -> Option<NonNull<T>> {
        let page = self.page_size();
        let bytes = metadata_bytes::<T>(page);
        let at = self.call(&self.maps, || apart(bytes, page))?;
        self.mapped.fetch_add(bytes, Relaxed);
        Some(at.cast())
    }

    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.munmap(at.addr().get(), bytes)
    }

    unsafe fn purge(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.call(&self.purges, || {
            // SAFETY: the caller owns these pages and wants none of their contents.
            (unsafe { libc::madvise(at.as_ptr().cast(), bytes, libc::MADV_DONTNEED) } == 0)
                .then_some(())
        })
        .is_some()
    }

    unsafe fn advise_hugepages(&self, at: NonNull<u8>, bytes: usize, wanted: bool) -> bool {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        self.call(&self.advices, || {
            // SAFETY: advice about pages of our own; their contents stay.
            (unsafe { libc::madvise(at.as_ptr().cast(), bytes, advice) } == 0).then_some(())
        })
        .is_some()
    }

    unsafe fn collapse(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.call(&self.advices, || {
            // SAFETY: asks for another page behind addresses of our own; their contents stay. A kernel
            // before 6.1 says no.
            (unsafe { libc::madvise(at.as_ptr().cast(), bytes, MADV_COLLAPSE) } == 0).then_some(())
        })
        .is_some()
    }

    fn wake(&self, word: &AtomicU32) {
        self.call(&self.wakes, || {
            let (wake, all) = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX);
            // SAFETY: the word is live for the call; waking touches no memory.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), wake, all) };
            Some(())
        });
    }

    unsafe fn resize(&self, at: NonNull<u8>, old: usize, new: usize) -> Resize {
        let mut pieces = false;
        let done = self.call(&self.remaps, || {
            // SAFETY: the caller's mapping; without MREMAP_MAYMOVE it stays where it is.
            let resized = unsafe { libc::mremap(at.as_ptr().cast(), old, new, 0) };
            // SAFETY: errno is this thread's own.
            pieces = unsafe { *libc::__errno_location() } == libc::EFAULT;
            (resized != libc::MAP_FAILED).then_some(())
        });
        match done {
            Some(()) => {
                self.mapped.fetch_add(new, Relaxed);
                self.mapped.fetch_sub(old, Relaxed);
                Resize::Done
            }
            None if pieces => Resize::InPieces,
            None => Resize::NoRoom,
        }
    }

    unsafe fn move_onto(&self, at: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> bool {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let done = self.call(&self.remaps, || {
            // SAFETY: both ranges are the caller's and do not overlap; what lay behind the target is
            // given up. Moved and made longer in one call, so that it stays one mapping.
            let moved = unsafe { libc::mremap(at.as_ptr().cast(), old, new, flags, to.as_ptr()) };
            (moved != libc::MAP_FAILED).then_some(())
        });
        if done.is_some() {
            self.mapped.fetch_sub(old, Relaxed);
        }
        done.is_some()
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize, drop: bool) -> usize {
        let page = self.page_size();
        let (mut done, mut held) = (0, 0);
        while done < bytes {
            let here = (bytes - done).min(PAGES_LOOKED_AT * page);
            // SAFETY: inside the caller's range.
            held += unsafe { self.clear_part(at.add(done), here, page, drop) };
            done += here;
        }
        held
    }

    unsafe fn move_pages(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Move {
        // Each hugepage by itself: it lies in one mapping, so the kernel moves it or leaves it.
        for done in (0..bytes).step_by(HUGEPAGE) {
            // SAFETY: inside the caller's ranges.
            let (moved, known) = unsafe { self.move_one(from.add(done), to.add(done)) };
            if moved {
                continue;
            }
            if done == 0 && !known {
                return Move::Refused;
            }
            // SAFETY: `from` is still mapped; what was moved so far is at `to`.
            unsafe { ptr::copy_nonoverlapping(to.as_ptr(), from.as_ptr(), done) };
            return Move::TargetLost;
        }
        Move::Done
    }

    fn memory_limit(&self) -> Option<usize> {
        // A system call that fails on the way is no failure: then there is no limit.
        quietly(cgroup::memory_limit)
    }

    fn now_ms(&self) -> u64 {
        monotonic(libc::CLOCK_MONOTONIC_COARSE) / 1_000_000
    }

    fn at_thread_exit(&self, hook: unsafe extern "C" fn(*mut u8), token: NonNull<u8>) -> bool {
        let Some(key) = self.key(hook) else {
            return false;
        };
        // SAFETY: the key exists and is never deleted once it has been handed out.
        unsafe { libc::pthread_setspecific(key, token.as_ptr().cast()) == 0 }
    }

    fn thread(&self) -> u32 {
        // SAFETY: no arguments, cannot fail.
        u32::try_from(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap_or(0)
    }

    fn is_gone(&self, thread: u32) -> bool {
        // SAFETY: signal 0 is none; errno is this thread's.
        unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            let there = libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) == 0;
            let gone = !there && *errno == libc::ESRCH;
            *errno = saved;
            // The kernel took the thread's number away after its last store.
            gone
        }
    }

    #[inline]
    fn barrier(&self) -> bool {
        const PRIVATE: libc::c_int = 1 << 3;
        const REGISTER_PRIVATE: libc::c_int = 1 << 4;
        // SAFETY: `__errno_location` returns this thread's errno, which outlives the call.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above; an int that only this thread touches.
        let saved = unsafe { *errno };
        // Registering again is cheap, and a forked child has to.
        // SAFETY: membarrier takes two numbers and touches no memory.
        let done = [REGISTER_PRIVATE, PRIVATE]
            .into_iter()
            .all(|command| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0);
        // SAFETY: as above.
        unsafe { *errno = saved };
        done
    }

    fn process(&self) -> u32 {
        super::process::number(self.page_size())
    }

    fn counts(&self) -> OsCounts {
        OsCounts {
            mapped: self.mapped.load(Relaxed),
            maps: self.maps.load(Relaxed),
            unmaps: self.unmaps.load(Relaxed),
            purges: self.purges.load(Relaxed),
            advices: self.advices.load(Relaxed),
            remaps: self.remaps.load(Relaxed),
            failures: self.failures.load(Relaxed),
            wakes: self.wakes.load(Relaxed),
            nanos: self.nanos.load(Relaxed),
            untrimmed: self.untrimmed.load(Relaxed),
        }
    }
}
