//! `spandrel run --map` and `spandrel map`, from a program to its page.

mod common;

use common::*;
use predicates::prelude::*;
use predicates::str::contains;

#[test]
fn a_program_a_map_and_a_page() {
    let directory = directory();
    let (map, page) = (directory.path().join("heap.map"), directory.path().join("heap.html"));
    std::fs::write(&map, "of an earlier run").unwrap();
    let script = "kill -USR2 $$; x=$(printf %200000s); :";
    spandrel()
        .args(["run", "--map", map.to_str().unwrap(), "--", "bash", "-c", script])
        .assert()
        .success()
        .stderr("");
    spandrel().args(["map", map.to_str().unwrap()]).assert().success().stdout(
        contains("bash -c kill -USR2").and(contains("these add up to what is mapped, exactly")),
    );
    spandrel()
        .args(["map", map.to_str().unwrap(), "-o", page.to_str().unwrap()])
        .assert()
        .success()
        .stdout("");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(
        text.starts_with("<!doctype html>")
            && text.contains("\"snapshot")
            && !text.contains("http")
    );
    // The signal's and the end's.
    assert_eq!(text.matches("these add up to what is mapped").count(), 2);
}

#[test]
fn a_broken_map_is_refused_by_name() {
    let directory = directory();
    let map = directory.path().join("heap.map");
    let path = map.to_str().unwrap();
    spandrel().args(["map", path]).assert().code(125).stderr(contains("No such file"));
    std::fs::write(&map, "hello\n").unwrap();
    spandrel()
        .args(["map", path])
        .assert()
        .code(125)
        .stderr(format!("spandrel: {path}: line 1: not a map: it does not begin as one\n"));
    spandrel()
        .args(["run", "--map", path, "--", "bash", "-c", "kill -USR2 $$; :"])
        .assert()
        .success();
    let text = std::fs::read_to_string(&map).unwrap();
    std::fs::write(&map, &text[..text.len() - 50]).unwrap();
    spandrel().args(["map", path]).assert().code(125).stderr(contains("the file ends inside"));
    spandrel().args(["map", "--partial", path]).assert().success().stdout(contains("process"));
}
