//! From the name of a command to a program that a library can be preloaded into, or the reason why not.

use crate::elf::{Elf, own_kind};
use crate::{CANNOT_RUN, NOT_FOUND, Refusal};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A program that can be run on a preloaded library.
#[derive(Debug)]
pub struct Program {
    /// The file that is executed.
    pub path: PathBuf,
    /// What the user should know and that is no reason to stop.
    pub notes: Vec<String>,
}

/// How many interpreters may stand in a row, as in the kernel.
const SCRIPT_DEPTH: usize = 5;

/// Looks the command up as a shell does and checks that it is a program, or a script run by one, that
/// honours `LD_PRELOAD`.
///
/// # Errors
///
/// A [`Refusal`] that says what is in the way.
pub fn find(command: &OsStr) -> Result<Program, Refusal> {
    let path = look_up(command)?;
    let mut notes = Vec::new();
    check(&path, &mut notes, SCRIPT_DEPTH)?;
    Ok(Program { path, notes })
}

fn cannot(path: &Path, why: impl AsRef<str>) -> Refusal {
    Refusal::new(CANNOT_RUN, format!("{}: {}", path.display(), why.as_ref()))
}

/// The file a command names: itself when it has a slash, else the first on PATH that may be executed.
fn look_up(command: &OsStr) -> Result<PathBuf, Refusal> {
    if command.as_bytes().contains(&b'/') {
        let path = PathBuf::from(command);
        return match fs::metadata(&path) {
            Ok(metadata) => executable(&path, &metadata).map(|()| path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Refusal::new(NOT_FOUND, format!("{}: no such file", path.display())))
            }
            Err(error) => Err(cannot(&path, error.to_string())),
        };
    }
    let directories = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut refused = None;
    let mut looked = 0;
    for directory in std::env::split_paths(&directories) {
        looked += 1;
        let path = if directory.as_os_str().is_empty() {
            Path::new(".").join(command)
        } else {
            directory.join(command)
        };
        if let Ok(metadata) = fs::metadata(&path) {
            match executable(&path, &metadata) {
                Ok(()) => return Ok(path),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        let name = command.display();
        let places = if looked == 1 { "directory" } else { "directories" };
        Refusal::new(NOT_FOUND, format!("{name}: not found in the {looked} {places} of PATH"))
    }))
}

fn executable(path: &Path, metadata: &Metadata) -> Result<(), Refusal> {
    if metadata.is_dir() {
        return Err(cannot(path, "is a directory"));
    }
    if !metadata.is_file() {
        return Err(cannot(path, "is not a regular file"));
    }
    let name = CString::new(path.as_os_str().as_bytes()).expect("paths hold no zero byte");
    // SAFETY: a string that ends in a zero byte.
    if unsafe { libc::access(name.as_ptr(), libc::X_OK) } != 0 {
        let mode = metadata.permissions().mode() & 0o7777;
        return Err(cannot(path, format!("is not executable (mode {mode:04o})")));
    }
    Ok(())
}

fn check(path: &Path, notes: &mut Vec<String>, depth: usize) -> Result<(), Refusal> {
    let metadata = fs::metadata(path).map_err(|error| cannot(path, error.to_string()))?;
    let elf = match Elf::read(path) {
        Ok(elf) => elf,
        // A program one may execute and not read (mode 0111) is the kernel's to judge.
        Err(error) if denied(&error) => {
            notes.push(format!("{}: cannot be read, so it is not checked", path.display()));
            return Ok(());
        }
        Err(error) => return Err(cannot(path, format!("a damaged ELF file: {error}"))),
    };
    let Some(elf) = elf else {
        return check_script(path, notes, depth);
    };
    if !elf.fits() {
        return Err(cannot(
            path,
            format!("a {} program; the library is {}", elf.kind(), own_kind()),
        ));
    }
    let Some(loader) = &elf.loader else {
        return Err(cannot(
            path,
            "statically linked, so nothing can be preloaded into it; link it with libspandrel.a",
        ));
    };
    let musl = loader.contains("ld-musl");
    if musl != cfg!(target_env = "musl") {
        let (its, ours) = if musl { ("musl", "glibc") } else { ("glibc", "musl") };
        return Err(cannot(path, format!("linked to {its}; the library is for {ours}")));
    }
    if !Path::new(loader).exists() {
        return Err(cannot(path, format!("its loader {loader} is not on this machine")));
    }
    if let Some(what) = privileged(path, &metadata) {
        return Err(cannot(
            path,
            format!("{what}, so the loader ignores LD_PRELOAD for this user"),
        ));
    }
    if elf.defines_malloc {
        notes.push(format!(
            "{}: defines malloc itself, which goes before any preloaded one",
            path.display()
        ));
    }
    Ok(())
}

fn denied(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// A script runs on the library when its interpreter does.
fn check_script(path: &Path, notes: &mut Vec<String>, depth: usize) -> Result<(), Refusal> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(256).read_to_end(&mut head))
        .map_err(|error| cannot(path, error.to_string()))?;
    let Some(line) = head.strip_prefix(b"#!") else {
        if head.contains(&0) {
            return Err(cannot(path, "neither an ELF program nor a script"));
        }
        // As shells do with a text file.
        return check(Path::new("/bin/sh"), notes, depth - 1);
    };
    if depth == 0 {
        return Err(cannot(path, "more than four interpreters in a row"));
    }
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let word = |word: &[u8]| PathBuf::from(OsString::from_vec(word.to_vec()));
    let Some(interpreter) = words.next().map(word) else {
        return Err(cannot(path, "a script that names no interpreter after #!"));
    };
    let metadata = fs::metadata(&interpreter).map_err(|_| {
        cannot(path, format!("its interpreter {} is not on this machine", interpreter.display()))
    })?;
    executable(&interpreter, &metadata)?;
    check(&interpreter, notes, depth - 1)?;
    // `env` becomes the first word that is neither an option nor an assignment.
    if interpreter.file_name() == Some(OsStr::new("env")) {
        let program = words.find(|word| word[0] != b'-' && !word.contains(&b'='));
        if let Some(program) = program {
            let program = look_up(OsStr::from_bytes(program))
                .map_err(|refusal| cannot(path, format!("its interpreter {}", refusal.message)))?;
            return check(&program, notes, depth - 1);
        }
    }
    Ok(())
}

/// What makes the kernel start this file in secure mode for the user who runs it.
fn privileged(path: &Path, metadata: &Metadata) -> Option<&'static str> {
    // SAFETY: no arguments, never fail.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let mode = metadata.mode();
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a value of this plain struct.
    let mut system: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends in a zero byte, and a struct to fill.
    if unsafe { libc::statvfs(name.as_ptr(), &mut system) } == 0
        && system.f_flag & libc::ST_NOSUID != 0
    {
        return None;
    }
    // SAFETY: a query without pointers.
    if unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 1 {
        return None;
    }
    if mode & libc::S_ISUID != 0 && metadata.uid() != user {
        return Some("setuid");
    }
    if mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 && metadata.gid() != group {
        return Some("setgid");
    }
    // SAFETY: two strings that end in a zero byte; a size of 0 asks for the length only.
    let capabilities = unsafe {
        libc::getxattr(name.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0)
    };
    if capabilities > 0 && user != 0 {
        return Some("has file capabilities");
    }
    None
}
