//! What comes of each misuse in C, by default and in checked mode (there with the sized deletes preloaded): the exact
//! line on standard error, or that the program goes on, unharmed or not.

mod common;

use common::{compile, run_on, run_sized, run_with, sized};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;

/// What is expected. `{blame}` and `{block}` stand for the addresses that the program says.
enum Expect {
    /// It dies, and this is what it says behind `spandrel: `.
    Dies(&'static str),
    /// It goes on, and can show no harm.
    Unharmed,
    /// It goes on, and can show that its memory is broken.
    Broken,
}
use Expect::{Broken, Dies, Unharmed};

const TWICE: &str = "double free: {blame}";
const INSIDE: &str = "free of an address that is not the start of a block: {blame}";
const FOREIGN: &str = "free of an address this allocator does not own: {blame}";
const NO_BLOCK: &str =
    "realloc or malloc_usable_size of an address that is not the start of a block: {blame}";

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("misuse.c", "misuse", &["-lstdc++"]))
}

#[track_caller]
fn ends(name: &str, options: &str, expect: &Expect) {
    let run = if options.contains("check=") { run_sized } else { run_with };
    expects(run(program(), &[name], options), &format!("{name} {options}"), expect);
}

#[track_caller]
fn expects(output: Output, what: &str, expect: &Expect) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let address = |key: &str| {
        let mut lines = said.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or("(nothing)")
    };
    let (message, code) = match expect {
        Dies(message) => (
            format!("spandrel: {message}\n")
                .replace("{blame}", address("blame"))
                .replace("{block}", address("block"))
                .replace("{program}", &program().display().to_string()),
            None,
        ),
        Unharmed => (String::new(), Some(0)),
        Broken => (String::new(), Some(3)),
    };
    assert_eq!(errors, message, "{what}: {}", output.status);
    assert_eq!(output.status.code(), code, "{what}: {}", output.status);
    if code.is_none() {
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{what}");
    }
}

macro_rules! misuses {
    ($($name:ident: $default:expr, $checked:expr;)*) => {
        $(#[test] fn $name() {
            ends(stringify!($name), "", &$default);
            ends(stringify!($name), "check=on", &Dies($checked));
        })*
    };
}

misuses! {
    twice_in_a_row: Dies(TWICE),
        "double free: {blame}: a block of 100 bytes at {block}, freed by this thread";
    twice_with_another_between: Dies(TWICE),
        "double free: {blame}: a block of 100 bytes at {block}, freed by this thread";
    twice_by_two_threads: Dies(TWICE),
        "double free: {blame}: a block of 100 bytes at {block}, freed by another thread";
    twice_after_work_on_the_neighbours: Dies(TWICE),
        "double free: {blame}: a block of 100 bytes at {block}, freed by this thread";
    twice_large: Dies(TWICE),
        "double free: {blame}: a block of 100000 bytes at {block}, freed by this thread";
    twice_huge: Dies(TWICE),
        "double free: {blame}: a block of 209715200 bytes at {block}, freed by this thread";
    free_inside: Dies(INSIDE),
        "free of an address that is not the start of a block: {blame}: 16 bytes into a block of 100 bytes at {block}, live";
    free_inside_large: Dies(INSIDE),
        "free of an address that is not the start of a block: {blame}: 4096 bytes into a block of 100000 bytes at {block}, live";
    free_unaligned: Dies(INSIDE),
        "free of an address that is not the start of a block: {blame}: 1 byte into a block of 100 bytes at {block}, live";
    free_stack: Dies(FOREIGN),
        "free of an address this allocator does not own: {blame}: in [stack]";
    free_static: Dies(FOREIGN),
        "free of an address this allocator does not own: {blame}: in {program}";
    free_null_page: Dies(FOREIGN),
        "free of an address this allocator does not own: {blame}: not mapped";
    sized_delete: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 100 bytes at {block}, live, aligned to 16, given back as 1000 bytes";
    free_sized_wrongly: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 100 bytes at {block}, live, aligned to 16, given back as 200 bytes";
    free_aligned_wrongly: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 128 bytes at {block}, live, aligned to 64, given back as 128 bytes aligned to 256";
    sdallocx_aligned_wrongly: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 128 bytes at {block}, live, aligned to 64, given back as 128 bytes aligned to 256";
    nearly_sized: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 100 bytes at {block}, live, aligned to 16, given back as 112 bytes";
    nearly_aligned_sized: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 128 bytes at {block}, live, aligned to 64, given back as 121 bytes aligned to 64";
    nearly_usable: Unharmed,
        "free with a size or alignment that is not the block's: {blame}: a block of 100 bytes at {block}, live, aligned to 16, given back as 113 bytes";
    write_after_free: Unharmed,
        "write after free: {blame}: 0 bytes into a block of 100 bytes at {block}, freed by this thread";
    write_after_free_inside: Unharmed,
        "write after free: {blame}: 40 bytes into a block of 100 bytes at {block}, freed by this thread";
    write_after_free_large: Unharmed,
        "access to a block that is freed: {blame}: 50000 bytes into a block of 100000 bytes at {block}, freed by this thread";
    read_after_free_large: Broken,
        "access to a block that is freed: {blame}: 50000 bytes into a block of 100000 bytes at {block}, freed by this thread";
    one_past_the_end: Unharmed,
        "write past the end of a block: {blame}: 0 bytes past a block of 100 bytes at {block}, live";
    one_past_a_full_class: Broken,
        "write past the end of a block: {blame}: 0 bytes past a block of 128 bytes at {block}, live";
    sixty_past_the_end: Broken,
        "write past the end of a block: {blame}: 0 bytes past a block of 100 bytes at {block}, live";
    realloc_freed: Dies(NO_BLOCK),
        "realloc or malloc_usable_size of a block that is freed: {blame}: a block of 100 bytes at {block}, freed by this thread";
    realloc_inside: Dies(NO_BLOCK),
        "realloc or malloc_usable_size of an address that is not the start of a block: {blame}: 16 bytes into a block of 100 bytes at {block}, live";
    realloc_stack: Dies(NO_BLOCK),
        "realloc or malloc_usable_size of an address that is not the start of a block: {blame}: in [stack]";
}

/// The system may lay such a mapping into the same gibibyte as the heap or not; both say so.
#[test]
fn free_mapping() {
    ends("free_mapping", "", &Dies(FOREIGN));
    let output = run_with(program(), &["free_mapping"], "check=on");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.starts_with(&format!("spandrel: {}", FOREIGN.replace("{blame}", "0x"))),
        "{errors}"
    );
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

/// Written before the start is written past the end of the block before.
#[test]
fn before_the_start() {
    ends("before_the_start", "", &Broken);
    let output = run_with(program(), &["before_the_start"], "check=on");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("spandrel: write past the end of a block: 0x"), "{errors}");
    assert!(errors.contains(": 15 bytes past a block of 128 bytes at 0x"), "{errors}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

/// Where the closed page begins depends on the page's size.
#[test]
fn past_a_large_one() {
    ends("past_a_large_one", "", &Broken);
    let output = run_with(program(), &["past_a_large_one"], "check=on");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("spandrel: access past the end of a block: 0x"), "{errors}");
    assert!(errors.contains(" bytes past a block of 100000 bytes at 0x"), "{errors}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

/// Alone, the library does not learn the size: the C++ runtime keeps it to itself. Nor is it looked at out of checked mode.
#[test]
fn sized_delete_unseen() {
    let name = "sized_delete";
    expects(run_with(program(), &[name], "check=on"), "without the second library", &Unharmed);
    expects(run_sized(program(), &[name], ""), "unchecked", &Unharmed);
    expects(run_on(program(), &[name], Some(&sized())), "without the first library", &Unharmed);
}

/// The stack of a sized delete begins where it was called.
#[test]
fn sized_delete_with_stacks() {
    let output = run_sized(program(), &["sized_delete"], "check=stacks");
    let errors = String::from_utf8_lossy(&output.stderr);
    let (_, here) = errors.split_once("\n  here\n").expect("a stack of this call");
    assert!(here.contains("main at misuse.c:") && !here.contains("libspandrel"), "{errors}");
}

/// What C++ programs do to a block with a sized delete, as they do it.
#[test]
fn sized_delete_in_cxx() {
    let program = compile("cxx/sized_wrong.cc", "sized_wrong", &[]);
    for (name, words) in [
        ("base", "100 bytes at {block}, live, aligned to 16, given back as 4 bytes"),
        ("array", "68 bytes at {block}, live, aligned to 16, given back as 4 bytes"),
        ("plain", "4 bytes at {block}, live, aligned to 8, given back as 84 bytes"),
        ("allocator", "400 bytes at {block}, live, aligned to 16, given back as 404 bytes"),
        ("nothing", "1 byte at {block}, live, aligned to 8, given back as 2 bytes"),
        (
            "aligned",
            "192 bytes at {block}, live, aligned to 64, given back as 64 bytes aligned to 64",
        ),
        ("unaligned", "192 bytes at {block}, live, aligned to 64, given back as 192 bytes"),
        (
            "alignment",
            "256 bytes at {block}, live, aligned to 256, given back as 256 bytes aligned to 64",
        ),
    ] {
        let message = format!(
            "free with a size or alignment that is not the block's: {{block}}: a block of {words}"
        );
        let dies = Dies(Box::leak(message.into_boxed_str()));
        expects(run_sized(&program, &[name], "check=on"), name, &dies);
        expects(run_sized(&program, &[name], ""), name, &Unharmed);
        // Between closed pages, too.
        let output = run_sized(&program, &[name], "check=on,guard=1");
        let said = words.split_once("live").expect("a live block").1;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.lines().next().is_some_and(|line| line.ends_with(said)), "{name}: {errors}");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name}");
    }
}

/// What kills is the misuse: the same program without one ends well, whoever watches.
#[test]
fn nothing() {
    for options in ["", "check=on", "check=stacks", "guard=1", "check=on,guard=2"] {
        ends("nothing", options, &Unharmed);
    }
}

/// With stacks, the functions of all three calls are named, without the allocator's own.
#[test]
fn stacks_of_both_frees() {
    let output = run_with(program(), &["twice_by_two_threads"], "check=stacks");
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut parts: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in errors.lines().skip(1) {
        match parts.last_mut() {
            Some((_, lines)) if line.starts_with("    ") => lines.push(line.trim_start()),
            _ => parts.push((line, Vec::new())),
        }
    }
    let heads: Vec<_> = parts.iter().map(|(head, _)| *head).collect();
    assert_eq!(heads, ["  allocated", "  freed", "  here"], "{errors}");
    // binutils come with the compiler, and name what it has compiled with -g.
    for ((head, lines), function) in parts.iter().zip(["object", "frees", "main"]) {
        let mine = format!(" {}+0x", program().display());
        assert!(lines[0].starts_with("0x") && lines[0].contains(&mine), "{head}: {errors}");
        assert!(lines[1].starts_with(&format!("{function} at misuse.c:")), "{head}: {errors}");
    }
}

/// The functions of spandrel.h do at run time what the options do at the start.
#[test]
fn switched_by_the_program() {
    for (name, words) in [
        (
            "checked_by_the_program",
            "write after free: {blame}: 3 bytes into a block of 100 bytes at {block}, freed by this thread",
        ),
        (
            "guarded_by_the_program",
            "access to a block that is freed: {blame}: 3 bytes into a block of 100 bytes at {block}, freed by this thread",
        ),
    ] {
        let output = run_with(program(), &[name], "");
        let said = String::from_utf8_lossy(&output.stdout);
        let address =
            |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        let line =
            words.replace("{blame}", address("blame ")).replace("{block}", address("block "));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            errors.lines().next(),
            Some(format!("spandrel: {line}").as_str()),
            "{name}: {errors}"
        );
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name}");
    }
}

/// Every block behind closed pages of its own: what is touched past its end or after its free is caught in the act.
#[test]
fn guarded() {
    for (name, words) in [
        (
            "write_after_free",
            "access to a block that is freed: {blame}: 0 bytes into a block of 100 bytes at {block}, freed by this thread\n",
        ),
        (
            "twice_with_another_between",
            "double free: {blame}: a block of 100 bytes at {block}, freed by this thread\n",
        ),
        (
            "free_inside",
            "free of an address that is not the start of a block: {blame}: 16 bytes into a block of 100 bytes at {block}, live\n",
        ),
        (
            "realloc_freed",
            "realloc or malloc_usable_size of a block that is freed: {blame}: a block of 100 bytes at {block}, freed by this thread\n",
        ),
        (
            "nearly_sized",
            "free with a size or alignment that is not the block's: {blame}: a block of 100 bytes at {block}, live, aligned to 16, given back as 112 bytes\n",
        ),
        (
            "one_past_a_full_class",
            "access past the end of a block: {blame}: 0 bytes past a block of 128 bytes at {block}, live\n",
        ),
    ] {
        let output = run_with(program(), &[name], "guard=1");
        let said = String::from_utf8_lossy(&output.stdout);
        let address =
            |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        let line = format!("spandrel: {words}")
            .replace("{blame}", address("blame "))
            .replace("{block}", address("block "));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.starts_with(&line), "{name}: {errors}\nnot\n{line}");
        assert!(
            errors.contains("\n  allocated\n    0x") && errors.contains("\n  here\n"),
            "{errors}"
        );
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name}");
    }
}

/// About one block in so many, and others in every process.
#[test]
fn guarded_blocks_are_a_sample() {
    let program = compile("watch/sampled.c", "sampled", &[]);
    let samples: Vec<Vec<u8>> =
        (0..4).map(|_| run_with(&program, &[], "guard=100").stdout).collect();
    for sample in &samples {
        let guarded = sample.split(|&byte| byte == b'\n').count() - 1;
        assert!((150..=260).contains(&guarded), "{guarded} of 20000 at 1 in 100");
    }
    assert!((1..4).all(|i| samples[i] != samples[0]), "the same blocks in every process");
}
