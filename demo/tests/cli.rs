//! The command line, from outside: what is wrong is said, with what is allowed, and the exit code tells.

use std::{fs, path::Path};

use assert_cmd::{Command, cargo::cargo_bin};
use predicates::{prelude::*, str::contains};
use serde_json::Value;

fn demo() -> Command {
    Command::new(cargo_bin!("demo"))
}

fn refuses(arguments: &[&str], says: &[&str]) {
    let mut assert = demo().args(arguments).assert().failure().stdout("");
    for part in says {
        assert = assert.stderr(contains(*part));
    }
}

#[test]
fn bad_values_are_named_with_what_is_allowed() {
    refuses(&["--seconds", "0"], &["'0'", "--seconds", "0 is not in 5..=3600"]);
    refuses(&["--seconds", "soon"], &["'soon'", "--seconds", "invalid digit"]);
    refuses(&["--seconds", "-5"], &["-5"]);
    refuses(&["--threads", "0"], &["'0'", "--threads", "0 is not in 1..=256"]);
    refuses(&["--threads", "9999"], &["'9999'", "--threads", "9999 is not in 1..=256"]);
    refuses(&["--capacity", "1"], &["'1'", "--capacity", "1 is not in 512..=10000000"]);
    refuses(&["--profile", "fast"], &["'fast'", "possible values: release, fat"]);
    refuses(&["--check", "--tolerance", "99"], &["'99'", "--tolerance", "from 0 to 50"]);
    refuses(&["--check", "--tolerance", "NaN"], &["'NaN'", "from 0 to 50"]);
    refuses(&["--peers", "--seconds", "9"], &["--seconds 9", "6 allocators", "at least 13"]);
    refuses(&["--sceonds", "9"], &["'--sceonds'", "'--seconds'"]);
}

#[test]
fn bad_paths_are_errors_before_anything_runs() {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    refuses(&["--bin-dir", nowhere], &["--bin-dir", "no svc-spandrel there"]);
    refuses(&["--json", &format!("{nowhere}/results.json")], &["--json", "No such file"]);
}

#[test]
fn help_tells_every_option() {
    let mut assert = demo().arg("--help").assert().success().stderr("");
    for option in [
        "--seconds",
        "--threads",
        "--peers",
        "--profile",
        "--check",
        "--tolerance",
        "--json",
        "--serve",
    ] {
        assert = assert.stdout(contains(option));
    }
}

#[test]
fn a_service_binary_reports_one_result_line_and_its_own_errors() {
    let mut service = Command::new(cargo_bin!("svc-spandrel"));
    service.args(["--requests", "300", "--warm-up", "50", "--capacity", "512"]);
    service.args(["--settle-ms", "0"]).assert().success().stdout(
        contains("\"result\":{\"allocator\":\"spandrel\"")
            .count(1)
            .and(contains("\"requests\":300,")),
    );
    Command::new(cargo_bin!("svc-system"))
        .args(["--requests", "1"])
        .assert()
        .failure()
        .stderr(contains("1 is not in 100..=1000000000"));
}

#[test]
fn a_short_run_compares_both_allocators_and_writes_what_it_found() {
    let binaries = cargo_bin!("svc-spandrel").parent().unwrap();
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("results.json");
    let mut run = demo();
    run.args(["--seconds", "5", "--threads", "2", "--capacity", "1024", "--bin-dir"]).arg(binaries);
    let assert = run.arg("--json").arg(&json).assert().success();
    let assert = assert.stderr(contains("round 1/1 spandrel").and(contains("round 1/1 system")));
    let mut assert = assert.stdout(contains("every answer verified"));
    for part in ["p99.9", "peak RSS", "spandrel", "system", "Spandrel's snapshot", "throughput: "] {
        assert = assert.stdout(contains(part));
    }
    let results: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let runs = results["runs"]["allocators"].as_array().unwrap();
    let requests: Vec<_> = runs.iter().map(|run| run[1][0]["requests"].as_u64().unwrap()).collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1], "both did the same work");
    assert_eq!(results["verdicts"].as_array().unwrap().len(), 3);
}

/// A service that stays: found by what it prints, asked, and ended by a signal.
#[cfg(unix)]
#[test]
fn a_service_stays_and_says_where() {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpStream,
        os::unix::process::ExitStatusExt,
        process::Stdio,
    };
    let binaries = cargo_bin!("svc-spandrel").parent().unwrap();
    let mut service = std::process::Command::new(cargo_bin!("demo"));
    service.args(["--serve", "--capacity", "512", "--bin-dir"]).arg(binaries);
    let mut service = service.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(service.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let host = line.trim_end().strip_prefix("svc-spandrel listens on http://").unwrap().to_owned();
    let ask = |method: &str, path: &str| {
        let mut stream = TcpStream::connect(&host).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(ask("GET", "/metrics").contains("\nspandrel_live_bytes "));
    for path in ["/debug/pprof/heap", "/debug/leaks"] {
        let answer = ask("GET", path);
        let how = format!("`curl -X POST http://{host}{path}`");
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains(&how), "{answer}");
    }
    assert!(ask("POST", "/debug/pprof/heap?interval=1").starts_with("HTTP/1.1 204 "));
    assert!(ask("GET", "/metrics").starts_with("HTTP/1.1 200 "));
    assert!(ask("GET", "/debug/pprof/heap").starts_with("HTTP/1.1 200 "));
    service.kill().unwrap();
    assert_eq!(service.wait().unwrap().signal(), Some(9));
}

#[test]
fn to_serve_is_not_to_load() {
    for arguments in [["--serve", "--check"], ["--serve", "--peers"]] {
        refuses(&arguments, &["--serve", "cannot be used with"]);
    }
    refuses(&["--serve", "nowhere"], &["'nowhere'", "--serve"]);
    let mut service = Command::new(cargo_bin!("svc-spandrel"));
    service.args(["--serve", "--requests", "100"]).assert().failure().stderr(contains("--serve"));
}

/// Service binaries that are not what they should be: scripts in a directory of their own.
#[cfg(unix)]
fn impostors(name: &str, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    for binary in ["svc-spandrel", "svc-system"] {
        let path = directory.join(binary);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory.to_str().unwrap().to_owned()
}

#[cfg(unix)]
#[test]
fn a_service_that_fails_makes_the_demo_fail_and_say_why() {
    let dies = impostors("dies", "echo 'a wrong answer' >&2; exit 3");
    refuses(&["--bin-dir", &dies], &["the calibration run", "svc-system failed", "a wrong answer"]);
    let babbles = impostors("babbles", "echo hello");
    refuses(&["--bin-dir", &babbles], &["says what it should not"]);
    let silent = impostors("silent", "exit 0");
    refuses(&["--bin-dir", &silent], &["svc-system gave no result"]);
}
