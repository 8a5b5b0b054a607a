//! What was watched, told at the end of the process: `SPANDREL=leaks=on` and `profile-file=/PATH`.
//!
//! Behind everything else that runs at the end, the program's own handlers and destructors included:
//! what those free is not lost. That is the place of the first handler that was registered.

use crate::at_exit::{kept_stream, name};
use ::spandrel::base::options::Leaks;
use ::spandrel::front::config::{leaks_at_exit, profile_path};
use ::spandrel::observe::pprof::Figure;
use ::spandrel::profile::{self, Profile};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Called before the program's constructors.
pub fn at_start() {
    if leaks_at_exit().0 == Leaks::Off && profile_path().is_none() {
        return;
    }
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn on_exit(handler: extern "C" fn(c_int, *mut c_void), data: *mut c_void) -> c_int;
        }
        // SAFETY: a handler that is there as long as the process.
        unsafe { on_exit(ends, std::ptr::null_mut()) };
    }
    #[cfg(not(target_env = "gnu"))]
    {
        // The exit code is not known here: taken for 0.
        extern "C" fn ends_somehow() {
            ends(0, std::ptr::null_mut());
        }
        // SAFETY: as above.
        unsafe { libc::atexit(ends_somehow) };
    }
}

/// See `spandrel.h`.
#[unsafe(no_mangle)]
pub extern "C" fn spandrel_profile_start(interval: usize) -> c_int {
    let interval = if interval == 0 { profile::INTERVAL } else { interval };
    profile::start(interval).map_or(libc::ENOMEM, |()| 0)
}

/// See `spandrel.h`.
#[unsafe(no_mangle)]
pub extern "C" fn spandrel_profile_stop() {
    profile::stop();
}

/// See `spandrel.h`.
///
/// # Safety
/// `path` is a string that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spandrel_profile_write(path: *const c_char) -> c_int {
    if path.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let written = catch_unwind(|| written(&profile::snapshot(), path));
    match written {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.raw_os_error().unwrap_or(libc::EINVAL),
        Err(_) => libc::ENOMEM,
    }
}

extern "C" fn ends(code: c_int, _: *mut c_void) {
    // Nothing unwinds out of here.
    let lost = catch_unwind(|| {
        write_profile();
        tell_leaks()
    });
    if let (Ok(true), (_, Some(other)), 0) = (lost, leaks_at_exit(), code & 0xff) {
        // SAFETY: what the C library would do behind this handler, and the end.
        unsafe {
            libc::fflush(std::ptr::null_mut());
            libc::_exit(other.into());
        }
    }
}

/// Whether anything is lost.
fn tell_leaks() -> bool {
    let (wanted, _) = leaks_at_exit();
    let Ok(leaks) = ::spandrel::leaks() else { return false };
    // What the report allocates is nobody's leak.
    ::spandrel::watch_leaks(false);
    if let Some(descriptor) = kept_stream() {
        let text = leaks.text(wanted == Leaks::All);
        // SAFETY: a copy that is open; it stays so.
        let mut stream =
            std::mem::ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(descriptor) });
        // In one piece, so that processes that end at once do not mix.
        let whole = format!("spandrel: leaks of {} {}: {text}", std::process::id(), name());
        let _ = stream.write_all(whole.as_bytes());
    }
    !leaks.is_clean()
}

fn write_profile() {
    let Some(path) = profile_path() else { return };
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return };
    let path = numbered(Path::new(OsStr::from_bytes(path.to_bytes())));
    let started = profile::is_on();
    profile::stop();
    let profile = profile::snapshot();
    if !started && profile.places.is_empty() {
        eprintln!(
            "spandrel: no heap profile {}: none was started, as profile=512KiB does",
            path.display()
        );
    } else if let Err(error) = written(&profile, &path) {
        eprintln!("spandrel: the heap profile {}: {error}", path.display());
    }
}

/// `%p` is the process's number.
fn numbered(path: &Path) -> PathBuf {
    let number = std::process::id().to_string();
    let mut whole = Vec::new();
    let mut rest = path.as_os_str().as_bytes();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        whole.extend_from_slice(&rest[..at]);
        whole.extend_from_slice(number.as_bytes());
        rest = &rest[at + 2..];
    }
    whole.extend_from_slice(rest);
    PathBuf::from(OsStr::from_bytes(&whole))
}

/// By another name and a rename: of processes that write to one file, one wins whole. What is there and no
/// file (a pipe, a device) is written to as it stands, and so is the file that a link leads to.
fn written(profile: &Profile, path: &Path) -> std::io::Result<()> {
    let mut contents = Vec::new();
    if path.extension().is_some_and(|extension| extension == "svg") {
        profile.flame_graph(Figure::Peak, &mut contents)?;
    } else {
        contents = profile.pprof();
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
        return std::fs::write(&path, &contents);
    }
    let mut other = path.clone().into_os_string();
    other.push(format!(".{}", std::process::id()));
    std::fs::write(&other, &contents)?;
    std::fs::rename(&other, &path)
}
