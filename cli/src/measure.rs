//! One run of a program, measured.
//!
//! The program is started by a helper, a second copy of this command that does nothing else: Linux
//! counts towards a program's peak memory what its process held before `exec`, so a program smaller
//! than its launcher would show the launcher's size. The helper forks while it is small, waits with
//! `wait4` and reports through a pipe.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// What one run cost. The figures are of the program and of every process it waited for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Wall time in seconds.
    pub wall_s: f64,
    /// Processor time in seconds in the program.
    pub user_s: f64,
    /// Processor time in seconds in the kernel on its behalf.
    pub system_s: f64,
    /// The most memory any one of the processes held at a time, in bytes.
    pub peak_rss_bytes: f64,
    /// Page faults served from memory.
    pub minor_faults: f64,
    /// Page faults that read from a device.
    pub major_faults: f64,
    /// The exit code, or 128 plus the number of the signal.
    pub exit_code: u8,
}

impl Sample {
    /// Processor time in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// Page faults of both kinds.
    pub fn faults(&self) -> f64 {
        self.minor_faults + self.major_faults
    }
}

/// The argument that makes this command the helper.
const HELPER: &str = "__measure";

/// Runs a program once. `preload` is the value of `LD_PRELOAD`, none to leave the environment's.
///
/// # Errors
///
/// The helper or the program cannot be started.
pub fn run(
    program: &Path,
    arguments: &[OsString],
    preload: Option<&OsStr>,
    [stdin, stdout, stderr]: [Stdio; 3],
) -> Result<Sample> {
    let (mut reader, writer) = std::io::pipe()?;
    let mut helper = Command::new("/proc/self/exe");
    helper.arg(HELPER).arg(writer.as_raw_fd().to_string());
    helper.arg(preload.unwrap_or_default()).arg(program).args(arguments);
    helper.stdin(stdin).stdout(stdout).stderr(stderr);
    let descriptor = writer.as_raw_fd();
    let pass_on = move || {
        // SAFETY: clears the flags (there is one) of a descriptor this process owns.
        match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: between fork and exec only `fcntl` is called, which may be called there.
    unsafe { helper.pre_exec(pass_on) };
    let mut helper = helper.spawn().context("cannot start the helper")?;
    drop(writer);
    let mut report = String::new();
    reader.read_to_string(&mut report)?;
    let status = helper.wait()?;
    parse(&report).with_context(|| format!("{} (helper: {status})", program.display()))
}

fn parse(report: &str) -> Result<Sample> {
    if let Some(code) = report.strip_prefix("exec ") {
        let code = code.lines().next().unwrap_or_default().parse()?;
        return Err(std::io::Error::from_raw_os_error(code).into());
    }
    let numbers: Vec<u64> =
        report.split_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
    let &[status, wall, user, system, peak, minor, major] = &numbers[..] else {
        bail!("the helper reported {report:?}");
    };
    let status = status as libc::c_int;
    Ok(Sample {
        wall_s: wall as f64 / 1e9,
        user_s: user as f64 / 1e6,
        system_s: system as f64 / 1e6,
        peak_rss_bytes: peak as f64 * 1024.0,
        minor_faults: minor as f64,
        major_faults: major as f64,
        exit_code: if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status) as u8
        } else {
            libc::WEXITSTATUS(status) as u8
        },
    })
}

/// The helper: `__measure FD PRELOAD PROGRAM ARG0 ARGS…`. None when this is not one.
pub fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != HELPER {
        return None;
    }
    let descriptor: RawFd = arguments.next()?.to_str()?.parse().ok()?;
    let preload = arguments.next()?;
    let string = |text: OsString| CString::new(text.into_vec()).ok();
    let program = string(arguments.next()?)?;
    let words: Vec<CString> = arguments.map(string).collect::<Option<_>>()?;
    let mut pointers: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());

    // SAFETY: a query of a number; the only descriptor `run` passes on, and nothing else owns it.
    let mut report = unsafe {
        if libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) == -1 {
            return None;
        }
        PipeWriter::from(OwnedFd::from_raw_fd(descriptor))
    };
    if !preload.is_empty() {
        // SAFETY: no other thread is there to read the environment.
        unsafe { std::env::set_var("LD_PRELOAD", OsStr::from_bytes(preload.as_bytes())) };
    }

    let start = Instant::now();
    // SAFETY: no other thread is there.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: strings and a list that end in zeros. Rust ignores SIGPIPE; the program shall not.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::execvp(program.as_ptr(), pointers.as_ptr());
        }
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or_default();
        let _ = report.write_all(format!("exec {error}\n").as_bytes());
        // SAFETY: ends this process, without the other's exit handlers.
        unsafe { libc::_exit(127) };
    }
    let mut status = 0;
    // SAFETY: all zeros is a value of this plain struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: two places to write to.
    while child > 0 && unsafe { libc::wait4(child, &mut status, 0, &mut usage) } == -1 {
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return Some(ExitCode::FAILURE);
        }
    }
    let wall = start.elapsed().as_nanos();
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let text = format!(
        "{status} {wall} {} {} {} {} {}\n",
        micros(usage.ru_utime),
        micros(usage.ru_stime),
        usage.ru_maxrss,
        usage.ru_minflt,
        usage.ru_majflt
    );
    let sent = child > 0 && report.write_all(text.as_bytes()).is_ok();
    Some(if sent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program's input, from its start at every run.
pub enum Input {
    /// Nothing.
    Empty,
    /// A file, or the copy of what came through a pipe.
    File(File),
}

impl Input {
    /// Opens a file, or copies standard input to one when the name is `-`.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the copy cannot be kept.
    pub fn of(name: Option<&Path>) -> Result<Input> {
        let Some(name) = name else { return Ok(Input::Empty) };
        if name != Path::new("-") {
            let file = File::open(name).with_context(|| format!("--input {}", name.display()))?;
            return Ok(Input::File(file));
        }
        let mut file = tempfile::tempfile()?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file).context("--input -")?;
        Ok(Input::File(file))
    }

    /// The input for one run.
    ///
    /// # Errors
    ///
    /// The file cannot be opened again.
    pub fn again(&self) -> Result<Stdio> {
        match self {
            // Opened anew, so that no run moves another's place in it.
            Input::File(file) => {
                Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
            }
            Input::Empty => Ok(Stdio::null()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_back() {
        let sample = parse("0 1500000000 1000000 250000 2048 7 1\n").unwrap();
        assert_eq!(sample.wall_s, 1.5);
        assert_eq!(sample.cpu_s(), 1.25);
        assert_eq!(sample.peak_rss_bytes, 2.0 * 1024.0 * 1024.0);
        assert_eq!(sample.faults(), 8.0);
        assert_eq!(sample.exit_code, 0);
        // Wait statuses: the exit code in the second byte, the signal in the first.
        assert_eq!(parse("768 1 1 1 1 1 1").unwrap().exit_code, 3);
        assert_eq!(parse("11 1 1 1 1 1 1").unwrap().exit_code, 139);
        assert_eq!(parse("exec 8\n127").unwrap_err().to_string(), "Exec format error (os error 8)");
        assert!(parse("").is_err());
    }
}
