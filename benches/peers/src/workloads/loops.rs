//! The loops. Compiled twice: with `take` and `give` of the global allocator, and with a pair that
//! does nothing.
//!
//! Each pointer and each size is shown to an empty `asm!` in both twins, so that no pair is elided,
//! no loop is vectorised, and the difference of the twins is the allocator alone. `black_box` would
//! do the same by way of memory: a store per value, which weighs something beside twelve
//! instructions.
//!
//! The loops do not check for null, which would be charged to the allocator, as the empty twin has
//! nothing to check. Each takes, checks and gives back as many objects as it will ever hold, before
//! the clock starts.

use std::{
    alloc::{Layout, handle_alloc_error},
    arch::asm,
    iter::repeat_n,
};

use super::super::inputs::{FIFO, LIFO, ORDER, SAME, SHUFFLED_BYTES, SIZES};
use super::{give, take};
use crate::meter::{Meter, Spent};

const OBJECT: Layout = Layout::new::<[u64; 8]>();
const SHUFFLED: Layout = Layout::new::<[u64; SHUFFLED_BYTES / 8]>();

/// Takes an object.
///
/// # Safety
/// As `alloc`: the layout is not of size 0.
#[inline(always)]
unsafe fn new(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's.
    seen(unsafe { take(layout) })
}

/// From here on the compiler must assume that the object is known elsewhere, and written to.
#[inline(always)]
fn seen(object: *mut u8) -> *mut u8 {
    // SAFETY: no instruction. That memory counts as read and written is the point.
    unsafe { asm!("/* {0} */", in(reg) object, options(nostack, preserves_flags)) };
    object
}

/// From here on the compiler must have the size in a register.
#[inline(always)]
fn drawn_size(size: u16) -> usize {
    let size = usize::from(size);
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", in(reg) size, options(nostack, nomem, preserves_flags)) };
    size
}

/// Takes all these objects, checks that none is null, and gives them back: there is room for the
/// loop.
fn reserve(layouts: impl Iterator<Item = Layout>) {
    let objects: Vec<_> = layouts
        .map(|layout| {
            // SAFETY: no layout of this file is of size 0.
            let object = unsafe { new(layout) };
            if object.is_null() {
                handle_alloc_error(layout)
            }
            (object, layout)
        })
        .collect();
    for (object, layout) in objects {
        // SAFETY: taken above with this layout, and gone after this.
        unsafe { give(object, layout) };
    }
}

#[inline(always)]
fn of_size(size: usize) -> Layout {
    // SAFETY: 8 is a power of two, and no size of this file overflows isize when rounded up to it.
    unsafe { Layout::from_size_align_unchecked(size, 8) }
}

pub(in super::super) fn same(rounds: u64) -> Spent {
    #[inline(never)]
    fn pairs(n: u64) {
        for _ in 0..n {
            // SAFETY: 64 bytes are not 0; `reserve` found room, so the object is not null; it is
            // not used again.
            unsafe { give(new(OBJECT), OBJECT) };
        }
    }
    reserve(std::iter::once(OBJECT));
    pairs(SAME);
    let meter = Meter::thread();
    pairs(rounds * SAME);
    meter.stop(rounds * SAME)
}

pub(in super::super) fn lifo100(rounds: u64) -> Spent {
    #[inline(never)]
    fn run(rounds: u64) {
        let mut stack = [std::ptr::null_mut(); LIFO];
        for _ in 0..rounds {
            for slot in &mut stack {
                // SAFETY: 64 bytes are not 0.
                *slot = unsafe { new(OBJECT) };
            }
            for slot in stack.iter().rev() {
                // SAFETY: every slot was filled above, with this layout, and is filled again before
                // it is read again; `reserve` found room, so none is null.
                unsafe { give(seen(*slot), OBJECT) };
            }
        }
    }
    reserve(repeat_n(OBJECT, LIFO));
    run(1);
    let meter = Meter::thread();
    run(rounds);
    meter.stop(rounds * LIFO as u64)
}

pub(in super::super) fn fifo1000(rounds: u64) -> Spent {
    #[inline(never)]
    fn run(ring: &mut [(*mut u8, u16); FIFO], mut drawn: usize, rounds: u64) -> usize {
        for _ in 0..rounds {
            for (object, size) in ring.iter_mut() {
                // SAFETY: each slot holds an object and the size it was taken with, and gets
                // another below. No size is 0, and `reserve` found room for as many
                // objects of the largest size, so none is null.
                unsafe {
                    give(seen(*object), of_size(drawn_size(*size)));
                    *size = SIZES[drawn % SIZES.len()];
                    *object = new(of_size(drawn_size(*size)));
                }
                drawn += 1;
            }
        }
        drawn
    }
    reserve(repeat_n(of_size(1024), FIFO));
    let mut ring: [_; FIFO] = std::array::from_fn(|i| {
        // SAFETY: no size is 0.
        (unsafe { new(of_size(SIZES[i].into())) }, SIZES[i])
    });
    let drawn = run(&mut ring, FIFO, 1);
    let meter = Meter::thread();
    run(&mut ring, drawn, rounds);
    let spent = meter.stop(rounds * FIFO as u64);
    for (object, size) in ring {
        // SAFETY: each slot holds an object and the size it was taken with, and the ring is gone
        // after this.
        unsafe { give(object, of_size(size.into())) };
    }
    spent
}

pub(in super::super) fn random1k(rounds: u64) -> Spent {
    #[inline(never)]
    fn run(rounds: u64) {
        for _ in 0..rounds {
            for &size in &SIZES {
                let layout = of_size(drawn_size(size));
                // SAFETY: no size is 0; `reserve` found room, so the object is not null; it is not
                // used again.
                unsafe { give(new(layout), layout) };
            }
        }
    }
    reserve(SIZES.iter().map(|&size| of_size(size.into())));
    run(1);
    let meter = Meter::thread();
    run(rounds);
    meter.stop(rounds * SIZES.len() as u64)
}

pub(in super::super) fn shuffled(rounds: u64) -> Spent {
    shuffle(rounds, fill_untouched)
}

pub(in super::super) fn shuffled_touched(rounds: u64) -> Spent {
    shuffle(rounds, fill_touched)
}

type Slots = [*mut u8; ORDER.len()];

#[inline(never)]
fn fill_untouched(slots: &mut Slots) {
    for slot in slots {
        // SAFETY: 256 bytes are not 0.
        *slot = unsafe { new(SHUFFLED) };
    }
}

#[inline(never)]
fn fill_touched(slots: &mut Slots) {
    for slot in slots {
        // SAFETY: 256 bytes are not 0. `reserve` found room, so the object is there, 8-aligned, and
        // nobody else knows it. Volatile, or the write to an object that is freed unread
        // would be dropped.
        unsafe {
            *slot = new(SHUFFLED);
            slot.cast::<u64>().write_volatile(1);
        }
    }
}

fn shuffle(rounds: u64, fill: fn(&mut Slots)) -> Spent {
    #[inline(never)]
    fn free(slots: &Slots) {
        for &i in &ORDER {
            // SAFETY: `ORDER` is a permutation of the slots, each of which was filled since the
            // last call, and not with null, as `reserve` found room.
            unsafe { give(seen(slots[usize::from(i)]), SHUFFLED) };
        }
    }
    reserve(repeat_n(SHUFFLED, ORDER.len()));
    let mut slots = Box::new([std::ptr::null_mut(); ORDER.len()]);
    fill(&mut slots);
    free(&slots);
    let meter = Meter::thread();
    for _ in 0..rounds {
        fill(&mut slots);
        free(&slots);
    }
    meter.stop(rounds * ORDER.len() as u64)
}
