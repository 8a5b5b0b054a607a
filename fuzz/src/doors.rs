//! The allocator as programs call it: from Rust, and from C.
//!
//! Both doors lead to the one heap of the process. Nothing else here lives in it, so after a case, with
//! everything given back, it must be empty and its parts must add up.

use crate::shadow::{self, Shadow};
use crate::size::Size;
use crate::watching::{self, Look, Modes, Switch, Watcher};
use arbitrary::{Arbitrary, Unstructured};
use spandrel::base::classes::Class;
use spandrel::front::building::pages;
use spandrel::front::c;
use spandrel::page::shadow::{KEPT, Said};
use spandrel::watch::guard;
use spandrel::{Check, Spandrel};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// One step of a case.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Op {
    Take { size: Size, align: u8, how: u8 },
    Many { size: Size, count: u8, how: u8 },
    Free { which: u16, count: u8 },
    Resize { which: u16, size: Size, how: u8 },
    Check { which: u16 },
    Extreme { size: u64, align: u8, how: u8 },
    Pass { which: u16 },
    Collect,
    Purge,
    Flush,
    Stats,
}

/// A step with what observes it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Op),
    Switch(Switch),
    Look(Look),
}

const MOST_BYTES: usize = 1 << 30;
const MOST_BLOCKS: usize = 20_000;
const MOST_THREADS: usize = 4;
const ENOUGH: usize = 256;

/// A block that is held.
#[derive(Debug)]
pub struct Block {
    at: *mut u8,
    /// As asked for.
    layout: Layout,
    /// Bytes that may be used.
    usable: usize,
    tag: u64,
    /// Whether it was resized since: C takes an alignment back only with a block that was allocated with one.
    resized: bool,
}

// SAFETY: plain memory with one holder.
unsafe impl Send for Block {}

/// What a door does.
pub trait Door: Modes + Sync {
    /// Whether resizing keeps the alignment asked for; C's `realloc` promises no more than `malloc`.
    const KEEPS_ALIGNMENT: bool;

    /// A block, and whether it must be zero; null when there is none. May lower the layout to what the
    /// function that `how` stands for promises.
    fn take(&self, layout: &mut Layout, how: u8) -> (*mut u8, bool);

    /// # Safety
    /// The block is given up.
    unsafe fn free(&self, block: &Block, how: u8);

    /// # Safety
    /// The block is held; it is gone unless the answer is null.
    unsafe fn resize(&self, block: &Block, new: usize, how: u8) -> *mut u8;

    /// Bytes of the block that may be used, at least as many as were asked for.
    ///
    /// # Safety
    /// The block is held.
    unsafe fn usable(&self, at: *mut u8, size: usize) -> usize;
}

/// `GlobalAlloc`.
pub struct Rust;

impl Modes for Rust {}

impl Door for Rust {
    const KEEPS_ALIGNMENT: bool = true;

    fn take(&self, layout: &mut Layout, how: u8) -> (*mut u8, bool) {
        // SAFETY: Spandrel serves every layout, size 0 included.
        unsafe {
            match how % 4 {
                0 => (Spandrel.alloc_zeroed(*layout), true),
                _ => (Spandrel.alloc(*layout), false),
            }
        }
    }

    unsafe fn free(&self, block: &Block, _: u8) {
        // SAFETY: the caller's promise.
        unsafe { Spandrel.dealloc(block.at, block.layout) };
    }

    unsafe fn resize(&self, block: &Block, new: usize, _: u8) -> *mut u8 {
        // SAFETY: the caller's promise; sizes here are far from overflow.
        unsafe { Spandrel.realloc(block.at, block.layout, new) }
    }

    unsafe fn usable(&self, _: *mut u8, size: usize) -> usize {
        size
    }
}

/// malloc and its family.
pub struct C;

impl Modes for C {
    fn check(&self, to: Check) {
        // SAFETY: no conditions.
        assert_eq!(unsafe { c::spandrel_check(to as c_int) }, 0);
    }

    fn guard(&self, every: u32) {
        // SAFETY: no conditions.
        assert_eq!(unsafe { c::spandrel_guard(every) }, 0);
    }
}

/// A value of errno that no call sets.
const UNTOUCHED: c_int = 9999;

fn errno() -> &'static mut c_int {
    // SAFETY: this thread's own, for as long as it lives; nobody keeps the reference.
    unsafe { &mut *libc::__errno_location() }
}

impl Door for C {
    const KEEPS_ALIGNMENT: bool = false;

    fn take(&self, layout: &mut Layout, how: u8) -> (*mut u8, bool) {
        let (size, align) = (layout.size(), layout.align());
        let page = 4096;
        // What malloc promises.
        let natural = if size >= 16 { 16 } else { 8 };
        *errno() = UNTOUCHED;
        // SAFETY: none of these has conditions on its arguments.
        let (at, promised, zero) = unsafe {
            match how % 10 {
                0 => (c::calloc(1, size), natural, true),
                1 => (c::calloc(size, 1), natural, true),
                2 => {
                    let mut out = std::ptr::null_mut();
                    let align = align.max(8);
                    let error = c::posix_memalign(&mut out, align, size);
                    assert!(if out.is_null() { error == libc::ENOMEM } else { error == 0 });
                    assert_eq!(*errno(), UNTOUCHED, "posix_memalign leaves errno");
                    *errno() = if out.is_null() { libc::ENOMEM } else { UNTOUCHED };
                    (out, align, false)
                }
                3 => (c::aligned_alloc(align, size), align, false),
                4 => (c::memalign(align, size), align, false),
                5 => (c::valloc(size), page, false),
                6 => (c::pvalloc(size), page, false),
                7 => (c::reallocarray(std::ptr::null_mut(), size, 1), natural, false),
                8 => (c::realloc(std::ptr::null_mut(), size), natural, false),
                _ => (c::malloc(size), natural, false),
            }
        };
        let wanted = if at.is_null() { libc::ENOMEM } else { UNTOUCHED };
        assert_eq!(*errno(), wanted, "errno after {layout:?}, {how}");
        if !at.is_null() {
            // pvalloc's blocks are whole pages.
            let size = if how % 10 == 6 { size.max(1).next_multiple_of(page) } else { size };
            *layout = Layout::from_size_align(size, promised).expect("there is such a block");
        }
        (at.cast(), zero)
    }

    unsafe fn free(&self, block: &Block, how: u8) {
        *errno() = UNTOUCHED;
        let at = block.at.cast::<c_void>();
        // SAFETY: the caller's promise.
        unsafe {
            match how % 5 {
                0 => c::free_sized(at, block.layout.size()),
                1 if !block.resized => {
                    c::free_aligned_sized(at, block.layout.align(), block.layout.size());
                }
                2 => c::sdallocx(at, block.layout.size(), 0),
                3 => assert!(c::realloc(at, 0).is_null()),
                _ => c::free(at),
            }
        }
        assert_eq!(*errno(), UNTOUCHED, "free leaves errno");
    }

    unsafe fn resize(&self, block: &Block, new: usize, how: u8) -> *mut u8 {
        let at = block.at.cast::<c_void>();
        // SAFETY: the caller's promise.
        unsafe {
            match how % 2 {
                0 => c::realloc(at, new),
                _ => c::reallocarray(at, 1, new),
            }
            .cast()
        }
    }

    unsafe fn usable(&self, at: *mut u8, size: usize) -> usize {
        // SAFETY: the caller's promise.
        let usable = unsafe { c::malloc_usable_size(at.cast()) };
        assert!(usable >= size, "{usable} usable of {size}");
        usable
    }
}

struct Actor<'a, D> {
    door: &'a D,
    may_fail: bool,
    shadow: &'a Shadow,
    passed: &'a Mutex<Vec<Block>>,
    held: Vec<Block>,
    bytes: usize,
    made: u64,
    watcher: Watcher,
    /// Whether nobody else works.
    alone: bool,
}

impl<D: Door> Actor<'_, D> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Do(op) => self.act(op),
            Step::Switch(switch) => self.watcher.switch(self.door, switch),
            Step::Look(look) => self.watcher.look(look, self.bytes, self.alone),
        }
    }

    fn act(&mut self, op: Op) {
        crate::trace_step(&op);
        let full = self.bytes > MOST_BYTES || self.held.len() > MOST_BLOCKS;
        match op {
            Op::Take { .. } | Op::Many { .. } if full => {
                let keep = self.held.len() / 2;
                while self.held.len() > keep {
                    self.free_at(keep, 0);
                }
            }
            Op::Take { size, align, how } => {
                let align = 1 << (align % 31);
                let taken = self.take(size.bytes(), align, how);
                assert!(taken || self.may_fail, "{op:?} was refused");
            }
            Op::Many { size, count, how } => {
                let size = size.bytes();
                for _ in 0..count {
                    if size * ENOUGH > MOST_BYTES {
                        break;
                    }
                    let taken = self.take(size, 8, how);
                    assert!(taken || self.may_fail, "{op:?} was refused");
                }
            }
            Op::Free { which, count } => {
                for _ in 0..=count {
                    if self.held.is_empty() {
                        break;
                    }
                    self.free_at(which as usize % self.held.len(), which as u8);
                }
            }
            Op::Resize { which, size, how } if !self.held.is_empty() => {
                self.resize(which as usize % self.held.len(), size.bytes().max(1), how);
            }
            Op::Check { which } if !self.held.is_empty() => {
                self.held[which as usize % self.held.len()].check();
            }
            Op::Extreme { size, align, how } => {
                // From the largest there is down to what might be had, and null is a good answer.
                let size = (isize::MAX as usize >> (size as u32 % 28)) - (size >> 40) as usize;
                let align = 1usize << (align % 63);
                if Layout::from_size_align(size, align).is_ok() && self.take_any(size, align, how) {
                    self.free_at(self.held.len() - 1, how);
                }
            }
            Op::Pass { which } if !self.held.is_empty() => {
                let block = self.held.swap_remove(which as usize % self.held.len());
                self.bytes -= block.usable;
                self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(block);
            }
            Op::Collect => {
                let got = self.passed.lock().unwrap_or_else(PoisonError::into_inner).pop();
                if let Some(block) = got {
                    self.bytes += block.usable;
                    self.held.push(block);
                }
            }
            Op::Purge => drop(spandrel::purge()),
            Op::Flush => spandrel::flush_current_thread(),
            Op::Stats if self.alone => {
                let stats = books();
                // Guarded blocks are not the heap's.
                let heap = self.held.iter().filter(|block| !guard::holds(block.at.addr()));
                let bytes: usize = heap.map(|block| block.usable).sum();
                assert!(stats.live >= bytes, "{bytes} bytes are held: {stats}");
            }
            _ => {}
        }
    }

    fn take(&mut self, size: usize, align: usize, how: u8) -> bool {
        self.enter(size, align, how, true)
    }

    /// The same for blocks that are never touched.
    fn take_any(&mut self, size: usize, align: usize, how: u8) -> bool {
        self.enter(size, align, how, false)
    }

    fn enter(&mut self, size: usize, align: usize, how: u8, touch: bool) -> bool {
        let mut layout = Layout::from_size_align(size, align).expect("a valid layout");
        let (at, zero) = self.door.take(&mut layout, how);
        if at.is_null() {
            return false;
        }
        assert!(at.addr().is_multiple_of(layout.align()), "{at:p} for {layout:?}, {how}");
        // SAFETY: just handed out.
        let usable = unsafe { self.door.usable(at, size) };
        self.shadow.claim(at, usable);
        if zero && touch {
            // SAFETY: just handed out, and that long.
            unsafe { shadow::check_zero(at, size) };
        }
        self.made += 1;
        let tag = (at.addr() as u64).wrapping_mul(self.made << 1 | 1).rotate_left(17);
        let shown = if touch { usable } else { 0 };
        // SAFETY: as above.
        unsafe { shadow::fill(at, shown, tag) };
        self.bytes += usable;
        self.held.push(Block { at, layout, usable, tag, resized: false });
        if !touch {
            // Nothing of it is looked at again; one byte at each end shows that it is there.
            // SAFETY: as above; a size of zero is held like one.
            unsafe {
                at.write(0);
                at.add(usable.saturating_sub(1)).write(0);
            }
            self.held.last_mut().expect("just pushed").tag = UNSEEN;
        }
        true
    }

    fn resize(&mut self, which: usize, new: usize, how: u8) {
        let block = self.held.swap_remove(which);
        block.check();
        self.bytes -= block.usable;
        self.shadow.release(block.at, block.usable);
        let known = known_as_held(block.at);
        // SAFETY: held here alone.
        let at = unsafe { self.door.resize(&block, new, how) };
        if !at.is_null() && at != block.at {
            self.is_gone(&block, known);
        }
        if at.is_null() {
            // Nothing has changed.
            assert!(self.may_fail, "{block:?} to {new} was refused");
            self.shadow.claim(block.at, block.usable);
            block.check();
            self.bytes += block.usable;
            self.held.push(block);
            return;
        }
        let promised = if new >= 16 { 16 } else { 8 };
        // SAFETY: handed out for `new` bytes.
        let usable = unsafe { self.door.usable(at, new) };
        self.shadow.claim(at, usable);
        let kept = block.layout.size().min(new);
        // SAFETY: the block is that long now.
        unsafe { shadow::check(at, block.usable, block.tag, kept) };
        let align = if D::KEEPS_ALIGNMENT { block.layout.align() } else { promised };
        assert!(at.addr().is_multiple_of(align), "{at:p} after realloc to {new}");
        self.made += 1;
        let tag = block.tag.wrapping_mul(self.made << 1 | 1).rotate_left(7);
        // SAFETY: as above.
        unsafe { shadow::fill(at, usable, tag) };
        self.bytes += usable;
        let layout = Layout::from_size_align(new, align).expect("a valid layout");
        self.held.push(Block { at, layout, usable, tag, resized: true });
    }

    fn free_at(&mut self, which: usize, how: u8) {
        let block = self.held.swap_remove(which);
        block.check();
        self.bytes -= block.usable;
        self.shadow.release(block.at, block.usable);
        let known = known_as_held(block.at);
        // SAFETY: held here alone, and given up now.
        unsafe { self.door.free(&block, how) };
        self.is_gone(&block, known);
    }

    /// A second free would be seen from now on. With others at work it may be somebody's again.
    fn is_gone(&self, block: &Block, known: bool) {
        if known && self.alone {
            assert_eq!(pages().said_of(block.at.addr()), Said::Free, "{block:?} was freed");
            SEEN.fetch_add(1, Relaxed);
        }
    }

    fn free_all(&mut self) {
        while !self.held.is_empty() {
            self.free_at(self.held.len() - 1, self.held.len() as u8);
        }
    }
}

/// Frees after which the allocator was seen to know that the object is free. Stays 0 without the feature `shadow`.
pub static SEEN: AtomicUsize = AtomicUsize::new(0);

/// Whether the allocator has it noted that an object which starts at `at` is held. It may not say that a held one
/// is free. Large blocks and sizes that are no whole steps of the shadow are not noted, nor what lies in a window
/// that came in pieces.
#[track_caller]
fn known_as_held(at: *mut u8) -> bool {
    let class = pages().object_at(at.addr()).map(Class::from_word);
    if KEPT == 0 || !class.is_some_and(Class::is_shadowed) {
        return false;
    }
    let said = pages().said_of(at.addr());
    assert_ne!(said, Said::Free, "{at:p} is held");
    said == Said::Held
}

/// The tag of a block that was never filled.
const UNSEEN: u64 = 0;

impl Block {
    #[track_caller]
    fn check(&self) {
        if self.tag != UNSEEN {
            // SAFETY: it is held and was filled when it was entered.
            unsafe { shadow::check(self.at, self.usable, self.tag, self.usable) };
        }
    }
}

/// Steps for up to four threads.
#[derive(Debug, Default)]
pub struct Case {
    steps: [Vec<Step>; MOST_THREADS],
    threads: usize,
}

/// The bit of a case's first byte that says whether its modes change. Without it the bytes say the same as before there
/// were modes here.
const WATCHED: u8 = 0x10;

impl Step {
    fn decode(bytes: &mut Unstructured, watched: bool) -> arbitrary::Result<Self> {
        match if watched { u8::arbitrary(bytes)? } else { u8::MAX } {
            0..16 => Switch::arbitrary(bytes).map(Self::Switch),
            16..20 => Look::arbitrary(bytes).map(Self::Look),
            _ => Op::arbitrary(bytes).map(Self::Do),
        }
    }
}

impl Case {
    /// What the bytes say; half of all cases have one thread.
    pub fn decode(data: &[u8]) -> Self {
        let mut case = Self::default();
        let mut bytes = Unstructured::new(data);
        let Ok(head) = u8::arbitrary(&mut bytes) else { return case };
        case.threads = [1, 1, 2, MOST_THREADS][head as usize & 3];
        while !bytes.is_empty()
            && let Ok(who) = if case.threads == 1 { Ok(0) } else { u8::arbitrary(&mut bytes) }
            && let Ok(step) = Step::decode(&mut bytes, head & WATCHED != 0)
        {
            case.steps[who as usize % case.threads].push(step);
        }
        case
    }

    /// Does it, and gives everything back. A refusal is wrong unless requests `may_fail`.
    pub fn run<D: Door>(&self, door: &D, may_fail: bool) {
        let (shadow, passed) = (Shadow::default(), Mutex::default());
        let actor = |alone| Actor {
            door,
            may_fail,
            shadow: &shadow,
            passed: &passed,
            held: Vec::new(),
            bytes: 0,
            made: 0,
            watcher: Watcher::default(),
            alone,
        };
        let work = |steps: &[Step], alone| {
            let mut actor = actor(alone);
            steps.iter().for_each(|&step| actor.step(step));
            actor.held.iter().for_each(Block::check);
            actor.free_all();
        };
        if self.threads <= 1 {
            work(&self.steps[0], true);
        } else {
            // A scope returns before its threads have quite ended; a join does not.
            std::thread::scope(|scope| {
                let steps = self.steps[..self.threads].iter();
                let threads: Vec<_> = steps.map(|s| scope.spawn(|| work(s, false))).collect();
                threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
            });
        }
        let mut last = actor(true);
        last.held.append(&mut passed.lock().unwrap_or_else(PoisonError::into_inner));
        last.bytes = last.held.iter().map(|block| block.usable).sum();
        last.free_all();
        // What threads have freed while another one switched off is kept back still.
        watching::all_off(door);
    }
}

/// The snapshot of the process, whose parts add up while nobody works.
pub fn books() -> spandrel::Stats {
    let stats = spandrel::stats();
    assert_eq!(stats.accounted(), stats.mapped, "{stats}");
    stats
}

/// Decodes a case and does it.
pub fn run<D: Door>(door: &D, data: &[u8]) {
    Case::decode(data).run(door, false);
    let stats = books();
    assert_eq!(stats.live, 0, "{stats}");
}
