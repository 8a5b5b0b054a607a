//! `spandrel run --trace` and `spandrel trace`, from a program to its figures.

mod common;

use common::*;
use predicates::prelude::*;
use predicates::str::{contains, is_match};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A C program of `ci/trace`, compiled.
fn compiled(directory: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../ci/trace/{name}.c"));
    let to = directory.join(name);
    let status = Command::new("cc")
        .args(["-g", "-O1", "-fno-inline", "-pthread", "-o"])
        .args([&to, &source])
        .status()
        .expect("there is a C compiler");
    assert!(status.success());
    to
}

/// A trace of such a program.
fn recorded(directory: &Path, name: &str) -> String {
    let trace = directory.join(format!("{name}.trace"));
    let program = compiled(directory, name);
    let ran = spandrel()
        .args(["run", "--trace", trace.to_str().unwrap(), "--", program.to_str().unwrap()])
        .assert();
    // A second free ends the program, and the trace ends with it.
    if name == "double" {
        ran.failure().stderr(contains("spandrel: double free: 0x"));
    } else {
        ran.success().stderr("");
    }
    trace.to_str().unwrap().to_owned()
}

#[test]
fn the_free_that_went_twice_is_found() {
    let directory = directory();
    let trace = recorded(directory.path(), "double");
    let all = is_match(
        r"(?s)^double free of 0x[0-9a-f]+, 48 bytes\n  handed out .* thread (\d+)  main .*\n  freed  .* thread \d+  drop .*other.*\n  freed again .* thread \d+  drop .*main",
    )
    .unwrap();
    spandrel().args(["trace", "--find-double-free", &trace]).assert().code(1).stdout(all.and(
        predicates::function::function(|text: &str| text.matches("double free").count() == 1),
    ));
    spandrel().args(["trace", "--summary", &trace]).assert().success().stdout(
        contains("/double\n").and(contains(" by 2 threads in ")).and(contains("1 resizes")),
    );
    spandrel()
        .args(["trace", &trace])
        .assert()
        .success()
        .stdout(contains(" = malloc(48)").and(contains(", 5000)  #")));
    let svg = directory.path().join("sizes.svg");
    spandrel()
        .args(["trace", "--svg", svg.to_str().unwrap(), &trace])
        .assert()
        .success()
        .stdout("");
    assert!(std::fs::read_to_string(svg).unwrap().contains("blocks by lifetime"));
}

/// Everything that four threads did is there, and is done again.
#[test]
fn threads_are_recorded_and_replayed() {
    let directory = directory();
    let trace = recorded(directory.path(), "threads");
    // 4 * 200 * 100, all but 5000 / 7 of them by malloc; 8000 resized; every one freed.
    let output = spandrel().args(["trace", &trace]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let calls = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    let made = calls(" = malloc(") + calls(" = aligned_alloc(64, ");
    assert!((80_000..80_100).contains(&made), "{made} allocations");
    assert_eq!(calls(" = realloc("), 8_000);
    let freed = calls("  free(");
    assert!((80_000..80_100).contains(&freed), "{freed} frees");
    spandrel()
        .args(["trace", "--find-double-free", &trace])
        .assert()
        .success()
        .stdout("no block was freed twice\n");
    let output = spandrel()
        .args(["trace", "replay", "--json", "-n", "1", "--only", "system", &trace])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["spandrel", "system"]
    );
    for row in rows {
        assert!(row["wall_s"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["fragmentation"].as_f64().unwrap() > 0.5, "{row}");
        assert_eq!(row["failed"].as_f64(), Some(0.0), "{row}");
    }
}

/// What another thread is handed where a block was, while that block moves, is its own.
#[test]
fn blocks_that_move_are_in_one_place_at_a_time() {
    let directory = directory();
    let trace = recorded(directory.path(), "moved");
    let output = spandrel().args(["trace", &trace]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let moved = text.lines().filter(|line| {
        let call = line.split_once(" = realloc(");
        call.is_some_and(|(to, from)| !to.ends_with(from.split(',').next().unwrap()))
    });
    assert!(moved.count() > 1000, "they grew where they were: nothing is tested");
    spandrel()
        .args(["trace", "--find-double-free", &trace])
        .assert()
        .success()
        .stdout("no block was freed twice\n");
}

#[test]
fn the_textbook_stands_beside_spandrel() {
    let directory = directory();
    let trace = recorded(directory.path(), "threads");
    let output = spandrel().args(["trace", "simulate", "--json", &trace]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let all = ["spandrel", "first fit", "next fit", "best fit", "segregated lists", "binary buddy"];
    assert_eq!(names, all);
    for row in rows {
        let number = |key: &str| row[key].as_u64().unwrap();
        assert!(number("footprint") >= number("peak_live"), "{row}");
        assert!(number("internal") + number("external") <= number("footprint"), "{row}");
        assert!(row["alloc"]["calls"].as_u64().unwrap() >= 80_000, "{row}");
        assert!(row["alloc"]["steps"].as_f64() >= row["alloc"]["calls"].as_f64(), "{row}");
    }
    // Every strategy was asked for the same.
    assert!(rows[1..].windows(2).all(|pair| pair[0]["peak_live"] == pair[1]["peak_live"]));
    spandrel()
        .args(["trace", "simulate", "--steps", "1000", &trace])
        .assert()
        .success()
        .stdout(contains("best fit was stopped after").and(contains("binary buddy")));
}

/// What was recorded is there however the process ended, and a child has a trace of its own.
#[test]
fn a_killed_program_and_a_child_leave_their_traces() {
    let directory = directory();
    let trace = directory.path().join("killed.trace");
    let script = "x=$(printf %10000s; :); kill -KILL $$";
    spandrel()
        .args(["run", "--trace", trace.to_str().unwrap(), "--", "bash", "-c", script])
        .assert()
        .failure();
    let traces: Vec<PathBuf> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(traces.len(), 2, "the program's and the child's: {traces:?}");
    for trace in &traces {
        spandrel()
            .args(["trace", "--summary", trace.to_str().unwrap()])
            .assert()
            .success()
            .stdout(contains("bash -c").and(contains(" allocations, ")));
    }
}

#[test]
fn a_broken_trace_is_refused_by_name() {
    let directory = directory();
    let trace = recorded(directory.path(), "double");
    let whole = std::fs::read(&trace).unwrap();
    let refused = |bytes: &[u8], why: &str| {
        std::fs::write(&trace, bytes).unwrap();
        for verb in [&["trace"][..], &["trace", "replay"], &["trace", "simulate"]] {
            spandrel().args(verb).arg(&trace).assert().code(125).stderr(contains(why));
        }
    };
    refused(&whole[..whole.len() - 1], "the file ends here; the trace has");
    refused(b"hello", "byte 0: not a trace: it does not begin as one");
    let mut bent = whole.clone();
    // The first chunk begins behind the head.
    bent[4096] ^= 1;
    refused(&bent, "neither a chunk begins here nor is there nothing");
}
