//! A bin: the objects of one class that a thread has at hand, as an array of pointers.
//!
//! Three pointers into the array say all: `top` is one past the hottest object, at or below `low`
//! an allocation goes the slow way, at or above `end` a free does. A bin of all zeros is *pinned*:
//! every call goes slow. That one trick is the first-use check and the teardown check, at no cost.
//!
//! A bin with an array is pinned by its bounds alone (`low` above, `end` below everything): what it holds
//! stays, and the slow path reaches it. That is observed mode ([`switch`](super::switch)), and the only
//! store that another thread makes here. A bin that is pinned so and whose owner has *opened* it sends some
//! allocations the fast way; `end` is then as far below the array's end as no array is long, and so below `top`.
//!
//! The objects themselves are never read or written.

use crate::base::death;
use crate::base::seed::{self, Seed};
use crate::base::sync::AtomicPtr;
use crate::base::sync::Ordering::Relaxed;
use core::ptr;

/// Where a pointer to an object is kept.
pub type Slot = *mut u8;

/// More bytes than any array has, and less than any address of one.
const LONGEST: usize = 1 << 15;

/// One class of one thread cache. Written by the thread that owns the cache, but for the bounds, which
/// any thread may pin; `top` and `base` are read by reports on other threads.
#[derive(Debug)]
#[repr(C)]
pub struct Bin {
    top: AtomicPtr<Slot>,
    low: Bound,
    end: Bound,
    base: AtomicPtr<Slot>,
}

/// What became of an object that an open bin should keep.
#[cfg(not(spandrel_model))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the bin.
    Kept,
    /// The bin is not open, or is full.
    NotOpen,
    /// There is room, but something has to be seen to first.
    Due,
}

impl Bin {
    const_fn! {
        /// A pinned bin; all zero bits.
        pub fn new() -> Self {
            Self {
                top: AtomicPtr::new(ptr::null_mut()),
                low: Bound::new(),
                end: Bound::new(),
                base: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }

    /// Takes the hottest object, unless the slow path has a say.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache.
    #[inline(always)]
    pub unsafe fn pop(&self) -> Option<*mut u8> {
        let top = self.top.load(Relaxed);
        if top <= self.low.get() {
            return None;
        }
        // SAFETY: above `low`, which is at or above the base, lie slots that hold objects.
        let object = unsafe { *top.sub(1) };
        // SAFETY: and no object is at address 0. Callers' tests for null fold away.
        unsafe { core::hint::assert_unchecked(!object.is_null()) };
        self.step(-1);
        Some(object)
    }

    /// Keeps an object, unless the slow path has a say.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache, and `object` is a free object of the bin's class.
    #[inline(always)]
    pub unsafe fn push(&self, object: *mut u8) -> bool {
        let top = self.top.load(Relaxed);
        if top >= self.end.get() {
            return false;
        }
        // SAFETY: below `end` lie slots of the bin's array.
        unsafe { *top = object };
        self.step(1);
        true
    }

    /// As [`Bin::push`], and dies by name if the object is the one that was pushed last.
    ///
    /// # Safety
    /// As [`Bin::push`].
    #[inline(always)]
    pub unsafe fn push_once(&self, object: *mut u8) -> bool {
        let top = self.top.load(Relaxed);
        if top >= self.end.get() {
            return false;
        }
        // SAFETY: the slot below every array is null and nobody's (`sizing`).
        if unsafe { *top.sub(1) } == object {
            death::double_free(object.addr());
        }
        // SAFETY: below `end` lie slots of the bin's array.
        unsafe { *top = object };
        self.step(1);
        true
    }

    /// Whether `object` is what the owner's next allocation would get: it was freed last, and is free.
    pub fn is_on_top(&self, object: *mut u8) -> bool {
        // SAFETY: a bin that holds something has a slot below `top`.
        !self.is_empty() && unsafe { *self.top.load(Relaxed).sub(1) } == object
    }

    /// Moves `top`. Loading it a second time lets the compiler add to memory in one instruction;
    /// only the owner stores, so both loads give the same.
    #[inline(always)]
    fn step(&self, by: isize) {
        self.top.store(self.top.load(Relaxed).wrapping_offset(by), Relaxed);
    }

    /// Objects in the bin: exact for the owner. Others see the ends of two arrays while it climbs, and
    /// ask [`ThreadCache::held`](super::ThreadCache::held).
    pub fn len(&self) -> usize {
        let (base, top) = (self.base.load(Relaxed), self.top.load(Relaxed));
        if base.is_null() && !seed::on(Seed::TornReport) {
            // A report may see the old base and the new top.
            return 0;
        }
        top.addr().saturating_sub(base.addr()) / size_of::<Slot>()
    }

    /// Sends every call the slow way and leaves what it holds. Any thread may.
    pub(super) fn pin_bounds(&self) {
        self.low.set(ptr::without_provenance_mut(usize::MAX));
        self.end.set(ptr::null_mut());
    }

    /// Whether every free goes the slow way, for want of an array or because the bounds are pinned.
    pub fn is_pinned(&self) -> bool {
        self.end.get() <= self.base.load(Relaxed)
    }

    /// Whether nobody but who pinned it has stored its bounds since; or it has no array.
    #[cfg(spandrel_model)]
    pub fn has_pinned_bounds(&self) -> bool {
        let low = self.low.get().addr() == usize::MAX || self.base.load(Relaxed).is_null();
        low && self.end.get().is_null()
    }

    /// Of a bin with pinned bounds and an array of `capacity` slots: sends allocations the fast way that leave at
    /// least `count` objects.
    pub(super) fn open(&self, count: usize, capacity: usize) {
        debug_assert!(capacity * size_of::<Slot>() < LONGEST);
        let base = self.base.load(Relaxed);
        self.low.set(base.wrapping_add(count));
        self.end.set(base.wrapping_add(capacity).wrapping_byte_sub(LONGEST));
    }

    /// Whether it was opened and nobody has pinned it since. Then some allocations may go the fast way.
    pub fn is_open(&self) -> bool {
        let base = self.base.load(Relaxed);
        !base.is_null() && base.addr().wrapping_sub(self.end.get().addr()) < LONGEST
    }

    /// Keeps an object in a bin that is [open](Bin::open), unless its array is full or `is_due` has something
    /// against it.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache, and `object` is a free object of the bin's class.
    #[cfg(not(spandrel_model))]
    #[inline(always)]
    pub(super) unsafe fn push_open(
        &self,
        object: *mut u8,
        is_due: impl FnOnce() -> bool,
    ) -> Pushed {
        let top = self.top.load(Relaxed);
        // One comparison for all: open, it is the room less LONGEST; closed or parted, it is further below 0; and where
        // the bounds are those of the array it is 0, as the fast path has found no room.
        if self.end.get().addr().wrapping_sub(top.addr()) <= LONGEST.wrapping_neg() {
            return Pushed::NotOpen;
        }
        if is_due() {
            return Pushed::Due;
        }
        // SAFETY: below the end lie slots of the bin's array.
        unsafe { *top = object };
        self.step(1);
        Pushed::Kept
    }

    /// Gives a bin with pinned bounds those of its array of `capacity` slots.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache, and the array has that many slots.
    pub(super) unsafe fn unpin(&self, capacity: usize) {
        let base = self.base.load(Relaxed);
        self.low.set(base);
        self.end.set(base.wrapping_add(capacity));
    }

    /// Takes the hottest object, whatever the bounds say.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache.
    pub(super) unsafe fn pop_any(&self) -> Option<*mut u8> {
        let top = self.top.load(Relaxed);
        if top == self.base.load(Relaxed) {
            return None;
        }
        // SAFETY: the slot below `top` holds an object.
        let object = unsafe { *top.sub(1) };
        self.step(-1);
        Some(object)
    }

    /// Keeps an object, whatever the bounds say.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache, its array has room for one more, and `object` is a free
    /// object of its class.
    pub(super) unsafe fn push_any(&self, object: *mut u8) {
        // SAFETY: there is room.
        unsafe { *self.top.load(Relaxed) = object };
        self.step(1);
    }

    /// Keeps an object at index `at`; what lay there goes on top.
    ///
    /// # Safety
    /// As [`Bin::push_any`]; the bin holds at least `at` objects.
    pub(super) unsafe fn insert(&self, at: usize, object: *mut u8) {
        let (top, slot) = (self.top.load(Relaxed), self.base.load(Relaxed).wrapping_add(at));
        // In this order, so that whoever looks in between finds each of them.
        // SAFETY: there is room, and `slot` is `top` or a slot below it.
        unsafe { *top = *slot };
        self.step(1);
        // SAFETY: as above.
        unsafe { *slot = object };
    }

    /// Sends every free the slow way, and allocations that would leave fewer than `count` objects.
    pub(super) fn part(&self, count: usize) {
        let base = self.base.load(Relaxed);
        if !base.is_null() {
            self.low.set(base.wrapping_add(count));
            // Below every slot, and further than that of an open bin.
            self.end.set(base.wrapping_byte_sub(2 * LONGEST));
        }
    }

    /// Forgets its array and whatever is there.
    pub(super) fn pin(&self) {
        self.base.store(ptr::null_mut(), Relaxed);
        self.top.store(ptr::null_mut(), Relaxed);
        self.low.set(ptr::null_mut());
        self.end.set(ptr::null_mut());
    }

    /// Where its array begins; null without one.
    #[cfg(not(spandrel_model))]
    pub(super) fn base(&self) -> *const Slot {
        self.base.load(Relaxed)
    }

    /// Where `top` points to.
    pub(super) fn top(&self) -> usize {
        self.top.load(Relaxed).addr()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects below the mark that an allocation has not reached since [`Bin::mark`].
    pub fn marked(&self) -> usize {
        if self.is_pinned() {
            return 0;
        }
        self.low.get().addr().saturating_sub(self.base.load(Relaxed).addr()) / size_of::<Slot>()
    }

    /// Sends allocations that would leave fewer than `count` objects the slow way.
    pub fn mark(&self, count: usize) {
        if !self.is_pinned() {
            self.low.set(self.base.load(Relaxed).wrapping_add(count));
        }
    }

    /// The array, as far as it holds objects.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache and lets go of the slice before it uses the bin.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn objects(&self) -> &mut [Slot] {
        let (base, len) = (self.base.load(Relaxed), self.len());
        if base.is_null() {
            return &mut [];
        }
        // SAFETY: `base..top` are slots of this cache, which only the caller uses.
        unsafe { core::slice::from_raw_parts_mut(base, len) }
    }

    /// The first `count` slots of the array, whatever they hold.
    ///
    /// # Safety
    /// As [`Bin::objects`]; `count` is at most the array's length.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slots(&self, count: usize) -> &mut [Slot] {
        // SAFETY: the caller vouches for the length; zeroed or written, every slot is a pointer.
        unsafe { core::slice::from_raw_parts_mut(self.base.load(Relaxed), count) }
    }

    /// Says how many objects the array holds now. Takes the mark away.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache, and that many slots hold free objects.
    pub unsafe fn set_len(&self, len: usize) {
        let base = self.base.load(Relaxed);
        self.top.store(base.wrapping_add(len), Relaxed);
        if !self.is_pinned() {
            self.low.set(base);
        }
    }

    /// Gives the bin another array of `capacity` slots and moves its objects there; null pins it.
    ///
    /// # Safety
    /// The calling thread owns the bin's cache; `array` has room for `capacity` slots, at least as
    /// many as the bin holds objects, and is used by nothing else.
    pub unsafe fn set_array(&self, array: *mut Slot, capacity: usize) {
        let (old, len) = (self.base.load(Relaxed), self.len());
        if len > 0 {
            // SAFETY: both arrays hold `len` slots, and the new one is used by nothing else.
            unsafe { ptr::copy_nonoverlapping(old, array, len) };
        }
        self.base.store(array, Relaxed);
        self.top.store(array.wrapping_add(len), Relaxed);
        self.low.set(array);
        self.end.set(array.wrapping_add(capacity));
    }
}

impl Default for Bin {
    fn default() -> Self {
        Self::new()
    }
}

/// A limit that the fast path compares with. The owner of the cache stores it, or who pins it.
///
/// Read as a volatile word rather than a relaxed atomic: the compiler folds it into the comparison,
/// which saves an instruction in every allocation and every free. An aligned word is read and written
/// whole; what becomes of two stores at once is the business of [`switch`](super::switch) (model M12).
#[derive(Debug)]
#[repr(transparent)]
#[cfg(not(spandrel_model))]
struct Bound(core::sync::atomic::AtomicPtr<Slot>);

#[cfg(not(spandrel_model))]
impl Bound {
    const fn new() -> Self {
        Self(core::sync::atomic::AtomicPtr::new(ptr::null_mut()))
    }

    #[inline(always)]
    fn get(&self) -> *mut Slot {
        // SAFETY: an aligned word inside a live cache.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    fn set(&self, to: *mut Slot) {
        self.0.store(to, Relaxed);
    }
}

/// The same word where a model asks to see it.
#[derive(Debug)]
#[cfg(spandrel_model)]
struct Bound(crate::base::sync::OnDemand);

#[cfg(spandrel_model)]
impl Bound {
    fn new() -> Self {
        Self(crate::base::sync::OnDemand::new())
    }

    fn get(&self) -> *mut Slot {
        ptr::with_exposed_provenance_mut(self.0.load())
    }

    fn set(&self, to: *mut Slot) {
        self.0.store(to.expose_provenance());
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    /// Objects that are only names: nothing may look behind them.
    fn object(n: usize) -> *mut u8 {
        ptr::without_provenance_mut(n * 8)
    }

    fn pop(bin: &Bin) -> Option<usize> {
        // SAFETY: the test owns the bin.
        unsafe { bin.pop() }.map(|object| object.addr() / 8)
    }

    fn push(bin: &Bin, n: usize) -> bool {
        // SAFETY: the test owns the bin, and the object is nobody's.
        unsafe { bin.push(object(n)) }
    }

    #[test]
    fn a_pinned_bin_sends_every_call_the_slow_way() {
        let bin = Bin::new();
        assert_eq!((pop(&bin), push(&bin, 1), bin.len(), bin.marked()), (None, false, 0, 0));
        // SAFETY: the test owns the bin.
        assert!(unsafe { bin.objects() }.is_empty());
    }

    #[test]
    fn pinned_bounds_hide_what_is_there_and_lose_nothing() {
        let mut array = [ptr::null_mut(); 4];
        let bin = Bin::new();
        // SAFETY: the array outlives the bin's use of it, and has four slots; the test owns the bin.
        unsafe {
            bin.set_array(array.as_mut_ptr(), 4);
            assert!(push(&bin, 1) && push(&bin, 2));
            bin.pin_bounds();
            assert!(bin.is_pinned() && !push(&bin, 3));
            assert_eq!((pop(&bin), bin.len(), bin.marked()), (None, 2, 0));
            bin.push_any(object(3));
            assert_eq!(bin.pop_any(), Some(object(3)));
            // What a sweep does leaves the pins.
            bin.mark(1);
            bin.set_len(2);
            assert_eq!((pop(&bin), bin.marked()), (None, 0));
            bin.unpin(4);
            assert!(push(&bin, 3) && push(&bin, 4) && !push(&bin, 5));
            assert_eq!(
                (1..=4).rev().map(|_| pop(&bin)).collect::<Vec<_>>(),
                [4, 3, 2, 1].map(Some)
            );
            assert_eq!(bin.pop_any(), None);
        }
    }

    #[test]
    fn an_open_bin_gives_what_it_may_and_takes_what_it_has_room_for() {
        let mut array = [ptr::null_mut(); 4];
        let bin = Bin::new();
        // SAFETY: as above; three of the four slots are the bin's.
        unsafe {
            let push_open = |n, due| bin.push_open(object(n), || due);
            assert_eq!(push_open(1, false), Pushed::NotOpen, "no array");
            bin.set_array(array.as_mut_ptr(), 3);
            assert!((1..=3).all(|n| push(&bin, n)) && !bin.is_open());
            assert_eq!(push_open(4, false), Pushed::NotOpen, "its bounds are not pinned");
            bin.pin_bounds();
            bin.set_len(0);
            assert_eq!(push_open(1, false), Pushed::NotOpen, "nobody has opened it");
            assert!(!bin.is_open());
            bin.open(0, 3);
            assert!(bin.is_pinned() && bin.is_open() && !push(&bin, 1));
            assert_eq!(push_open(1, true), Pushed::Due);
            assert!((1..=3).all(|n| push_open(n, false) == Pushed::Kept));
            assert_eq!(push_open(4, true), Pushed::NotOpen, "full");
            bin.open(1, 3);
            assert_eq!([pop(&bin), pop(&bin), pop(&bin)], [Some(3), Some(2), None]);
            assert_eq!((bin.len(), bin.pop_any()), (1, Some(object(1))));
            bin.pin_bounds();
            assert!(!bin.is_open());
        }
        assert_eq!(array[3], ptr::null_mut());
    }

    #[test]
    fn last_in_first_out_between_its_bounds() {
        let (mut small, mut large) = ([ptr::null_mut(); 4], [ptr::null_mut(); 8]);
        let bin = Bin::new();
        // SAFETY: the arrays outlive the bin's use of them, which is this function's.
        unsafe { bin.set_array(small.as_mut_ptr(), 4) };
        assert!((1..=4).all(|n| push(&bin, n)) && !push(&bin, 5));
        assert_eq!((bin.len(), pop(&bin)), (4, Some(4)));
        // A longer array takes over what is there.
        // SAFETY: as above.
        unsafe { bin.set_array(large.as_mut_ptr(), 8) };
        assert!((4..=8).all(|n| push(&bin, n)) && !push(&bin, 9));
        // The mark sends allocations the slow way before the bin is empty.
        bin.mark(6);
        assert_eq!((bin.marked(), pop(&bin), pop(&bin), pop(&bin)), (6, Some(8), Some(7), None));
        bin.mark(0);
        assert!((1..=6).rev().all(|n| pop(&bin) == Some(n)));
        assert_eq!((pop(&bin), bin.is_empty()), (None, true));
    }
}
