//! When a map of the heap ([`observe::map`](crate::observe::map)) is written: by call, and where the
//! option `map` names a file, at exit, at SIGUSR2 (unless the program has a use for it), and with
//! `map-every` by the first slow call after each interval: a heap on which nobody calls does not change.
//!
//! A process that finds the file taken by another writes to one with its number behind the name.

use super::building::{BUILDING, pages};
use crate::base::line::Line;
use crate::base::options::Sites;
use crate::observe::map::{self, Refused};
use crate::os::Os;
use crate::os::file::{File, PATH_MAX, Path, pid};
use crate::watch::{mode, sample};
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use core::time::Duration;
use std::io;

/// The file as the option names it; all zero without.
static NAMED: [AtomicU8; PATH_MAX] = [const { AtomicU8::new(0) }; PATH_MAX];
/// The process that the file belongs to, and whether it is the one with the number behind its name.
static CLAIMED_BY: AtomicU32 = AtomicU32::new(0);
static NUMBERED: AtomicBool = AtomicBool::new(false);
/// Milliseconds between two snapshots, 0 for none in between; and when the next is due.
static EVERY: AtomicU64 = AtomicU64::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Whether the snapshot of the end has been written.
static ENDED: AtomicU32 = AtomicU32::new(0);

/// Bytes between two samples, on average.
const SAMPLE_EVERY: usize = 16 << 10;

/// Run by the loader after `main` has returned or `exit` was called.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

/// Appends a snapshot of where everything lies to a file; the command `spandrel map` draws it. Stops no
/// thread and allocates nothing.
///
/// # Errors
/// The file cannot be opened or written to; `ResourceBusy`: another thread is writing a snapshot.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("spandrel-doc-{}.map", std::process::id()));
/// spandrel::write_map(&path)?;
/// # assert!(std::fs::read_to_string(&path)?.contains("\"snapshot\""));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_map(path: impl AsRef<std::path::Path>) -> io::Result<()> {
    let path = path.as_ref().as_os_str().as_encoded_bytes();
    append(path).map_err(io::Error::from_raw_os_error)
}

/// As [`write_map`], with the system's numbers for errors.
pub(super) fn append(path: &[u8]) -> Result<(), c_int> {
    let path = Path::of(path).ok_or(libc::ENAMETOOLONG)?;
    let file = File::append(&path)?;
    map::write(&BUILDING, &file).map_err(|refused| match refused {
        Refused::Busy => libc::EBUSY,
        Refused::NotWritten => libc::EIO,
    })
}

/// The environment names a file.
pub(super) fn begin(path: &[u8], every: Option<Duration>, sites: Option<Sites>) {
    for (to, &byte) in NAMED[..PATH_MAX - 1].iter().zip(path) {
        to.store(byte, Relaxed);
    }
    // So that this process's file is told from a child's.
    if named().is_none() {
        let mut line = Line::new();
        line.push(b"spandrel: SPANDREL: no map is written: cannot make ");
        line.push_quoted(path);
        line.say();
    }
    if let Some(every) = every {
        let every = every.as_millis() as u64;
        NEXT.store(pages().os().now_ms() + every, Relaxed);
        EVERY.store(every, Relaxed);
        super::config::unsettle();
    }
    match sites {
        None | Some(Sites::None) => {}
        Some(Sites::All) => mode::on(mode::LEAKS),
        Some(Sites::Sampled) => {
            if !mode::has(mode::PROFILE) && sample::begin(SAMPLE_EVERY) {
                mode::on(mode::PROFILE);
            }
        }
    }
    // SAFETY: all zeros is a value of this plain struct.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: a struct to fill, and one that is filled; a handler that may run at any instruction.
    unsafe {
        let free = libc::sigaction(libc::SIGUSR2, core::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_DFL;
        if free {
            let handler: extern "C" fn(c_int) = on_signal;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR2, &action, core::ptr::null_mut());
        }
    }
}

/// The file that snapshots of this process go to, if the option names one.
fn named() -> Option<File> {
    let name: [u8; PATH_MAX] = core::array::from_fn(|i| NAMED[i].load(Relaxed));
    let length = name.iter().position(|&byte| byte == 0).filter(|&length| length > 0)?;
    let path = Path::of(&name[..length])?;
    let process = pid();
    if CLAIMED_BY.load(Relaxed) == process {
        let numbered = if NUMBERED.load(Relaxed) { path.numbered(process) } else { Some(path) };
        return File::append(&numbered?).ok();
    }
    let (file, numbered) = File::claim(&path, map::owner).ok()?;
    NUMBERED.store(numbered, Relaxed);
    CLAIMED_BY.store(process, Relaxed);
    if file.length() == 0 {
        // Whose it is; without it a child may take it for its own, and append.
        let _ = map::begin(&file, pages().os().page_size());
    }
    Some(file)
}

fn write_named() {
    if let Some(file) = named() {
        // What cannot be written is missing, and the next one says so.
        let _ = map::write(&BUILDING, &file);
    }
}

/// Whether slow calls must look at the time.
#[inline]
pub(super) fn is_periodic() -> bool {
    EVERY.load(Relaxed) != 0
}

/// A snapshot, if one is due; one of all that find it so writes it. The program gets at least as much time
/// between two as one takes.
pub(super) fn tick() {
    let now = || pages().os().now_ms();
    let (begun, next, every) = (now(), NEXT.load(Relaxed), EVERY.load(Relaxed));
    // A child of `fork` that finds a snapshot under way, and not whose, waits no longer than for any other.
    if begun >= next && NEXT.compare_exchange(next, begun + every, Relaxed, Relaxed).is_ok() {
        write_named();
        NEXT.fetch_max(due(begun, now(), every), Relaxed);
    }
}

/// When the next snapshot is due after one that began and ended then.
fn due(begun: u64, ended: u64, every: u64) -> u64 {
    ended + every.max(ended - begun)
}

extern "C" fn on_signal(_: c_int) {
    write_named();
}

extern "C" fn at_exit() {
    if NAMED[0].load(Relaxed) != 0 && ENDED.swap(pid(), Relaxed) != pid() {
        write_named();
    }
}

#[cfg(test)]
mod tests {
    use super::due;

    #[test]
    fn a_program_gets_as_much_time_as_a_snapshot() {
        assert_eq!(due(1000, 1003, 100), 1103);
        assert_eq!(due(1000, 1700, 5), 2400, "not at once, although one was due at 1005");
        assert_eq!(due(1000, 1000, 1), 1001);
    }
}
