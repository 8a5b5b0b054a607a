//! The command under test, and programs made for it.
#![allow(dead_code, missing_docs)]

use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The command, with a cache of its own and nothing preloaded.
pub fn spandrel() -> Command {
    let mut command = Command::cargo_bin("spandrel").unwrap();
    command.env("XDG_CACHE_HOME", cache()).env_remove("LD_PRELOAD").env_remove("SPANDREL");
    command.timeout(Duration::from_secs(120));
    command
}

/// Runs the command with a standard output that nobody reads: its exit code and what it said on standard error.
pub fn unread(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("spandrel"))
        .env("XDG_CACHE_HOME", cache())
        .env_remove("LD_PRELOAD")
        .env_remove("SPANDREL")
        .args(arguments)
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Where the command keeps its library in these tests.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

/// A directory of the test's own, on a file system where set-user-id bits count.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A file with a mode. Another process writes it: a file that this one has just written cannot be
/// executed while a test beside it is between fork and exec, and holds it open.
pub fn file(directory: &Path, name: &str, contents: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    let source = directory.join(format!(".{name}"));
    fs::write(&source, contents).unwrap();
    let mut install = std::process::Command::new("install");
    let status =
        install.args(["-m", &format!("{mode:o}")]).args([&source, &path]).status().unwrap();
    assert!(status.success());
    path
}

/// A dynamically linked program as bytes: the command itself.
pub fn dynamic_program() -> Vec<u8> {
    fs::read(assert_cmd::cargo::cargo_bin("spandrel")).unwrap()
}

/// The same without the program header that names its loader, as in a static one.
pub fn static_program() -> Vec<u8> {
    const PT_INTERP: u32 = 3;
    let mut bytes = dynamic_program();
    let word = |bytes: &[u8], at: usize, length: usize| {
        bytes[at..at + length]
            .iter()
            .rev()
            .fold(0usize, |value, &byte| value << 8 | usize::from(byte))
    };
    let (first, size, count) = (word(&bytes, 32, 8), word(&bytes, 54, 2), word(&bytes, 56, 2));
    for at in (0..count).map(|index| first + index * size) {
        if word(&bytes, at, 4) == PT_INTERP as usize {
            bytes[at..at + 4].fill(0);
        }
    }
    bytes
}

/// The same with another loader, a name that is not longer.
pub fn with_loader(name: &str) -> Vec<u8> {
    let mut bytes = dynamic_program();
    let old = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + old.len()].fill(0);
    bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    // The header says how long the name is; the zeros behind it belong to it, and end it.
    bytes
}

/// The head of a 32-bit program for i386.
pub fn narrow_program() -> Vec<u8> {
    let mut bytes = vec![0; 52];
    bytes[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    bytes[16] = 2; // an executable
    bytes[18] = 3; // EM_386
    bytes[20] = 1;
    bytes[40] = 52; // the header's size
    bytes[42] = 32; // of a program header, of which there are none
    bytes[46] = 40;
    bytes
}
