//! A touch of a closed page: a handler for SIGSEGV that knows which block it belongs to.
//!
//! It is set when checked mode or guard pages are switched on, and hands every fault that is none of
//! theirs to whoever had the signal before: to a handler by calling it, to the system by letting it happen
//! again. A program that sets a handler of its own later has the signal to itself.

use super::ledger::{self, Life};
use super::{guard, report};
use crate::base::death::{self, Cause};
use crate::base::line::Line;
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// Whether the handler is set: not, by somebody just now, and `EARLIER` is there to be read.
static SET: AtomicU32 = AtomicU32::new(0);

/// What was done on the signal before. Written once, before `SET` is 2.
struct Earlier(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: `SET` says who may write it and when it may be read.
unsafe impl Sync for Earlier {}

static EARLIER: Earlier = Earlier(UnsafeCell::new(MaybeUninit::zeroed()));

/// Sets the handler, once.
pub fn attend() {
    if SET.compare_exchange(0, 1, AcqRel, Acquire).is_err() {
        return;
    }
    // SAFETY: all zeros is a value of this plain struct.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    // On the stack for signals if there is one: an overflow of the ordinary one is another's business, and
    // that one needs room.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: both structs are complete and live long enough; only this thread writes `EARLIER`.
    let done = unsafe { libc::sigaction(libc::SIGSEGV, &action, (*EARLIER.0.get()).as_mut_ptr()) };
    SET.store(if done == 0 { 2 } else { 0 }, Release);
}

unsafe extern "C" fn handle(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut core::ffi::c_void,
) {
    // SAFETY: the system hands over a complete record.
    let addr = unsafe { (*info).si_addr() }.addr();
    // SAFETY: as above; a positive code is the system's own, with an address.
    if unsafe { (*info).si_code } > 0 {
        explain(addr);
    }
    if SET.load(Acquire) != 2 {
        return;
    }
    // SAFETY: written before `SET` was 2, and never again.
    let earlier = unsafe { (*EARLIER.0.get()).assume_init_ref() };
    match earlier.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // It happens again, and then as it would have.
            // SAFETY: a complete struct.
            unsafe { libc::sigaction(signal, earlier, ptr::null_mut()) };
        }
        handler if earlier.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the handler was set for three arguments.
            let handler = unsafe {
                core::mem::transmute::<
                    usize,
                    unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut core::ffi::c_void),
                >(handler)
            };
            // SAFETY: what the system handed over.
            unsafe { handler(signal, info, context) }
        }
        handler => {
            // SAFETY: the handler was set for one argument.
            let handler =
                unsafe { core::mem::transmute::<usize, unsafe extern "C" fn(c_int)>(handler) };
            // SAFETY: as above.
            unsafe { handler(signal) }
        }
    }
}

/// Dies by name if the address belongs to a block whose pages are closed, or to a closed page beside one.
fn explain(addr: usize) {
    if guard::holds(addr) {
        if let Some((cause, start, entry)) = guard::fault_at(addr) {
            let mut about = Line::new();
            about.push(b": ");
            let end = start + entry.size;
            if addr < start {
                about.push_number(start - addr);
                about.push(b" bytes before ");
            } else if addr < end || cause == Cause::AccessAfterFree {
                about.push_number(addr - start);
                about.push(b" bytes into ");
            } else {
                about.push_number(addr - end);
                about.push(b" bytes past ");
            }
            report::block(&mut about, start, &entry);
            death::told(cause, addr, about.bytes(), || report::stacks(&entry, b"  here"));
        }
        return;
    }
    let Some(block) = ledger::find(addr) else { return };
    let Some(entry) = block.entry() else { return };
    let (mut about, cause) = (Line::new(), entry.life);
    about.push(b": ");
    match cause {
        Life::Live if addr - block.start >= entry.size => {
            about.push_number(addr - block.start - entry.size);
            about.push(b" bytes past ");
        }
        Life::Freed => {
            about.push_number(addr - block.start);
            about.push(b" bytes into ");
        }
        _ => return,
    }
    report::block(&mut about, block.start, &entry);
    let cause = if cause == Life::Live { Cause::AccessBehind } else { Cause::AccessAfterFree };
    death::told(cause, addr, about.bytes(), || report::stacks(&entry, b"  here"));
}
