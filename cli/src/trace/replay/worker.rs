//! The process that replays: a second copy of this command, started on one allocator.
//!
//! Everything it needs besides the blocks of the plan lies in mappings of its own, touched before the
//! clock starts, so what grows is the allocator's doing.

use super::plan::{ALLOC, FREE, HEAD, Step};
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::time::Instant;

/// The argument that makes this command the worker.
pub const WORKER: &str = "__replay";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All threads at once, for time.
    Time,
    /// The same, and memory is looked at often.
    Memory,
    /// One thread, every call timed by itself, and the allocator asked what it holds.
    Calls,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Time => "time",
            Mode::Memory => "memory",
            Mode::Calls => "calls",
        }
    }

    fn of(name: &str) -> Option<Mode> {
        [Mode::Time, Mode::Memory, Mode::Calls].into_iter().find(|mode| mode.name() == name)
    }
}

/// How often memory is looked at, in all.
const LOOKS: usize = 400;
/// A byte is written every so often.
const STRIDE: usize = 4096;

/// A plan, mapped, and the state of its blocks.
struct Stage<'a> {
    lists: Vec<&'a [Step]>,
    /// Where each block is, and whose turn it is.
    blocks: &'a [(AtomicPtr<c_void>, AtomicU32)],
    mode: Mode,
    statm: File,
    peak: AtomicU64,
    failed: AtomicU64,
}

/// Bytes of memory that are this process's alone.
fn resident(statm: &File, page: u64) -> u64 {
    let mut text = [0u8; 128];
    // SAFETY: a buffer of that length.
    let read = unsafe { libc::pread(statm.as_raw_fd(), text.as_mut_ptr().cast(), text.len(), 0) };
    let mut numbers = text[..read.max(0) as usize].split(|&byte| byte == b' ').map(|digits| {
        digits.iter().fold(0u64, |number, &digit| number * 10 + u64::from(digit.wrapping_sub(b'0')))
    });
    let (_, resident, shared) = (numbers.next(), numbers.next(), numbers.next());
    resident.unwrap_or(0).saturating_sub(shared.unwrap_or(0)) * page
}

fn map(bytes: usize, file: Option<&File>) -> Option<*mut u8> {
    let (flags, descriptor) = match file {
        Some(file) => (libc::MAP_PRIVATE | libc::MAP_POPULATE, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1),
    };
    let protection =
        if file.is_some() { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes.max(1), protection, flags, descriptor, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

/// Writes where a program would: a byte a page, and the last.
///
/// # Safety
/// The block has so many bytes.
unsafe fn touch(at: *mut u8, size: usize) {
    for offset in (0..size).step_by(STRIDE) {
        // SAFETY: inside the block.
        unsafe { at.add(offset).write_volatile(1) };
    }
    if size > 0 {
        // SAFETY: as above.
        unsafe { at.add(size - 1).write_volatile(1) };
    }
}

impl Stage<'_> {
    /// Waits until the operations before on the block are done.
    fn wait(&self, step: &Step) {
        let turn = &self.blocks[step.block as usize].1;
        let mut tries = 0u32;
        while turn.load(Acquire) != step.turn {
            tries += 1;
            if tries > 50 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Does one operation.
    fn act(&self, step: &Step) {
        if step.wait {
            self.wait(step);
        }
        let (slot, turn) = &self.blocks[step.block as usize];
        let (old, size) = (slot.load(Relaxed), step.size as usize);
        // SAFETY: what the slot holds is a live block that nobody else works on: it is this
        // operation's turn.
        let new = unsafe {
            match step.kind {
                FREE => {
                    libc::free(old);
                    std::ptr::null_mut()
                }
                ALLOC if step.align != 0 => {
                    let mut at = std::ptr::null_mut();
                    libc::posix_memalign(&mut at, 1 << step.align, size);
                    at
                }
                ALLOC => libc::malloc(size),
                // C leaves it open what 0 means.
                _ => libc::realloc(old, size.max(1)),
            }
        };
        if step.kind != FREE {
            if new.is_null() {
                self.failed.fetch_add(1, Relaxed);
            } else {
                // SAFETY: a new block of that many bytes.
                unsafe { touch(new.cast(), size) };
            }
        }
        slot.store(new, Relaxed);
        if step.tell {
            turn.store(step.turn + 1, Release);
        }
    }

    fn play(&self, list: &[Step]) {
        let page = page_size();
        let every = match self.mode {
            Mode::Memory => (list.len() / LOOKS).max(1),
            _ => usize::MAX,
        };
        for (index, step) in list.iter().enumerate() {
            self.act(step);
            if index % every == every - 1 {
                self.peak.fetch_max(resident(&self.statm, page), Relaxed);
            }
        }
    }
}

fn page_size() -> u64 {
    // SAFETY: a query of a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The worker: `__replay MODE PLAN`. None when this is not one.
pub fn worker() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != WORKER {
        return None;
    }
    let mode = Mode::of(arguments.next()?.to_str()?)?;
    let plan = File::open(arguments.next()?).ok()?;
    let length = plan.metadata().ok()?.len() as usize;
    let at = map(length, Some(&plan))?;
    // SAFETY: the plan, mapped; it was written by this command and nobody changes it.
    let bytes = unsafe { std::slice::from_raw_parts(at, length) };
    let number =
        |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?) as usize);
    let (threads, blocks) = (number(0)?, number(8)?);
    let mut lists = Vec::with_capacity(threads);
    let mut from = HEAD + 8 * threads;
    for thread in 0..threads {
        let count = number(HEAD + 8 * thread)?;
        let list = bytes.get(from..from + count * size_of::<Step>())?;
        // SAFETY: so many steps as `plan::write` wrote them, at a multiple of 8.
        lists.push(unsafe { std::slice::from_raw_parts(list.as_ptr().cast::<Step>(), count) });
        from += list.len();
    }
    let room = map(blocks * size_of::<(AtomicPtr<c_void>, AtomicU32)>(), None)?;
    let stage = Stage {
        lists,
        // SAFETY: zeroed memory, and zeros are values of both.
        blocks: unsafe { std::slice::from_raw_parts(room.cast(), blocks) },
        mode,
        statm: File::open("/proc/self/statm").ok()?,
        peak: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    if mode == Mode::Calls {
        return Some(super::calls::play(&stage.lists, stage.blocks));
    }
    let barrier = Barrier::new(threads + 1);
    let (mut start, mut before) = (Instant::now(), 0);
    std::thread::scope(|scope| {
        for list in &stage.lists {
            let (stage, barrier) = (&stage, &barrier);
            scope.spawn(move || {
                barrier.wait();
                stage.play(list);
            });
        }
        before = resident(&stage.statm, page_size());
        start = Instant::now();
        barrier.wait();
    });
    let wall = start.elapsed().as_nanos();
    let peak = stage.peak.load(Relaxed).max(resident(&stage.statm, page_size()));
    println!("{wall} {} {}", peak.saturating_sub(before), stage.failed.load(Relaxed));
    Some(ExitCode::SUCCESS)
}
