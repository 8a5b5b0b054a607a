//! All other threads held still for a moment, so that their stacks and registers can be read.
//!
//! Each is sent a signal. Its handler notes where the thread's stack is, which by then holds all its
//! registers, and waits until it is let go. The allocator has no lock that a thread held still could have,
//! so whoever holds them may allocate; it must not take any other lock.

use super::apart::Apart;
use super::leaks::NoLeaks;
use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::{Duration, Instant};

/// Threads that can be held.
const MOST: usize = 4096;

/// How long a thread may take to stop; one that blocks the signal never does.
const PATIENCE: Duration = Duration::from_millis(500);

/// A thread is let go after this long in any case.
const LONGEST: i64 = 60;

/// Where the stacks of threads held still begin.
static STACKS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// Places in `STACKS` that were taken, and threads whose place is written.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Threads that go on.
static GONE: AtomicUsize = AtomicUsize::new(0);
/// 1 while they are to wait.
static HOLD: AtomicU32 = AtomicU32::new(0);

/// The other threads stand still as long as this lives.
#[derive(Debug)]
pub struct Held {
    signal: c_int,
    before: libc::sigaction,
    /// Threads that were asked.
    asked: Apart<i32>,
}

impl Held {
    /// Holds all other threads of this process. One at a time may.
    pub fn all() -> Result<Self, NoLeaks> {
        if HOLD.compare_exchange(0, 1, AcqRel, Acquire).is_err() {
            return Err(NoLeaks::Busy);
        }
        let Some((signal, before)) = take_signal() else {
            HOLD.store(0, Release);
            return Err(NoLeaks::NoSignal);
        };
        TAKEN.store(0, Release);
        HELD.store(0, Release);
        GONE.store(0, Release);
        let mut held = Self { signal, before, asked: Apart::new() };
        let start = Instant::now();
        // Threads that had been starting others show up on the next look.
        while held.ask() || (held.silent() > 0 && start.elapsed() < PATIENCE) {
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(held)
    }

    /// Asks those that were not asked yet; whether there were any.
    fn ask(&mut self) -> bool {
        // SAFETY: no arguments, never fails.
        let (process, own) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as i32) };
        let mut new = false;
        for thread in threads() {
            if thread == own || self.asked.contains(&thread) {
                continue;
            }
            // SAFETY: a signal for a thread of this process, or for none if it is gone.
            if unsafe { libc::syscall(libc::SYS_tgkill, process, thread, self.signal) } == 0 {
                new |= self.asked.push(thread);
            }
        }
        new
    }

    /// Threads that were asked and did not answer: they block the signal, or are gone.
    pub fn silent(&self) -> usize {
        let there = threads();
        let asked = self.asked.iter().filter(|thread| there.contains(thread)).count();
        asked.saturating_sub(HELD.load(Acquire))
    }

    /// Where this list lies.
    pub fn range(&self) -> (usize, usize) {
        self.asked.range()
    }

    /// Where the stacks of those that answered begin, their registers included.
    pub fn stacks(&self) -> Vec<usize> {
        STACKS.iter().take(TAKEN.load(Acquire)).map(|stack| stack.load(Acquire)).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLD.store(0, Release);
        // SAFETY: wakes whoever sleeps on the word.
        unsafe { libc::syscall(libc::SYS_futex, HOLD.as_ptr(), libc::FUTEX_WAKE, c_int::MAX) };
        // None may come into the handler when the signal means something else again.
        let start = Instant::now();
        while GONE.load(Acquire) < HELD.load(Acquire) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(100));
        }
        // A thread that blocks the signal still has it to come: then the handler stays, and lets it go on.
        if self.silent() == 0 {
            // SAFETY: the action that was there before.
            unsafe { libc::sigaction(self.signal, &self.before, std::ptr::null_mut()) };
        }
    }
}

fn threads() -> Vec<i32> {
    let mut threads: Vec<i32> = Vec::with_capacity(256);
    if let Ok(tasks) = std::fs::read_dir("/proc/self/task") {
        let numbers =
            tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
        threads.extend(numbers);
    }
    threads
}

/// A signal that the program does not use, from the highest down, with our handler.
fn take_signal() -> Option<(c_int, libc::sigaction)> {
    for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev() {
        // SAFETY: plain structs, a handler that keeps to what a handler may do.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &mut before) != 0
                || before.sa_sigaction != libc::SIG_DFL
                    && before.sa_sigaction != stand_still_address()
            {
                continue;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = stand_still_address();
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigfillset(&mut action.sa_mask);
            if libc::sigaction(signal, &action, std::ptr::null_mut()) == 0 {
                before.sa_sigaction = libc::SIG_DFL;
                return Some((signal, before));
            }
        }
    }
    None
}

fn stand_still_address() -> usize {
    stand_still as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize
}

extern "C" fn stand_still(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if HOLD.load(Acquire) == 0 {
        return;
    }
    // The kernel laid the registers down here, above this function's frame.
    let mark = [info.addr(), context.addr()];
    let stack = (&raw const mark).addr().min(info.addr()).min(context.addr());
    // SAFETY: errno is this thread's own.
    let saved = unsafe { *libc::__errno_location() };
    // Nobody reads a place before all that were asked have answered or run out of time.
    let place = TAKEN.fetch_add(1, AcqRel) % MOST;
    STACKS[place].store(stack, Release);
    HELD.fetch_add(1, AcqRel);
    let wait = libc::timespec { tv_sec: LONGEST, tv_nsec: 0 };
    while HOLD.load(Acquire) == 1 {
        // SAFETY: sleeps while the word is 1, at most so long.
        let slept = unsafe {
            libc::syscall(libc::SYS_futex, HOLD.as_ptr(), libc::FUTEX_WAIT, 1, &raw const wait)
        };
        // SAFETY: as above.
        if slept != 0 && unsafe { *libc::__errno_location() } == libc::ETIMEDOUT {
            break;
        }
    }
    GONE.fetch_add(1, AcqRel);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = saved };
}
