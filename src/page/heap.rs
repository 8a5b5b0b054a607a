//! The page heap: all windows, and where the next run of granules comes from.
//!
//! A request tries, in this order: hugepages in use, lowest window and smallest sufficient run
//! first; whole hugepages, lowest first; more address space from the system; and, before the answer
//! is no, every word without its hints, because a hint may lag behind in a thread that is stopped.

use super::bell::Bell;
use super::demand::Demand;
use super::limits::Pressure;
use super::map::PageMap;
use super::policy::{Policy, Zeroing};
use super::shadow::Said;
use super::window::{Grain, Window};
use crate::base::classes::Use;
use crate::base::options::HugepagePolicy;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::{AtomicU64, AtomicUsize};
use crate::base::units::*;
use crate::os::{Os, Zeroed, metadata_bytes};
use core::ptr::{self, NonNull};
use crossbeam_utils::CachePadded;

/// The first step where a whole window cannot be had; it doubles with every success.
const FIRST_STEP: usize = if WINDOW > (4 << 20) { 4 << 20 } else { HUGEPAGE };

/// Below this many bytes writing zeros is cheaper than asking what is there.
const LOOK_FROM: usize = 128 << 10;

/// A zeroed block of which less than one part in so many was written to was hardly touched: a fault for each page that
/// the next one touches is then cheaper than writing all of it.
const TOUCHED_PART: usize = 32;

/// With so much memory behind it the heap is large enough for the system's hugepages to pay: from the third on,
/// if two are full. Blocks of some hundred KiB spread a heap of one MiB over three.
const LARGE_HEAP: usize = 2 * HUGEPAGE;

/// A block of this many hugepages is worth a look for memory that lies idle elsewhere.
const MANY: usize = 8;

/// Windows whose mappings may be split at every hugepage: half of Linux's 65,530 mappings a process.
pub(super) const WINDOWS_SPLIT: usize = 32;

/// The page heap over one system. `M` is what the floor above keeps per window.
#[derive(Debug)]
pub struct PageHeap<O, M> {
    pub(super) os: O,
    pub(super) map: PageMap<Window<M>>,
    /// 0 while whole windows can be had; then how much to ask for next.
    step: AtomicUsize,
    policy: Policy,
    pub(super) demand: Demand,
    pub(super) pressure: Pressure,
    pub(super) bell: CachePadded<Bell>,
    zeroing: Zeroing,
    pub(super) counters: CachePadded<PageCounters>,
}

/// What the page heap counted. Any thread, relaxed: sums, not states.
#[derive(Debug, Default)]
pub(super) struct PageCounters {
    pub(super) takes: AtomicU64,
    pub(super) grows: AtomicU64,
    pub(super) hugepages: AtomicU64,
    pub(super) last_resorts: AtomicU64,
    pub(super) metadata: AtomicUsize,
    pub(super) huge: AtomicUsize,
    pub(super) huge_blocks: AtomicUsize,
    pub(super) stranded: AtomicUsize,
    pub(super) purged: AtomicUsize,
    /// Bytes of granules that may have memory behind them, and of mappings of their own.
    pub(super) backed: AtomicUsize,
    /// Bytes of granules that got memory behind them, so far.
    pub(super) fresh: AtomicU64,
    pub(super) shed: AtomicU64,
    pub(super) collapses: AtomicU64,
    pub(super) last_tick: AtomicU64,
}

/// A claimed run of granules: hold it, or give it back.
#[must_use]
pub struct Run<'a, M> {
    /// The window it lies in.
    pub window: &'a Window<M>,
    /// Its first granule.
    pub first: Granule,
    /// Whether every byte of it is known to be zero.
    pub zeroed: bool,
}

impl<M> Run<'_, M> {
    /// The address of its first byte.
    pub fn address(&self) -> usize {
        self.window.address(self.first)
    }
}

impl<O: Os, M: Zeroed + Sync + 'static> PageHeap<O, M> {
    const_fn! {
        /// A page heap that has asked for nothing yet.
        pub fn new(os: O) -> Self {
            Self {
                os,
                map: PageMap::new(),
                step: AtomicUsize::new(0),
                policy: Policy::new(),
                demand: Demand::new(),
                pressure: Pressure::new(),
                bell: CachePadded::new(Bell::new()),
                zeroing: Zeroing::new(),
                counters: CachePadded::new(PageCounters {
                    takes: AtomicU64::new(0),
                    grows: AtomicU64::new(0),
                    hugepages: AtomicU64::new(0),
                    last_resorts: AtomicU64::new(0),
                    metadata: AtomicUsize::new(0),
                    huge: AtomicUsize::new(0),
                    huge_blocks: AtomicUsize::new(0),
                    stranded: AtomicUsize::new(0),
                    purged: AtomicUsize::new(0),
                    backed: AtomicUsize::new(0),
                    fresh: AtomicU64::new(0),
                    shed: AtomicU64::new(0),
                    collapses: AtomicU64::new(0),
                    last_tick: AtomicU64::new(0),
                }),
            }
        }
    }

    /// The system below.
    pub fn os(&self) -> &O {
        &self.os
    }

    /// The bell of who returns memory while nobody allocates.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// What can be set of it.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// An object is handed out, or none (null).
    ///
    /// # Safety
    /// `addr` is in a window of this heap, or 0.
    #[inline(always)]
    pub unsafe fn hold(&self, addr: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.map.hold(addr) };
    }

    /// The class word of the object that starts at `addr`, if the shadow says that it is held; then it is no
    /// longer.
    #[cfg(not(spandrel_model))]
    #[inline(always)]
    pub fn let_go(&self, addr: usize) -> Option<usize> {
        // SAFETY: that is where a window has its class words.
        unsafe { self.map.let_go(addr, Window::<M>::WORDS) }
    }

    /// What the shadow says of an address.
    pub fn said_of(&self, addr: usize) -> Said {
        // SAFETY: the shadow is that of the address.
        self.map.shadow(addr).map_or(Said::Nothing, |shadow| unsafe { shadow.look(addr) })
    }

    /// Returns the memory behind the shadow of free memory.
    ///
    /// # Safety
    /// The caller holds these bytes of one window, and they are free.
    pub(super) unsafe fn forget(&self, addr: usize, bytes: usize) {
        if let Some(shadow) = self.map.shadow(addr) {
            // SAFETY: the caller's promise.
            unsafe { shadow.forget(&self.os, addr, bytes) };
        }
    }

    /// All windows, oldest first.
    pub fn windows(&self) -> impl Iterator<Item = &Window<M>> {
        self.map.iter()
    }

    /// The blocks with a mapping of their own, by address: where they begin and their bytes.
    pub fn mappings(&self) -> impl Iterator<Item = (usize, usize)> {
        self.map.all().flat_map(|window| {
            let marked = (0..GRANULES_PER_WINDOW as u32).map(Granule);
            let marked = marked.filter(|&granule| window.usage(granule) == Use::Mapping);
            marked.map(|first| (window.address(first), window.length(first) * GRANULE))
        })
    }

    /// The window that holds `addr`, if it is one of ours. Lock-free; safe in a signal handler.
    #[inline]
    pub fn find(&self, addr: usize) -> Option<&Window<M>> {
        self.map.find(addr)
    }

    /// The class word of the span in which an object starts at `addr`, if one does.
    #[cfg(not(spandrel_model))]
    #[inline(always)]
    pub fn object_at(&self, addr: usize) -> Option<usize> {
        // SAFETY: that is where a window has its class words.
        unsafe { self.map.object_at(addr, Window::<M>::WORDS) }
    }

    /// Claims `count` granules at a multiple of 2^order granules, for use all over. Up to a hugepage
    /// `count <= 1 << order`; a longer run starts at a hugepage at least. `None` when neither the heap
    /// nor the system has them.
    pub fn take(&self, order: u32, count: usize) -> Option<Run<'_, M>> {
        self.take_for(Grain::Fine, order, count)
    }

    /// The same, for what `grain` says.
    pub fn take_for(&self, grain: Grain, order: u32, count: usize) -> Option<Run<'_, M>> {
        let counted = self.admit(count * GRANULE)?;
        let (window, first) = self.claim_counted(grain, order, count, counted)?;
        let fresh = window.soil(first, count, |_, _| {});
        self.admitted(counted, fresh * GRANULE);
        window.set_watched(first, false);
        Some(Run { window, first, zeroed: fresh == count })
    }

    /// The same, and all of it reads as zero: what may hold something else is cleared.
    pub fn take_zeroed(&self, grain: Grain, order: u32, count: usize) -> Option<Run<'_, M>> {
        let counted = self.admit(count * GRANULE)?;
        let (window, first) = self.claim_counted(grain, order, count, counted)?;
        let fresh = window.soil(first, count, |first, count| self.clear(window, first, count));
        self.admitted(counted, fresh * GRANULE);
        window.set_watched(first, true);
        Some(Run { window, first, zeroed: true })
    }

    /// Clears granules, by writing or by dropping, whichever the users of zeroed blocks so far make
    /// cheaper: a page that is dropped costs a fault when it is touched, one that is written costs
    /// the writing and its memory when it is not.
    fn clear(&self, window: &Window<M>, first: Granule, count: usize) {
        let bytes = count * GRANULE;
        let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(window.address(first))) else {
            return;
        };
        if bytes < LOOK_FROM || !bytes.is_multiple_of(self.os.page_size()) {
            // SAFETY: the caller's granules.
            return unsafe { at.write_bytes(0, bytes) };
        }
        // SAFETY: the caller's granules, whole pages.
        let held = unsafe { self.os.clear(at, bytes, self.zeroing.drops()) };
        // The block that began here last was zeroed and had as many granules: what it holds is its user's
        // doing.
        if window.watched(first) && window.length(first) == count {
            self.zeroing.learn(held * TOUCHED_PART >= bytes);
        }
    }

    fn claim_counted(
        &self,
        grain: Grain,
        order: u32,
        count: usize,
        counted: usize,
    ) -> Option<(&Window<M>, Granule)> {
        let claimed = self.claim(grain, order, count);
        if claimed.is_none() {
            self.admitted(counted, 0);
        }
        claimed
    }

    fn claim(&self, grain: Grain, order: u32, count: usize) -> Option<(&Window<M>, Granule)> {
        debug_assert!(order <= MAX_ORDER && count <= 1 << MAX_ORDER);
        debug_assert!(count <= 1 << order || order >= HUGEPAGE_ORDER);
        self.counters.takes.fetch_add(1, Relaxed);
        loop {
            if let Some(found) = self.find_free(grain, order, count) {
                return Some(found);
            }
            if !self.grow(order, count) {
                self.counters.last_resorts.fetch_add(1, Relaxed);
                return self.scan(grain, order, count);
            }
        }
    }

    /// Gives `count` granules back. Dies if one of them is free already.
    pub fn give(&self, window: &Window<M>, first: Granule, count: usize) {
        let now = self.os.now_ms();
        window.give(first, count, now as u32);
        if self.bell.note() {
            self.os.wake(self.bell.word());
        }
        self.tick(now);
    }

    /// Claims the `extra` granules behind `end` if they are free.
    pub(super) fn extend(&self, window: &Window<M>, end: Granule, extra: usize) -> bool {
        if end.index() + extra > GRANULES_PER_WINDOW {
            return false;
        }
        let Some(counted) = self.admit(extra * GRANULE) else { return false };
        let claimed = window.claim_exactly(end, extra, self.now());
        if claimed {
            let from = end.index().next_multiple_of(GRANULES_PER_HUGEPAGE);
            let whole = (end.index() + extra).saturating_sub(from) / GRANULES_PER_HUGEPAGE;
            self.prefer_hugepages(window, Granule(from as u32).hugepage(), whole);
        }
        let fresh = if claimed { window.soil(end, extra, |_, _| {}) } else { 0 };
        self.admitted(counted, fresh * GRANULE);
        claimed
    }

    /// The clock in the form the windows keep.
    pub(super) fn now(&self) -> u32 {
        self.os.now_ms() as u32
    }

    /// Hugepages in use first, whole ones last. In a large heap the two grains keep apart: fine runs
    /// and blocks from the bottom up, sparse runs from the top down, and hugepages are asked for
    /// below only. In a small one they share, so that it stays small.
    fn find_free(&self, grain: Grain, order: u32, count: usize) -> Option<(&Window<M>, Granule)> {
        if order >= HUGEPAGE_ORDER {
            return self.claim_whole(order, count);
        }
        let part = |grain, used| self.claim_part(grain, order, count, used);
        if let Some(found) = part(grain, false) {
            return Some(found);
        }
        if !self.is_large() {
            return part(grain.other(), false).or_else(|| self.claim_begin(grain, count));
        }
        // What has memory behind it goes first.
        self.claim_used(grain, count)
            .or_else(|| part(grain.other(), true))
            .or_else(|| self.claim_begin(grain, count))
            .or_else(|| part(grain.other(), false))
    }

    /// Part of a hugepage in use.
    fn claim_part(
        &self,
        grain: Grain,
        order: u32,
        count: usize,
        used: bool,
    ) -> Option<(&Window<M>, Granule)> {
        self.windows().find_map(|window| {
            window.claim_granules(grain, order, count, used).map(|first| (window, first))
        })
    }

    /// The first granules of a hugepage that begins again.
    fn claim_used(&self, grain: Grain, count: usize) -> Option<(&Window<M>, Granule)> {
        let claim = |window| Some((window, Window::claim_used(window)?));
        let (window, hugepage) = self.windows().find_map(claim)?;
        Some(self.begin(window, hugepage, grain, count))
    }

    /// The first granules of a hugepage that begins now.
    fn claim_begin(&self, grain: Grain, count: usize) -> Option<(&Window<M>, Granule)> {
        let apart = grain == Grain::Sparse && self.is_large();
        let claim = |window: &Window<M>| {
            if apart { window.claim_highest() } else { window.claim_hugepages(0, 1) }
        };
        let (window, hugepage) =
            self.windows().find_map(|window| Some((window, claim(window)?)))?;
        if grain == Grain::Fine {
            self.prefer_hugepages(window, hugepage, 1);
        }
        Some(self.begin(window, hugepage, grain, count))
    }

    /// Cuts a claimed hugepage: `count` granules for the caller, the rest for whoever comes.
    fn begin<'a>(
        &self,
        window: &'a Window<M>,
        hugepage: Hugepage,
        grain: Grain,
        count: usize,
    ) -> (&'a Window<M>, Granule) {
        self.counters.hugepages.fetch_add(1, Relaxed);
        window.begin(hugepage, grain);
        let rest = bit_range(count as u32, GRANULES_PER_HUGEPAGE - count);
        window.give_granules(hugepage, rest, self.now());
        (window, hugepage.granule(0))
    }

    /// Whole hugepages and, at the end, part of one, whose rest goes to who wants hugepages, too.
    fn claim_whole(&self, order: u32, count: usize) -> Option<(&Window<M>, Granule)> {
        let hugepages = count.div_ceil(GRANULES_PER_HUGEPAGE);
        let (window, hugepage) = self.windows().find_map(|window| {
            let claimed = window.claim_hugepages(order - HUGEPAGE_ORDER, hugepages);
            claimed.map(|hugepage| (window, hugepage))
        })?;
        self.counters.hugepages.fetch_add(hugepages as u64, Relaxed);
        self.prefer_hugepages(window, hugepage, hugepages);
        let first = hugepage.granule(0);
        let tail = hugepages * GRANULES_PER_HUGEPAGE - count;
        if tail != 0 {
            let end = Granule(first.0 + count as u32);
            window.begin(end.hugepage(), Grain::Fine);
            window.give_granules(end.hugepage(), bit_range(end.bit(), tail), self.now());
        }
        Some((window, first))
    }

    /// Whether a block of `count` granules would begin memory that was never used, or go to the system
    /// for more. A guess: others take and give meanwhile.
    pub fn would_grow(&self, count: usize) -> bool {
        let hugepages = count.div_ceil(GRANULES_PER_HUGEPAGE);
        hugepages >= MANY
            && self.windows().all(|window| {
                window.find_run(0, hugepages).is_none_or(|first| {
                    window.clean_of(Hugepage(first as u32), hugepages) > hugepages / 2
                })
            })
    }

    /// Whether the system may hold a hugepage of this window as one page: where it was asked to. What it
    /// does unasked is not known here.
    pub(super) fn may_be_huge(&self, window: &Window<M>, hugepage: Hugepage) -> bool {
        match self.policy.hugepages() {
            HugepagePolicy::Always => true,
            HugepagePolicy::Never => false,
            HugepagePolicy::Auto => window.advised(hugepage),
        }
    }

    /// Whether the heap is large enough for hugepages to pay: a small process pays for no page it does
    /// not touch.
    fn is_large(&self) -> bool {
        self.counters.backed.load(Relaxed) >= LARGE_HEAP
    }

    /// Once the heap is large, asks the system for hugepages behind claimed ones that will be used all
    /// over. One mapping of the system's is split at most at every hugepage, so in a heap of very many
    /// windows the splits could use up its limit of mappings; there it keeps what it has.
    fn prefer_hugepages(&self, window: &Window<M>, first: Hugepage, count: usize) {
        if count == 0 || self.policy.hugepages() != HugepagePolicy::Auto || !self.is_large() {
            return;
        }
        if self.windows().nth(WINDOWS_SPLIT).is_some() {
            return;
        }
        window.advise_once(first, count, |first, count| {
            self.advise(window.address(first.granule(0)), count * HUGEPAGE, true);
        });
    }

    fn advise(&self, at: usize, bytes: usize, wanted: bool) {
        if let Some(part) = NonNull::new(ptr::with_exposed_provenance_mut(at)) {
            // SAFETY: the callers name mappings of ours only.
            unsafe { self.os.advise_hugepages(part, bytes, wanted) };
        }
    }

    /// The last resort: no hints, every word.
    #[cold]
    fn scan(&self, grain: Grain, order: u32, count: usize) -> Option<(&Window<M>, Granule)> {
        for window in self.windows() {
            let order = order.min(HUGEPAGE_ORDER);
            if let Some(first) = window.claim_anywhere(order, count) {
                return Some((window, first));
            }
        }
        self.find_free(grain, order, count)
    }

    /// Maps more address space, enough for a run of `count` at `order`. False when the system has no
    /// more.
    #[cold]
    fn grow(&self, order: u32, count: usize) -> bool {
        let align = (GRANULE << order).max(HUGEPAGE);
        let needed = (count * GRANULE).next_multiple_of(HUGEPAGE).max(align);
        let step = self.step.load(Relaxed);
        if step == 0 {
            if self.reserve(WINDOW, WINDOW) {
                return true;
            }
            self.step.store(FIRST_STEP, Relaxed);
        }
        let mut bytes = step.max(FIRST_STEP).max(needed);
        loop {
            if self.reserve(bytes, align) {
                self.step.store((bytes * 2).min(WINDOW / 2), Relaxed);
                return true;
            }
            if bytes <= needed {
                return false;
            }
            bytes = (bytes / 2).next_multiple_of(HUGEPAGE).max(needed);
        }
    }

    /// Maps `bytes` at a multiple of `align` and adds them to their windows.
    fn reserve(&self, bytes: usize, align: usize) -> bool {
        let Some(at) = self.os.map(bytes, align) else {
            return false;
        };
        self.counters.grows.fetch_add(1, Relaxed);
        let (mut start, end) = (at.addr().get(), at.addr().get() + bytes);
        let mut added = false;
        match self.policy.hugepages() {
            HugepagePolicy::Auto => {}
            policy => self.advise(start, bytes, policy == HugepagePolicy::Always),
        };
        while start < end {
            let stop = ((start | (WINDOW - 1)) + 1).min(end);
            let known = self.find(start).is_some();
            if let Some(window) = self.window_at(start) {
                if !known || !seed::on(Seed::NotListed) {
                    self.map.list(window);
                }
                if bytes == WINDOW
                    && align == WINDOW
                    && let Some(shadow) = self.map.shadow(start)
                {
                    // Before anybody gets memory there.
                    let (mapped, stranded) = shadow.begin(&self.os, start >> WINDOW_SHIFT);
                    self.counters.metadata.fetch_add(mapped, Relaxed);
                    self.counters.stranded.fetch_add(stranded, Relaxed);
                }
                let first = Granule::of(start).hugepage();
                window.add(first, (stop - start) / HUGEPAGE);
                added = true;
            } else if let Some(part) = NonNull::new(ptr::with_exposed_provenance_mut(start)) {
                // SAFETY: this part of the mapping was made above and nobody was told of it.
                if !unsafe { self.os.unmap(part, stop - start) } {
                    self.counters.stranded.fetch_add(stop - start, Relaxed);
                }
            }
            start = stop;
        }
        added
    }

    /// The window that holds `addr`, made and published if it is new.
    pub(super) fn window_at(&self, addr: usize) -> Option<&Window<M>> {
        if let Some(window) = self.find(addr) {
            return Some(window);
        }
        if !self.map.covers(addr) {
            return None;
        }
        let bytes = metadata_bytes::<Window<M>>(self.os.page_size());
        let fresh = self.os.metadata::<Window<M>>()?;
        // SAFETY: fresh metadata is a valid `Window` (`Zeroed`), never unmapped once published, and
        // so far known only here.
        let window = unsafe { fresh.as_ref() };
        window.set_number(addr >> WINDOW_SHIFT);
        match self.map.publish(addr, fresh) {
            Ok(()) => {
                self.counters.metadata.fetch_add(bytes, Relaxed);
                Some(window)
            }
            Err(winner) => {
                // SAFETY: the race is lost, so no other thread has seen this metadata.
                if !unsafe { self.os.unmap(fresh.cast(), bytes) } {
                    self.counters.stranded.fetch_add(bytes, Relaxed);
                }
                Some(winner)
            }
        }
    }

    /// Bytes of granules that got memory behind them so far: of what was counted, what slow paths ask for.
    pub fn fresh(&self) -> u64 {
        self.counters.fresh.load(Relaxed)
    }

    /// What was counted, with the bytes mapped for metadata and for blocks of their own.
    pub fn counts(&self) -> PageCounts {
        let c = &self.counters;
        PageCounts {
            takes: c.takes.load(Relaxed),
            gives: self.bell.gives(),
            grows: c.grows.load(Relaxed),
            hugepages: c.hugepages.load(Relaxed),
            last_resorts: c.last_resorts.load(Relaxed),
            metadata: c.metadata.load(Relaxed),
            huge: c.huge.load(Relaxed),
            huge_blocks: c.huge_blocks.load(Relaxed),
            stranded: c.stranded.load(Relaxed),
            purged: c.purged.load(Relaxed),
            backed: c.backed.load(Relaxed),
            fresh: c.fresh.load(Relaxed),
            shed: c.shed.load(Relaxed),
            collapses: c.collapses.load(Relaxed),
        }
    }
}

/// The page heap's counts at one moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCounts {
    /// Runs asked for.
    pub takes: u64,
    /// Runs given back.
    pub gives: u64,
    /// Whole hugepages that were cut or handed out.
    pub hugepages: u64,
    /// Pieces of address space got from the system.
    pub grows: u64,
    /// Requests that neither hints nor the system could serve.
    pub last_resorts: u64,
    /// Bytes mapped for the metadata of windows.
    pub metadata: usize,
    /// Bytes mapped for blocks of their own.
    pub huge: usize,
    /// Blocks that have a mapping of their own.
    pub huge_blocks: usize,
    /// Bytes the system would not take back.
    pub stranded: usize,
    /// Bytes returned to the system so far, addresses kept.
    pub purged: usize,
    /// Bytes that may have memory behind them: granules, and blocks with a mapping of their own.
    pub backed: usize,
    /// Bytes of granules that got memory behind them, so far; what was returned and taken again counts
    /// each time.
    pub fresh: u64,
    /// Bytes of pages returned from inside spans so far, each time anew.
    pub shed: u64,
    /// Hugepages put together again after a part of them was returned and taken.
    pub collapses: u64,
}
