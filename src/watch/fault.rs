//! A touch of a closed page: a handler for SIGSEGV that knows which block it belongs to.
//!
//! It is set when checked mode or guard pages are switched on, and hands every fault that is none of
//! theirs to whoever had the signal before: to a handler by calling it, to the system by letting it happen
//! again. A program that sets a handler of its own later has the signal to itself.

use super::ledger::{self, Entry, Life};
use super::{guard, report};
use crate::base::death::{self, Cause};
use crate::base::line::Line;
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// How often the handler was set: 0, or up to `TIMES`; `BUSY` on top while somebody does.
static SET: AtomicU32 = AtomicU32::new(0);
const BUSY: u32 = 1 << 16;

/// Once at the start, where the runtime of the language may still be setting itself up and set its own
/// handler after ours, and once more when the first page is closed.
const TIMES: usize = 2;

/// What was done on the signal before, each time. An entry is written once, before `SET` says so.
struct Earlier(UnsafeCell<[MaybeUninit<libc::sigaction>; TIMES]>);

// SAFETY: `SET` says who may write which entry, and from when on it may be read.
unsafe impl Sync for Earlier {}

static EARLIER: Earlier = Earlier(UnsafeCell::new([const { MaybeUninit::zeroed() }; TIMES]));

/// Sets the handler, for the first time.
pub fn attend() {
    set(0);
}

/// Before a page is closed: sets the handler again, once, if it is not ours any more.
pub fn attend_again() {
    set(1);
}

fn set(times: u32) {
    if SET.load(Acquire) != times
        || SET.compare_exchange(times, times | BUSY, AcqRel, Acquire).is_err()
    {
        return;
    }
    // SAFETY: all zeros is a value of this plain struct.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    // On the stack for signals if there is one: an overflow of the ordinary one is another's business, and
    // that one needs room.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: both structs are complete and live long enough; only this thread writes this entry.
    let mut done = unsafe {
        let earlier = (*EARLIER.0.get())[times as usize].as_mut_ptr();
        libc::sigaction(libc::SIGSEGV, &action, earlier) == 0
    };
    if times > 0 && done {
        // SAFETY: written just now.
        let earlier = unsafe { (*EARLIER.0.get())[times as usize].assume_init_ref() };
        // Ours: then what was before is before still.
        done = earlier.sa_sigaction != action.sa_sigaction;
    }
    if times > 0 && !done {
        // SAFETY: only this thread writes this entry, and nobody has read it.
        unsafe { (*EARLIER.0.get())[1] = (*EARLIER.0.get())[0] };
    }
    SET.store(if done || times > 0 { times + 1 } else { 0 }, Release);
}

unsafe extern "C" fn handle(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut core::ffi::c_void,
) {
    // SAFETY: the system hands over a complete record.
    let addr = unsafe { (*info).si_addr() }.addr();
    // SAFETY: as above; a positive code is the system's own, with an address.
    if unsafe { (*info).si_code } > 0 && cause_of(addr).is_some() {
        // SAFETY: the context is the one that this handler was called with.
        return unsafe { go_on_in_report(context, addr) };
    }
    let Some(last) = (SET.load(Acquire) & (BUSY - 1)).checked_sub(1) else { return };
    // SAFETY: written before `SET` said so, and never again.
    let earlier = unsafe { (*EARLIER.0.get())[last as usize].assume_init_ref() };
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

/// The thread goes on in [`explain`], where the fault was, as if it had been called there: its own stack has
/// room, that for signals may be a few pages, and the stack that is told is the right one.
///
/// # Safety
/// The context is a signal handler's, which returns now.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn go_on_in_report(context: *mut core::ffi::c_void, addr: usize) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the caller's promise. What lies below the stack pointer may be the function's that faulted,
    // which does not go on.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        let stack = registers[libc::REG_RSP as usize] - 8;
        let top: *mut i64 = ptr::with_exposed_provenance_mut(stack as usize);
        top.write(registers[libc::REG_RIP as usize]);
        registers[libc::REG_RSP as usize] = stack;
        registers[libc::REG_RDI as usize] = addr as i64;
        registers[libc::REG_RIP as usize] = report_entry as *const () as i64;
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
unsafe fn go_on_in_report(_: *mut core::ffi::c_void, addr: usize) {
    explain(addr)
}

// Aligns the stack, which may be anywhere, and leaves a frame that can be walked.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[unsafe(naked)]
unsafe extern "C" fn report_entry() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "and rsp, -16",
        "cld",
        "call {explain}",
        "ud2",
        ".cfi_endproc",
        explain = sym explain,
    )
}

/// What a fault at this address is, if it is one of ours: the cause, where the block starts, and what is known of
/// it.
fn cause_of(addr: usize) -> Option<(Cause, usize, Entry)> {
    if guard::holds(addr) {
        return guard::fault_at(addr);
    }
    let block = ledger::find(addr)?;
    let entry = block.entry()?;
    match entry.life {
        Life::Live if addr - block.start >= entry.size => {
            Some((Cause::AccessBehind, block.start, entry))
        }
        Life::Freed => Some((Cause::AccessAfterFree, block.start, entry)),
        _ => None,
    }
}

/// Dies by name.
extern "C" fn explain(addr: usize) {
    let Some((cause, start, entry)) = cause_of(addr) else {
        // Somebody has freed it since.
        // SAFETY: abort(3) takes no arguments and does not allocate.
        unsafe { libc::abort() }
    };
    let mut about = Line::new();
    about.push(b": ");
    let end = start + entry.size;
    if addr < start {
        report::distance(&mut about, start - addr, b"before ");
    } else if addr < end || cause == Cause::AccessAfterFree {
        report::distance(&mut about, addr - start, b"into ");
    } else {
        report::distance(&mut about, addr - end, b"past ");
    }
    report::block(&mut about, start, &entry);
    death::told(cause, addr, about.bytes(), || report::stacks(&entry, b"  here"));
}
