//! A thread that returns memory while nobody allocates.
//!
//! Decay runs on the slow paths of threads that allocate; a process that goes idle has none. One small
//! thread, asked for with [`start`] or the option `background`, goes on with it: four looks a second
//! while something is left to return, asleep without a timer when nothing is, woken by the first
//! granules that come home. It also calls the function given to [`on_pressure`].
//!
//! ```
//! spandrel::background::start().expect("the system has a thread left");
//! ```
//!
//! The thread blocks all signals, allocates nothing itself, and holds nothing another thread could wait
//! for. A child of `fork` has no such thread; one is started there at its first slow allocation.
//!
//! This is the one place that waits, and it waits for the clock and the bell on a thread of its own. When
//! the option asks for the thread, a slow path starts it once granules have come home, with the C
//! library's `pthread_create`; a program that does not want that calls [`start`].

use crate::front::building::{BUILDING, pages, spans};
use crate::front::config;
use crate::os::Os;
use crate::page::Limits;
use crate::span::Objects;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize};
use core::time::Duration;
use std::io;

/// A little more than the floors' own ticks, so that each look is one.
const LOOK_EVERY: Duration = Duration::from_millis(260);
/// Room for the functions that are called on pressure.
const STACK: usize = 256 << 10;

/// `OFF` -> `STARTING` -> `RUNNING` -> `STOPPING` -> `OFF`; each step by who won the one before.
static STATE: AtomicU32 = AtomicU32::new(OFF);
const OFF: u32 = 0;
const STARTING: u32 = 1;
const RUNNING: u32 = 2;
const STOPPING: u32 = 3;

/// The thread, while it is running. Written by who starts it.
static THREAD: AtomicUsize = AtomicUsize::new(0);
/// Whether the next slow path is to start it: one of `NOTHING`, `ANY`, `ALLOCATION`.
static OWED: AtomicU32 = AtomicU32::new(NOTHING);
const NOTHING: u32 = 0;
/// Any slow path.
const ANY: u32 = 1;
/// The slow path of an allocation. In a child of fork the C library may free while it holds a lock of its
/// own, under the C door; it never allocates then.
const ALLOCATION: u32 = 2;
/// Whether children of fork are taken care of.
static ATFORK: AtomicBool = AtomicBool::new(false);
/// A `fn(&Limits)`, or null.
static CALLBACK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Starts the thread; fine if it runs already.
///
/// # Errors
/// When the system has no thread left, or another call is stopping it at this moment.
pub fn start() -> io::Result<()> {
    launch().map_err(io::Error::from_raw_os_error)
}

/// Stops the thread and waits until it has ended. `false`: none was running, or this is that thread.
pub fn stop() -> bool {
    OWED.store(NOTHING, Relaxed);
    let thread = THREAD.load(Acquire);
    // SAFETY: pthread_self has no preconditions.
    if STATE.load(Acquire) != RUNNING || thread == unsafe { libc::pthread_self() } as usize {
        return false;
    }
    if STATE.compare_exchange(RUNNING, STOPPING, AcqRel, Relaxed).is_err() {
        return false;
    }
    ring();
    // SAFETY: the thread was started joinable, and winning the exchange makes this the only join.
    unsafe { libc::pthread_join(thread as libc::pthread_t, ptr::null_mut()) };
    STATE.store(OFF, Release);
    true
}

/// Whether the thread runs.
pub fn is_running() -> bool {
    STATE.load(Relaxed) == RUNNING
}

/// Has `callback` called on the background thread, which is started, whenever the heap crosses its soft
/// limit although all that was free has been returned: a moment to drop what can be had again. Never
/// called inside an allocation. A second function takes the place of the first; a panic in it is caught.
///
/// ```
/// spandrel::background::on_pressure(|limits| eprintln!("{} bytes in use", limits.used)).unwrap();
/// ```
///
/// # Errors
/// As [`start`].
pub fn on_pressure(callback: fn(&Limits)) -> io::Result<()> {
    CALLBACK.store(callback as *mut c_void, Release);
    start()
}

/// The next slow path starts the thread, or (`false`) does not.
pub(crate) fn owe(wanted: bool) {
    OWED.store(if wanted { ANY } else { NOTHING }, Relaxed);
}

/// Whether a slow path has something to do here, sooner or later.
pub(crate) fn owed() -> bool {
    OWED.load(Relaxed) != NOTHING
}

/// Starts the thread if that is owed.
pub(crate) fn pay(allocating: bool) {
    let owed = OWED.load(Relaxed);
    if (owed == ANY || owed == ALLOCATION && allocating) && OWED.swap(NOTHING, Relaxed) == owed {
        // Without a thread memory is returned as if none had been asked for.
        let _ = launch();
    }
}

fn ring() {
    let bell = pages().bell();
    bell.ring();
    pages().os().wake(bell.word());
}

fn launch() -> Result<(), i32> {
    match STATE.compare_exchange(OFF, STARTING, AcqRel, Acquire) {
        Ok(_) => {}
        Err(STOPPING) => return Err(libc::EAGAIN),
        Err(_) => return Ok(()),
    }
    if !ATFORK.swap(true, Relaxed) {
        // SAFETY: the handler only stores to atomics.
        unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    }
    match create() {
        Ok(thread) => {
            THREAD.store(thread, Release);
            STATE.store(RUNNING, Release);
            Ok(())
        }
        Err(error) => {
            STATE.store(OFF, Release);
            Err(error)
        }
    }
}

/// A thread with a small stack and all signals blocked; `errno` stays as it was.
fn create() -> Result<usize, i32> {
    // SAFETY: errno is this thread's own; the attributes and signal sets are initialised before they are
    // used and destroyed once; the thread's function takes and returns a pointer.
    unsafe {
        let saved = *libc::__errno_location();
        let mut attributes = core::mem::zeroed::<libc::pthread_attr_t>();
        let mut error = libc::pthread_attr_init(&mut attributes);
        if error == 0 {
            libc::pthread_attr_setstacksize(&mut attributes, STACK);
            let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            let mut thread = core::mem::zeroed::<libc::pthread_t>();
            error = libc::pthread_create(&mut thread, &attributes, body, ptr::null_mut());
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
            libc::pthread_attr_destroy(&mut attributes);
            if error == 0 {
                *libc::__errno_location() = saved;
                return Ok(thread as usize);
            }
        }
        *libc::__errno_location() = saved;
        Err(error)
    }
}

/// Only the thread that forked lives on in the child.
unsafe extern "C" fn in_the_child() {
    let before = STATE.swap(OFF, Relaxed);
    pages().bell().get_up();
    if before == RUNNING || before == STARTING {
        OWED.store(ALLOCATION, Relaxed);
        config::unsettle();
    }
}

extern "C" fn body(_: *mut c_void) -> *mut c_void {
    // SAFETY: names the calling thread; the name ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"spandrel".as_ptr()) };
    let (pages, transfer) = (pages(), BUILDING.below());
    let mut told = 0;
    loop {
        // Before anything is looked at: what happens later changes the word, and the sleep is none.
        let heard = pages.bell().heard();
        if STATE.load(Acquire) == STOPPING {
            return ptr::null_mut();
        }
        transfer.tick();
        pages.tick(pages.os().now_ms());
        pages.look_at_pressure();
        told = tell(told);
        if transfer.is_waiting() || pages.has_idle_memory() || spans().will_shed() {
            sleep(heard, Some(LOOK_EVERY));
        } else if pages.rest().is_some() {
            sleep(heard, None);
            pages.bell().get_up();
        }
    }
}

/// Calls the function for pressure if the soft limit was crossed since `told` crossings.
fn tell(told: u64) -> u64 {
    let limits = pages().limits();
    let callback = CALLBACK.load(Acquire);
    if limits.crossings != told && !callback.is_null() {
        // SAFETY: a non-null word is the `fn(&Limits)` that `on_pressure` stored.
        let callback: fn(&Limits) = unsafe { core::mem::transmute(callback) };
        // What went wrong has been said by the panic's own hook; the thread goes on.
        let _ = std::panic::catch_unwind(|| callback(&limits));
    }
    limits.crossings
}

/// Sleeps until the bell rings, unless it has rung since it was `heard`.
fn sleep(heard: u32, most: Option<Duration>) {
    let time = most.map(|most| libc::timespec {
        tv_sec: most.as_secs() as i64,
        tv_nsec: most.subsec_nanos() as libc::c_long,
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time live until the call is over.
    unsafe { libc::syscall(libc::SYS_futex, pages().bell().word().as_ptr(), wait, heard, time) };
}
