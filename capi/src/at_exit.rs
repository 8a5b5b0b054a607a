//! `SPANDREL=stats=exit` and `stats=/PATH`: the snapshot when the process ends.
//!
//! Many programs close standard error before that, and a server may have opened a file in its place. So
//! when statistics are wanted, the stream that the process starts with is kept under a number of its
//! own, and written to only if it is still the same file.

use ::spandrel::base::options::Leaks;
use ::spandrel::front::config::{attend, leaks_at_exit, stats_at_exit, stats_path};
use std::ffi::{CStr, OsStr, c_int};
use std::fmt::Write;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64};

/// Run by the loader before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

/// Run by the loader after `main` has returned or `exit` was called, behind the program's own handlers.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

/// The copy of standard error; below zero when there is none.
static KEPT: AtomicI32 = AtomicI32::new(-1);
/// The device and the inode behind it.
static FILE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Copies start here, out of the way of programs that count on small numbers.
const FIRST: c_int = 200;

extern "C" fn at_start() {
    attend(false);
    crate::reports::at_start();
    let told = stats_at_exit() && stats_path().is_none();
    if !told && leaks_at_exit().0 == Leaks::Off {
        return;
    }
    // SAFETY: a query about a descriptor, which may be closed.
    let copy = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, FIRST) };
    if let Some([device, inode]) = identity(copy) {
        FILE[0].store(device, Relaxed);
        FILE[1].store(inode, Relaxed);
        KEPT.store(copy, Relaxed);
    }
}

extern "C" fn at_exit() {
    if !stats_at_exit() {
        return;
    }
    // Before the text takes memory of its own.
    let stats = ::spandrel::stats();
    let path = stats_path();
    let path = path.as_ref().and_then(|path| CStr::from_bytes_until_nul(path).ok());
    let kept = kept_stream();
    if path.is_none() && kept.is_none() {
        return;
    }
    let mut text = String::new();
    // Nothing unwinds out of here: without memory there is no text.
    if text.try_reserve(16 << 10).is_err() {
        return;
    }
    // SAFETY: no arguments, never fails.
    let id = unsafe { libc::getpid() };
    let _ = write!(text, "spandrel: {id} {}\n{stats}", name());
    if let Some(path) = path {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let file = OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            eprintln!("spandrel: the statistics {}: {error}", path.display());
        }
    } else if let Some(kept) = kept {
        // SAFETY: the text is as long as said. One call, so that processes that end at once do not mix.
        unsafe { libc::write(kept, text.as_ptr().cast(), text.len()) };
    }
}

/// The standard error that the process began with, if it is still the same file.
pub fn kept_stream() -> Option<c_int> {
    let kept = KEPT.load(Relaxed);
    let file = [FILE[0].load(Relaxed), FILE[1].load(Relaxed)];
    (identity(kept) == Some(file)).then_some(kept)
}

/// What tells one open file from another.
fn identity(descriptor: c_int) -> Option<[u64; 2]> {
    // SAFETY: all zeros is a value of this plain struct.
    let mut about: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a struct to fill; a descriptor that is not open is refused.
    (unsafe { libc::fstat(descriptor, &mut about) } == 0).then_some([about.st_dev, about.st_ino])
}

/// What the kernel calls this process, as `ps` shows it.
pub fn name() -> String {
    let mut name = std::fs::read("/proc/self/comm").unwrap_or_default();
    name.retain(|byte| byte.is_ascii_graphic());
    String::from_utf8(name).unwrap_or_default()
}
