//! `spandrel compare`: what is measured, what is reported, what stops it.

mod common;

use common::*;
use predicates::prelude::*;
use predicates::str::{contains, is_match, starts_with};
use serde_json::Value;

/// The report of a comparison with the system's malloc.
fn report(arguments: &[&str], command: &[&str]) -> Value {
    let output = spandrel()
        .args(["compare", "--only", "system", "--json", "-"])
        .args(arguments)
        .arg("--")
        .args(command)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn every_sample_is_reported() {
    let report = report(&["-n", "3", "--warmup", "0"], &["sh", "-c", "exit 0"]);
    assert_eq!(report["command"], serde_json::json!(["sh", "-c", "exit 0"]));
    assert_eq!((&report["runs"], &report["warmup"]), (&3.into(), &0.into()));
    let rows = report["allocators"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["spandrel", "system"]);
    assert!(rows[0]["library"].as_str().unwrap().contains("libspandrel-"));
    assert_eq!(rows[1]["library"], Value::Null);
    for row in rows {
        let samples = row["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 3);
        for figure in ["wall_s", "cpu_s", "peak_rss_bytes", "page_faults"] {
            let of = |name: &str| number(&row[figure][name]);
            let order =
                [of("min"), of("lower_quartile"), of("median"), of("upper_quartile"), of("max")];
            assert!(order.is_sorted() && order[0] >= 0.0, "{figure}: {order:?}");
            assert!(number(&row[figure]["ratio"]["median"]) > 0.0);
        }
        assert!(number(&samples[0]["wall_s"]) >= 0.0);
        assert_eq!(samples[0]["exit_code"], 0);
    }
    assert_eq!(number(&rows[0]["wall_s"]["ratio"]["median"]), 1.0);
}

#[test]
fn peak_memory_is_the_programs_and_not_the_launchers() {
    const MIB: f64 = 1_048_576.0;
    let peak = |command: &[&str]| {
        let report = report(&["-n", "1", "--warmup", "0"], command);
        let rows = report["allocators"].as_array().unwrap();
        rows.iter().map(|row| number(&row["peak_rss_bytes"]["median"]) / MIB).collect::<Vec<_>>()
    };
    let small = peak(&["true"]);
    assert!(small.iter().all(|&peak| peak > 0.5 && peak < 4.0), "{small:?}");
    let large = peak(&["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
    assert!(large.iter().all(|&peak| peak > 64.0 && peak < 80.0), "{large:?}");
}

#[test]
fn time_asleep_is_no_processor_time() {
    let report = report(&["-n", "1", "--warmup", "0"], &["sleep", "0.2"]);
    for row in report["allocators"].as_array().unwrap() {
        assert!(number(&row["wall_s"]["median"]) >= 0.2);
        assert!(number(&row["cpu_s"]["median"]) < 0.2);
    }
}

#[test]
fn the_table_has_a_row_for_each() {
    spandrel()
        .args(["compare", "-n", "1", "--warmup", "0", "--only", "system", "--", "true"])
        .assert()
        .success()
        .stdout(
            is_match(r"(?m)^│ spandrel ┆ +[0-9.]+ m?s ±0% ┆ +1\.00 ┆")
                .unwrap()
                .and(is_match(r"(?m)^│ system   ┆ ").unwrap())
                .and(contains("\n1 run on each of 2 allocators, taking turns; ")),
        )
        .stderr("");
}

#[test]
fn files_get_json_and_a_chart() {
    let directory = directory();
    let (json, svg) = (directory.path().join("out.json"), directory.path().join("out.svg"));
    spandrel()
        .args(["compare", "-n", "2", "--warmup", "0", "--only", "system", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .args(["--", "true"])
        .assert()
        .success()
        .stdout(starts_with("┌"));
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(report["allocators"].as_array().unwrap().len(), 2);
    let chart = std::fs::read_to_string(svg).unwrap();
    assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"));
    for text in ["spandrel", "system", "peak RSS", "page faults", "medians of 2 runs"] {
        assert!(chart.contains(text), "{text}");
    }
}

#[test]
fn a_named_allocator_joins() {
    // The command's own library, under another name, is an allocator like any other.
    let output = spandrel().args(["doctor", "--json"]).output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let library = findings[0]["value"].as_str().unwrap();
    let report = report(&["-n", "1", "--with", &format!("mine={library}")], &["true"]);
    let names: Vec<_> =
        report["allocators"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["spandrel", "system", "mine"]);
    spandrel()
        .args(["compare", "-n", "1", "--only", "mine", "--with", &format!("mine={library}")])
        .args(["--", "true"])
        .assert()
        .success()
        .stdout(contains("│ mine ").and(contains("│ system ").not()));
    spandrel()
        .args(["compare", "--with", &format!("system={library}"), "--", "true"])
        .assert()
        .code(2)
        .stderr("spandrel: --with system: there is one of that name already\n");
}

#[test]
fn a_library_that_is_none_is_refused() {
    spandrel()
        .args(["compare", "--with", "mine=/etc/passwd", "--", "true"])
        .assert()
        .code(125)
        .stderr("spandrel: --with mine: /etc/passwd: not an ELF library\n");
    spandrel()
        .args(["compare", "--only", "nosuch", "--", "true"])
        .assert()
        .code(2)
        .stderr(starts_with("spandrel: --only nosuch: not here; there are: spandrel, system"));
    for with in ["bad", "=bad", "bad="] {
        spandrel().args(["compare", "--with", with, "--", "true"]).assert().code(2);
    }
}

#[test]
fn the_programs_exit_code_is_passed_on() {
    let compare = |script| {
        let mut command = spandrel();
        command.args([
            "compare", "-n", "1", "--warmup", "0", "--only", "system", "--", "sh", "-c", script,
        ]);
        command.assert()
    };
    compare("echo why >&2; exit 3").code(3).stderr("spandrel: note: exit code 3\n  | why\n");
    compare("kill -ABRT $$").code(134).stderr("spandrel: note: ended by signal 6 (Aborted)\n");
}

#[test]
fn a_program_that_fails_on_one_allocator_stops_it() {
    let script = r#"[ -z "$LD_PRELOAD" ] || exit 0; echo missed it >&2; exit 9"#;
    spandrel()
        .args(["compare", "-n", "2", "--only", "system", "--", "sh", "-c", script])
        .assert()
        .code(9)
        .stdout("")
        .stderr(
            is_match(
                r"^spandrel: \S+/sh: exit code 9 on system, after success on spandrel; stopped in round 1\n  \| missed it\n$",
            )
            .unwrap(),
        );
}

#[test]
fn what_run_refuses_compare_refuses() {
    spandrel()
        .args(["compare", "--", "/no/such/program"])
        .assert()
        .code(127)
        .stderr("spandrel: /no/such/program: no such file\n");
    spandrel().args(["compare", "-n", "0", "--", "true"]).assert().code(2);
}

#[test]
fn input_is_there_at_every_run() {
    let directory = directory();
    let input = file(directory.path(), "input", b"one\ntwo\n", 0o600);
    let script = r#"[ "$(cat)" = "$(printf 'one\ntwo')" ]"#;
    let compare = |name: &std::path::Path| {
        let mut command = spandrel();
        command.args(["compare", "-n", "2", "--only", "system", "--input"]).arg(name);
        command.args(["--", "sh", "-c", script]);
        command
    };
    compare(&input).assert().success();
    compare("-".as_ref()).write_stdin("one\ntwo\n").assert().success();
    compare("/no/input".as_ref())
        .assert()
        .code(125)
        .stderr("spandrel: --input /no/input: No such file or directory (os error 2)\n");
}

/// Nothing is measured for a file that cannot be written, and the table does not wait for the files.
#[test]
fn files_are_opened_first_and_the_table_is_printed_first() {
    let directory = directory();
    let ran = directory.path().join("ran");
    let compare = |flags: &[&str]| {
        let mut command = spandrel();
        command.args(["compare", "-n", "1", "--warmup", "0", "--only", "system"]).args(flags);
        command.args(["--", "touch", ran.to_str().unwrap()]);
        command.assert()
    };
    for flag in ["--json", "--svg"] {
        compare(&[flag, "/no/such/file"]).code(125).stdout("").stderr(format!(
            "spandrel: {flag} /no/such/file: No such file or directory (os error 2)\n"
        ));
    }
    assert!(!ran.exists());
    compare(&["--json", "/dev/full"])
        .code(125)
        .stdout(starts_with("┌"))
        .stderr("spandrel: --json /dev/full: No space left on device (os error 28)\n");
    // What a longer file held before is gone.
    let json = file(directory.path(), "out.json", &[b' '; 100_000], 0o600);
    compare(&["--json", json.to_str().unwrap()]).success();
    let text = std::fs::read_to_string(json).unwrap();
    assert!(text.starts_with('{') && text.len() < 50_000);
}

#[test]
fn options_are_checked_once_and_reported() {
    let output = spandrel()
        .env("SPANDREL", "decai=1,decay=1s,hugepages=never,decay=2s")
        .args(["compare", "-n", "2", "--only", "system", "--json", "-", "--", "true"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("spandrel: SPANDREL: unknown option `decai`; there are: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["options"], serde_json::json!(["hugepages=never", "decay=2s"]));
    let report = self::report(&["-n", "1"], &["true"]);
    assert_eq!(report["options"], serde_json::json!([]));
}

#[test]
fn more_rounds_than_can_be_are_refused() {
    for flag in ["--warmup", "-n"] {
        spandrel()
            .args(["compare", flag, "4294967295", "--", "true"])
            .assert()
            .code(2)
            .stderr(contains("4294967295 is not in "));
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for json in [&[][..], &["--json", "-"]] {
        let (status, said) =
            unread(&[&["compare", "-n", "1", "--only", "system"], json, &["--", "true"]].concat());
        assert_eq!((status, said.as_str()), (Some(0), ""));
    }
}
