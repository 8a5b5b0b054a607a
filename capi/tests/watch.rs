//! Leaks and heap profiles of C, C++ and Rust programs that know nothing of it.

mod common;

use common::{compile, library, run, temporary};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program preloaded, with these options, for at most two minutes.
fn watched(binary: &Path, arguments: &[&str], options: &str) -> Output {
    let mut command = Command::new(binary);
    command.args(arguments).env("LD_PRELOAD", library()).env("SPANDREL", options);
    // SAFETY: the hook only calls alarm, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::alarm(120);
            Ok(())
        });
    }
    command.output().expect("the program runs")
}

/// The head of the report and its groups, each as the line that says how much and the functions behind it.
fn report(output: &Output) -> (String, Vec<(String, Vec<String>)>) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut parts = said.trim_end().split("\n\n");
    let head = parts.next().unwrap().to_owned();
    let groups = parts.map(|part| {
        let mut lines = part.lines().map(str::trim);
        let amount = lines.next().unwrap().to_owned();
        let function = |line: &str| line.split("  ").next().unwrap().to_owned();
        (amount, lines.map(function).collect())
    });
    (head, groups.collect())
}

#[track_caller]
fn expect(groups: &[(String, Vec<String>)], amount: &str, functions: &[&str]) {
    let found = groups.iter().any(|(its, stack)| {
        its == &format!("{amount}, allocated by")
            && functions.iter().zip(stack).all(|(wanted, there)| there.contains(wanted))
            && stack.len() >= functions.len()
    });
    assert!(found, "{amount} {functions:?}: {groups:#?}");
}

fn c_program() -> PathBuf {
    compile("watch/leaky.c", "leaky_c", &[])
}

#[test]
fn leaks_of_a_c_program() {
    let program = c_program();
    let output = watched(&program, &[], "leaks=on,leaks-exit=23");
    assert_eq!(output.status.code(), Some(23));
    let (head, groups) = report(&output);
    assert!(head.starts_with("spandrel: leaks of ") && head.contains(" leaky_c: "), "{head}");
    assert!(head.contains("12 blocks of 3,154,176 bytes lost, from 5 places; "), "{head}");
    for (amount, function) in [
        ("lost: 3 blocks of 3,000 bytes", "lose_three"),
        ("lost: 1 block of 5,000 bytes", "lose_after_realloc"),
        ("lost: 1 block of 3,145,728 bytes", "lose_large"),
    ] {
        expect(&groups, amount, &[function, "main"]);
    }
    let list = ["make_list", "lose_list", "main"];
    expect(&groups, "lost: 1 block of 64 bytes, and through it 4 blocks of 256 bytes", &list);
    expect(&groups, "lost through another block: 4 blocks of 256 bytes", &list);
    let ring = ["make_ring", "lose_ring", "main"];
    expect(&groups, "lost: 1 block of 64 bytes, and through it 1 block of 64 bytes", &ring);
    // The largest first, of what is lost.
    let first = groups[0].1[0].as_str();
    assert_eq!(first, "lose_large");
    for (amount, function) in [
        ("reachable: 1 block of 2,000 bytes", "keep"),
        ("reachable: 7 blocks of 448 bytes", "make_list"),
        ("reachable: 1 block of 3,000 bytes", "keep"),
        ("reachable: 1 block of 2,100 bytes", "keep"),
        ("reachable: 1 block of 2,200 bytes", "keep"),
        ("reachable: 1 block of 2,300 bytes", "keeper"),
        ("reachable: 1 block of 2,400 bytes", "keeper"),
        ("reachable: 1 block of 2,500 bytes", "keeper"),
    ] {
        expect(&groups, amount, &[function]);
    }
}

#[test]
fn a_clean_program_says_so() {
    let output = watched(&c_program(), &["clean"], "leaks=on,leaks-exit=23");
    let (head, groups) = report(&output);
    assert!(output.status.success() && head.contains(" leaky_c: nothing is lost; "), "{head}");
    assert!(groups.iter().all(|(amount, _)| amount.starts_with("reachable: ")), "{groups:?}");
    // Nobody asked, nobody is told.
    assert!(run(&c_program(), &[], true).stderr.is_empty());
}

#[test]
fn leaks_of_a_cxx_program() {
    let program = compile("watch/leaky.cc", "leaky_cc", &[]);
    let (head, groups) = report(&watched(&program, &[], "leaks=on"));
    assert!(head.contains("13 blocks of 66,008 bytes lost, from 2 places; "), "{head}");
    expect(&groups, "lost: 1 block of 49,380 bytes", &["shop::lose_array()", "main"]);
    expect(
        &groups,
        "lost: 4 blocks of 224 bytes, and through them 8 blocks of 16,404 bytes",
        &["shop::make_customer()", "shop::lose_customers(int)", "main"],
    );
    let (head, _) = report(&watched(&program, &["clean"], "leaks=on"));
    assert!(head.contains(" leaky_cc: nothing is lost; "), "{head}");
}

fn rust_program() -> PathBuf {
    let binary = temporary().join("leaky_rs");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/watch/leaky.rs");
    let built = Command::new("rustc")
        .args(["--edition=2024", "-g", "-Copt-level=1", "-o"])
        .args([&binary, &source])
        .status()
        .expect("rustc runs");
    assert!(built.success());
    binary
}

#[test]
fn leaks_of_a_rust_program() {
    let program = rust_program();
    let (head, groups) = report(&watched(&program, &[], "leaks=on"));
    assert!(head.contains("5 blocks of 16,712 bytes lost, from 2 places; "), "{head}");
    let has = |amount: &str, function: &str| {
        groups.iter().any(|(its, stack)| {
            its.starts_with(amount) && stack.iter().any(|name| name.ends_with(function))
        })
    };
    assert!(has("lost: 1 block of 16,000 bytes", "leaky::forget_a_vector"), "{groups:#?}");
    let cycle = "lost: 1 block of 56 bytes, and through it 3 blocks of 656 bytes";
    assert!(has(cycle, "leaky::make_a_cycle"), "{groups:#?}");
    let (head, _) = report(&watched(&program, &["clean"], "leaks=on"));
    assert!(head.contains(" leaky_rs: nothing is lost; "), "{head}");
}

/// Without symbols there are addresses and files, and the groups are the same.
#[test]
fn leaks_of_a_stripped_program() {
    let stripped = compile("watch/leaky.c", "leaky_stripped", &["-s"]);
    let (head, groups) = report(&watched(&stripped, &[], "leaks=on"));
    assert!(head.contains("12 blocks of 3,154,176 bytes lost, from 5 places; "), "{head}");
    expect(&groups, "lost: 3 blocks of 3,000 bytes", &["leaky_stripped+0x", "leaky_stripped+0x"]);
}

#[test]
fn a_heap_profile_by_call() {
    let arguments = common::link();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = compile("watch/profiled.c", "profiled_c", &arguments);
    let file = temporary().join("by_call.svg");
    common::passes("linked", &program, &[file.to_str().unwrap()], false);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("<title>keep_some (400,800 bytes"), "{text}");
}

/// In one static file without symbols: stacks are walked and told apart all the same, if it was linked with
/// the table that dynamic programs have anyway. Without one nothing is known of places, and nothing breaks.
#[test]
fn a_static_stripped_program() {
    let archive = library().with_extension("a");
    let arguments = [archive.to_str().unwrap(), "-static", "-s", "-lm", "-Wl,--eh-frame-hdr"];
    let program = compile("watch/leaky.c", "leaky_static", &arguments);
    let mut command = Command::new(&program);
    let output = command.env("SPANDREL", "leaks=on").output().unwrap();
    let (head, groups) = report(&output);
    assert!(head.contains("12 blocks of 3,154,176 bytes lost, from 5 places; "), "{head}");
    expect(&groups, "lost: 3 blocks of 3,000 bytes", &["leaky_static+0x", "leaky_static+0x"]);
    let program = compile("watch/leaky.c", "leaky_static_bare", &arguments[..4]);
    let output = Command::new(&program).env("SPANDREL", "leaks=on").output().unwrap();
    assert!(report(&output).0.contains("12 blocks of 3,154,176 bytes lost, "), "{output:?}");
}

#[test]
fn heap_profiles() {
    let folder = temporary().join("profiles");
    // What an earlier run left.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let program = compile("watch/leaky.cc", "profiled_cc", &[]);
    let svg = folder.join("profile-%p.svg");
    let output = watched(&program, &[], &format!("profile=1B,profile-file={}", svg.display()));
    assert!(output.status.success() && output.stderr.is_empty());
    let written: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(written.len(), 1, "{written:?}");
    let text = std::fs::read_to_string(&written[0]).unwrap();
    assert!(text.contains("shop::lose_customers(int)") && text.contains("shop::keep()"));
    // The door and `operator new` are left out.
    assert!(!text.contains("operator new") && !text.contains("libspandrel"));
    let file = folder.join("profile.pb.gz");
    watched(&program, &[], &format!("profile=64KiB,profile-file={}", file.display()));
    assert_eq!(std::fs::read(&file).unwrap()[..2], [0x1f, 0x8b]);
    // What leads somewhere else, or is no file, stays what it is.
    let link = folder.join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    std::fs::write(&file, "").unwrap();
    watched(&program, &[], &format!("profile=64KiB,profile-file={}", link.display()));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&file).unwrap()[..2], [0x1f, 0x8b]);
    // A place where nothing can be written is told.
    let output = watched(&program, &[], "profile=1B,profile-file=/no/such/place");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("spandrel: the heap profile /no/such/place: No such file"), "{said}");
}

/// Whatever is asked for and cannot be written, or does nothing by itself, is told, once.
#[test]
fn what_cannot_be_had_is_told() {
    let program = c_program();
    for (options, wanted) in [
        ("stats=/no/such/place", "spandrel: the statistics /no/such/place: No such file"),
        ("stats=/", "spandrel: the statistics /: Is a directory"),
        (
            "map=/no/such/place",
            "spandrel: SPANDREL: no map is written: cannot make `/no/such/place`",
        ),
        (
            "trace=/no/such/place",
            "spandrel: SPANDREL: no trace is recorded: cannot make or map `/no",
        ),
        ("leaks-exit=7", "spandrel: SPANDREL: leaks-exit does nothing without leaks"),
        ("map-every=1s", "spandrel: SPANDREL: map-every does nothing without map"),
        ("profile-file=/tmp/none", "spandrel: no heap profile /tmp/none: none was started"),
    ] {
        let output = watched(&program, &[], options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(wanted) && said.lines().count() == 1, "{options}: {said}");
    }
    assert!(!Path::new("/tmp/none").exists(), "no profile, no file");
}
