//! A system that counts, and fails when told to.
//!
//! In tests and fuzz targets its memory is real, its clock stands still until it is set, and any
//! call can be made to fail. Under a model checker its memory is a row of checked cells, so that a
//! block handed out twice, or released while somebody holds it, is a race the checker reports.

#[cfg(not(spandrel_model))]
pub use real::Fake;

#[cfg(spandrel_model)]
pub use modelled::Fake;

#[cfg(not(spandrel_model))]
mod real {
    use crate::base::units::HUGEPAGE;
    use crate::os::linux::Linux;
    use crate::os::{Move, Os, OsCounts, Resize};
    use core::ptr::NonNull;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

    /// The system under test. Every setting may change at any time, from any thread.
    #[derive(Debug)]
    pub struct Fake {
        real: Linux,
        page_size: usize,
        calls: AtomicU64,
        fail_from: AtomicU64,
        fail_until: AtomicU64,
        longest: AtomicUsize,
        limit: AtomicUsize,
        clock: AtomicU64,
    }

    impl Fake {
        /// A system that works, with pages of `page_size` bytes (a multiple of the real one's).
        pub const fn new(page_size: usize) -> Self {
            Self {
                real: Linux::new(),
                page_size,
                calls: AtomicU64::new(0),
                fail_from: AtomicU64::new(u64::MAX),
                fail_until: AtomicU64::new(u64::MAX),
                longest: AtomicUsize::new(usize::MAX),
                limit: AtomicUsize::new(usize::MAX),
                clock: AtomicU64::new(0),
            }
        }

        /// Calls that could have failed, so far.
        pub fn calls(&self) -> u64 {
            self.calls.load(Relaxed)
        }

        /// Fails `count` calls after the next `skip` ones.
        pub fn fail(&self, skip: u64, count: u64) {
            let from = self.calls().saturating_add(skip);
            self.fail_until.store(from.saturating_add(count), Relaxed);
            self.fail_from.store(from, Relaxed);
        }

        /// Works again.
        pub fn heal(&self) {
            self.fail_from.store(u64::MAX, Relaxed);
            self.limit.store(usize::MAX, Relaxed);
            self.longest.store(usize::MAX, Relaxed);
        }

        /// Maps no more once `bytes` are mapped.
        pub fn limit(&self, bytes: usize) {
            self.limit.store(bytes, Relaxed);
        }

        /// Maps nothing longer than `bytes` at a time.
        pub fn longest(&self, bytes: usize) {
            self.longest.store(bytes, Relaxed);
        }

        /// Lets `ms` milliseconds pass.
        pub fn advance(&self, ms: u64) {
            self.clock.fetch_add(ms, Relaxed);
        }

        fn works(&self) -> bool {
            let call = self.calls.fetch_add(1, Relaxed);
            !(self.fail_from.load(Relaxed)..self.fail_until.load(Relaxed)).contains(&call)
        }
    }

    impl Os for Fake {
        fn page_size(&self) -> usize {
            self.page_size
        }

        fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
            assert!(bytes.is_multiple_of(self.page_size) && align.is_power_of_two());
            let room = self.limit.load(Relaxed).saturating_sub(self.counts().mapped);
            if !self.works() || bytes > room || bytes > self.longest.load(Relaxed) {
                return None;
            }
            self.real.map(bytes, align.max(self.page_size))
        }

        unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
            assert!(bytes.is_multiple_of(self.page_size));
            // SAFETY: the caller's promise.
            self.works() && unsafe { self.real.unmap(at, bytes) }
        }

        unsafe fn purge(&self, at: NonNull<u8>, bytes: usize) -> bool {
            assert!(bytes.is_multiple_of(self.page_size));
            // SAFETY: the caller's promise.
            self.works() && unsafe { self.real.purge(at, bytes) }
        }

        unsafe fn advise_hugepages(&self, at: NonNull<u8>, bytes: usize, wanted: bool) -> bool {
            // SAFETY: the caller's promise.
            self.works() && unsafe { self.real.advise_hugepages(at, bytes, wanted) }
        }

        unsafe fn collapse(&self, at: NonNull<u8>, bytes: usize) -> bool {
            // SAFETY: the caller's promise.
            self.works() && unsafe { self.real.collapse(at, bytes) }
        }

        fn wake(&self, word: &crate::base::sync::AtomicU32) {
            self.real.wake(word);
        }

        unsafe fn resize(&self, at: NonNull<u8>, old: usize, new: usize) -> Resize {
            let room = self.limit.load(Relaxed).saturating_sub(self.counts().mapped);
            if !self.works() || new > room + old {
                return Resize::NoRoom;
            }
            // SAFETY: the caller's promise.
            unsafe { self.real.resize(at, old, new) }
        }

        unsafe fn move_onto(
            &self,
            at: NonNull<u8>,
            old: usize,
            to: NonNull<u8>,
            new: usize,
        ) -> bool {
            // SAFETY: the caller's promise.
            self.works() && unsafe { self.real.move_onto(at, old, to, new) }
        }

        unsafe fn clear(&self, at: NonNull<u8>, bytes: usize, drop: bool) -> usize {
            // SAFETY: the caller's promise.
            unsafe { self.real.clear(at, bytes, drop) }
        }

        unsafe fn move_pages(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Move {
            assert!(bytes.is_multiple_of(HUGEPAGE));
            if !self.works() {
                return Move::Refused;
            }
            if !self.works() {
                return Move::TargetLost;
            }
            // SAFETY: the caller's promise.
            unsafe { self.real.move_pages(from, to, bytes) }
        }

        fn memory_limit(&self) -> Option<usize> {
            None
        }

        fn now_ms(&self) -> u64 {
            self.clock.load(Relaxed)
        }

        fn at_thread_exit(&self, _: unsafe extern "C" fn(*mut u8), _: NonNull<u8>) -> bool {
            self.works()
        }

        fn thread(&self) -> u32 {
            0
        }

        fn is_gone(&self, _: u32) -> bool {
            false
        }

        fn barrier(&self) -> bool {
            core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
            self.works()
        }

        fn process(&self) -> u32 {
            1
        }

        fn counts(&self) -> OsCounts {
            self.real.counts()
        }
    }
}

#[cfg(spandrel_model)]
mod modelled {
    use crate::base::sync::{AtomicU32, UnsafeCell};
    use crate::base::units::{HUGEPAGE, WINDOW};
    use crate::os::{Move, Os, OsCounts, Resize, Zeroed};
    use core::ptr::NonNull;
    use std::any::Any;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::Release};

    /// Bytes that one checked cell stands for.
    const CELL: usize = 8;
    /// Windows that have cells. Loom pays for every cell; shuttle's crowds may map more windows.
    const WINDOWS: usize = if cfg!(spandrel_loom) { 2 } else { 7 };

    /// A system whose addresses are made up. Its own state is the checker's blind side: plain
    /// `std` atomics and a mutex, so that it adds no interleavings.
    pub struct Fake {
        whole_windows: bool,
        starving: AtomicBool,
        next: AtomicUsize,
        unmaps: AtomicUsize,
        purges: AtomicUsize,
        cells: Vec<UnsafeCell<u64>>,
        /// Cells in somebody's hands, so that a checker without race detection sees a second pair.
        held: Vec<AtomicBool>,
        kept: Mutex<Vec<Box<dyn Any>>>,
        /// What threads that ask for their number are told.
        thread: AtomicUsize,
        /// The thread that has ended; what the kernel knows of it, so the checker sees it.
        gone: AtomicU32,
    }

    // SAFETY: the cells are checked by the model, the rest is atomic or locked.
    unsafe impl Sync for Fake {}
    // SAFETY: as above; nothing in it belongs to a thread.
    unsafe impl Send for Fake {}

    impl Fake {
        /// A system that maps whole windows, or (`false`) only one hugepage at a time.
        pub fn new(whole_windows: bool) -> Self {
            Self {
                whole_windows,
                starving: AtomicBool::new(false),
                next: AtomicUsize::new(WINDOW),
                unmaps: AtomicUsize::new(0),
                purges: AtomicUsize::new(0),
                cells: (0..WINDOWS * WINDOW / CELL).map(|_| UnsafeCell::new(0)).collect(),
                held: (0..WINDOWS * WINDOW / CELL).map(|_| AtomicBool::new(false)).collect(),
                kept: Mutex::new(Vec::new()),
                thread: AtomicUsize::new(0),
                gone: AtomicU32::new(0),
            }
        }

        /// Who asks for its number is thread number `thread` from now on; 0, as in the beginning, is none.
        pub fn be(&self, thread: u32) {
            self.thread.store(thread as usize, Relaxed);
        }

        /// Thread number `thread` has ended, after all that it did.
        pub fn bury(&self, thread: u32) {
            self.gone.store(thread, Release);
        }

        /// Uses `bytes` of memory at `addr` as their holder may: a race if anyone else does so at
        /// the same time, or without an ordering in between.
        pub fn touch(&self, addr: usize, bytes: usize) {
            self.each(addr, bytes, |cell| *cell += 1);
        }

        /// Whether memory in one's hands was not touched since it was mapped or purged.
        pub fn is_zero(&self, addr: usize, bytes: usize) -> bool {
            let mut zero = true;
            self.each(addr, bytes, |cell| zero &= *cell == 0);
            zero
        }

        fn each(&self, addr: usize, bytes: usize, mut f: impl FnMut(&mut u64)) {
            let first = (addr - WINDOW) / CELL;
            for cell in &self.cells[first..first + bytes.div_ceil(CELL)] {
                // SAFETY: checked by the model, which is the point.
                cell.with_mut(|cell| f(unsafe { &mut *cell }));
            }
        }

        /// Maps no more from now on.
        pub fn starve(&self) {
            self.starving.store(true, Relaxed);
        }

        /// Takes `bytes` of memory at `addr` into one's hands and uses them.
        ///
        /// # Panics
        /// If they are in somebody's hands already.
        pub fn hold(&self, addr: usize, bytes: usize) {
            for held in &self.held[(addr - WINDOW) / CELL..][..bytes.div_ceil(CELL)] {
                assert!(!held.swap(true, Relaxed), "{addr:#x} is in two hands");
            }
            self.touch(addr, bytes);
        }

        /// The addresses of all cells in somebody's hands, eight bytes apart.
        pub fn held(&self) -> Vec<usize> {
            let held = self.held.iter().enumerate().filter(|(_, held)| held.load(Relaxed));
            held.map(|(index, _)| WINDOW + index * CELL).collect()
        }

        /// Uses memory that is in one's hands for the last time, before it is given back.
        ///
        /// # Panics
        /// If it is not in anybody's hands.
        pub fn release(&self, addr: usize, bytes: usize) {
            self.touch(addr, bytes);
            for held in &self.held[(addr - WINDOW) / CELL..][..bytes.div_ceil(CELL)] {
                assert!(held.swap(false, Relaxed), "{addr:#x} is in nobody's hands");
            }
        }
    }

    impl Os for Fake {
        fn page_size(&self) -> usize {
            8
        }

        fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
            // The page heap never asks for more than a window; longer blocks have their own mapping.
            let too_long = !self.whole_windows && (HUGEPAGE + 1..=WINDOW).contains(&bytes);
            if too_long || self.starving.load(Relaxed) {
                return None;
            }
            let at = self.next.load(Relaxed).next_multiple_of(align);
            self.next.store(at + bytes, Relaxed);
            NonNull::new(core::ptr::without_provenance_mut(at))
        }

        unsafe fn unmap(&self, _: NonNull<u8>, _: usize) -> bool {
            self.unmaps.fetch_add(1, Relaxed);
            true
        }

        unsafe fn purge(&self, at: NonNull<u8>, bytes: usize) -> bool {
            self.purges.fetch_add(1, Relaxed);
            self.hold(at.addr().get(), bytes);
            self.release(at.addr().get(), bytes);
            self.each(at.addr().get(), bytes, |cell| *cell = 0);
            true
        }

        unsafe fn advise_hugepages(&self, _: NonNull<u8>, _: usize, _: bool) -> bool {
            false
        }

        unsafe fn collapse(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }

        fn wake(&self, _: &AtomicU32) {}

        unsafe fn resize(&self, _: NonNull<u8>, _: usize, _: usize) -> Resize {
            Resize::NoRoom
        }

        unsafe fn move_onto(&self, _: NonNull<u8>, _: usize, _: NonNull<u8>, _: usize) -> bool {
            false
        }

        unsafe fn clear(&self, at: NonNull<u8>, bytes: usize, _: bool) -> usize {
            self.each(at.addr().get(), bytes, |cell| *cell = 0);
            bytes
        }

        unsafe fn move_pages(&self, _: NonNull<u8>, _: NonNull<u8>, _: usize) -> Move {
            Move::Refused
        }

        fn memory_limit(&self) -> Option<usize> {
            None
        }

        fn now_ms(&self) -> u64 {
            0
        }

        fn at_thread_exit(&self, _: unsafe extern "C" fn(*mut u8), _: NonNull<u8>) -> bool {
            true
        }

        fn thread(&self) -> u32 {
            self.thread.load(Relaxed) as u32
        }

        fn is_gone(&self, thread: u32) -> bool {
            self.gone.load(Relaxed) == thread
        }

        fn barrier(&self) -> bool {
            #[cfg(spandrel_loom)]
            if crate::base::seed::sees() {
                loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
            }
            true
        }

        fn process(&self) -> u32 {
            1
        }

        fn counts(&self) -> OsCounts {
            OsCounts {
                unmaps: self.unmaps.load(Relaxed) as u64,
                purges: self.purges.load(Relaxed) as u64,
                ..OsCounts::default()
            }
        }

        fn metadata<T: Zeroed + 'static>(&self) -> Option<NonNull<T>> {
            let mut fresh = Box::new(T::zeroed());
            let at = NonNull::from(&mut *fresh);
            self.kept.lock().ok()?.push(fresh);
            Some(at)
        }
    }
}
