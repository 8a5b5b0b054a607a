//! `spandrel doctor` on this machine.

mod common;

use common::*;
use predicates::str::{contains, is_match};
use serde_json::Value;

#[test]
fn every_fact_is_named_and_the_library_serves() {
    let output = spandrel().args(["doctor", "--json"]).output().unwrap();
    assert!(output.status.success());
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        findings.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in [
        "library",
        "kernel",
        "C library",
        "page size",
        "huge pages",
        "overcommit",
        "memory",
        "rseq",
        "ulimit -v (RLIMIT_AS)",
        "ulimit -d (RLIMIT_DATA)",
        "vm.max_map_count",
        "LD_PRELOAD",
        "SPANDREL",
    ] {
        assert!(names.contains(&name), "{name} is missing from {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("cgroup")));
    assert!(names.iter().any(|name| name.starts_with("allocator")));
    assert_eq!(findings[0]["meaning"], "preloaded and serving, tried with a program just now");
    for finding in findings.as_array().unwrap() {
        assert_ne!(finding["meaning"], "", "{finding}");
    }
}

#[test]
fn limits_are_seen() {
    let limited = |shell: &str| {
        let mut command = assert_cmd::Command::new("sh");
        command.env("XDG_CACHE_HOME", cache());
        command.arg("-c").arg(format!("{shell}; exec \"$0\" doctor"));
        command.arg(assert_cmd::cargo::cargo_bin("spandrel"));
        command.assert().success()
    };
    limited("ulimit -v 2097152")
        .stdout(is_match(r"ulimit -v \(RLIMIT_AS\) +2048 MiB +windows may not fit").unwrap());
    limited("ulimit -d 1048576")
        .stdout(is_match(r"ulimit -d \(RLIMIT_DATA\) +1024 MiB +counts every private").unwrap());
    limited("export SPANDREL=decay=1s").stdout(contains("decay=1s"));
}

#[test]
fn a_library_that_is_none_is_bad() {
    spandrel()
        .args(["doctor", "--library", "/etc/passwd"])
        .assert()
        .code(1)
        .stdout(is_match(r"^ *! +library +none +/etc/passwd: not an ELF library").unwrap());
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for arguments in [&["doctor"][..], &["doctor", "--json"]] {
        assert_eq!(unread(arguments), (Some(0), String::new()));
    }
}

#[test]
fn a_full_device_is_an_error_in_words() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("spandrel"))
        .env("XDG_CACHE_HOME", cache())
        .arg("doctor")
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "spandrel: No space left on device (os error 28)\n");
}

#[test]
fn options_are_read_as_the_library_reads_them() {
    let with = |list: &std::ffi::OsStr| {
        let output = spandrel().env("SPANDREL", list).arg("doctor").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = with("hugepages=never,decay=never,decai=1".as_ref());
    assert!(text.contains("goes back when a limit or a purge wants it: decay=never"), "{text}");
    assert!(!text.contains("asked for once"), "{text}");
    assert!(text.contains("unknown option `decai`; there are: decay, limit"), "{text}");
    let text = with(std::os::unix::ffi::OsStrExt::from_bytes(b"decay=1s,\xff"));
    assert!(text.contains("some of its bytes are no text (UTF-8)"), "{text}");
}
