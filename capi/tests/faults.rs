//! Misuse in C dies by name: SIGABRT, and exactly the line that says what was done to which address.

mod common;

use common::{compile, run};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::OnceLock;

const TWICE: &str = "double free";
const FOREIGN: &str = "free of an address this allocator does not own";
const INSIDE: &str = "free of an address that is not the start of a block";
const NO_BLOCK: &str =
    "realloc or malloc_usable_size of an address that is not the start of a block";

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("faults.c", "faults", &[]))
}

#[track_caller]
fn dies(name: &str, message: &str) {
    let output = run(program(), &[name], true);
    let said = String::from_utf8_lossy(&output.stdout);
    let address = said.lines().find_map(|line| line.strip_prefix("blame "));
    let expected = format!("spandrel: {message}: {}\n", address.unwrap_or("(no address)"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected, "{name}: {}", output.status);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name}: {}", output.status);
}

macro_rules! faults {
    ($($name:ident $message:ident)*) => {
        $(#[test] fn $name() { dies(stringify!($name), $message); })*
    };
}

faults! {
    twice_in_a_row TWICE
    twice_in_a_row_full TWICE
    twice_in_a_row_large TWICE
    twice_in_a_row_huge TWICE
    twice_by_realloc TWICE
    twice_with_a_trim TWICE
    stack FOREIGN
    static_data FOREIGN
    code FOREIGN
    foreign_mapping FOREIGN
    small_number FOREIGN
    not_canonical FOREIGN
    kernel FOREIGN
    interior INSIDE
    unaligned INSIDE
    interior_large INSIDE
    interior_large_granule INSIDE
    interior_huge INSIDE
    interior_huge_far INSIDE
    realloc_stack NO_BLOCK
    realloc_interior NO_BLOCK
    realloc_freed NO_BLOCK
    realloc_freed_large NO_BLOCK
    size_of_static NO_BLOCK
    size_of_interior NO_BLOCK
}

/// What kills is the fault: the same program without one ends well.
#[test]
fn the_innocent_live() {
    common::passes("preloaded", program(), &["none"], true);
}

/// Address space for a whole window and its shadow is not to be had: what a bin sees of a second free is
/// still seen.
#[test]
fn twice_in_a_row_where_address_space_is_short() {
    let script = "ulimit -v 1500000 && exec \"$0\" twice_in_a_row";
    let program = program().to_str().expect("a path in UTF-8");
    let output = run(std::path::Path::new("/bin/sh"), &["-c", script, program], true);
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("spandrel: double free: 0x"),
        "{output:?}"
    );
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}
