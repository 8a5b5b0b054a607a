//! Differential fuzzing: operations decoded from bytes, done on the allocator and on a shadow of it.
//!
//! The shadow knows which bytes are held and what was written there, so it sees an overlap, a wrong
//! alignment, a byte that changed or is not zero, a size that is less than was asked for. Two *doors*
//! ([`rust_door`], [`c_door`]) are the allocator as programs call it, on the real system; four *floors*
//! ([`caches`], [`transfer`], [`spans`], [`pages`]) are each a building of its own on a system that fails
//! when the bytes say so ([`system::System`]). On half of the doors' cases observed modes are switched on, off
//! and read in between. At the end of every case everything is given back, the
//! books of all floors must balance, and what was refused before must be served again.
//!
//! A case with one thread is a function of its bytes alone (the doors', of those and of what the process
//! did before). One with more is that up to how they interleave.

pub mod deadline;
pub mod doors;
pub mod floors;
#[path = "../../cli/src/map/file.rs"]
#[allow(dead_code, missing_docs)]
mod map_file;
#[path = "../../cli/src/names.rs"]
#[allow(dead_code, missing_docs)]
mod names;
mod options;
mod readers;
pub mod shadow;
pub mod size;
pub mod system;
#[allow(dead_code, missing_docs)]
mod trace;
mod watching;

pub use options::options;
pub use readers::readers;

/// Prints a step before it is done, when `FUZZ_TRACE` is set.
fn trace_step(step: &dyn std::fmt::Debug) {
    static WANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("FUZZ_TRACE").is_some()) {
        println!("{:?}: {step:?}", std::thread::current().id());
    }
}

/// Bytes in, nothing out; panics when the allocator is wrong.
pub type Target = fn(&[u8]);

/// All of them by name. The doors share one process-wide allocator, so one case of theirs runs at a time.
pub const TARGETS: [(&str, Target); 8] = [
    ("rust_door", rust_door),
    ("c_door", c_door),
    ("caches", caches),
    ("transfer", transfer),
    ("spans", spans),
    ("pages", pages),
    ("options", options),
    ("readers", readers),
];

/// `GlobalAlloc` as Rust programs call it.
pub fn rust_door(data: &[u8]) {
    doors::run(&doors::Rust, data);
}

/// The functions of malloc's family.
pub fn c_door(data: &[u8]) {
    doors::run(&doors::C, data);
}

/// The whole building, on a system that fails.
pub fn caches(data: &[u8]) {
    floors::run(floors::Entry::Caches, data);
}

/// From the transfer cache down.
pub fn transfer(data: &[u8]) {
    floors::run(floors::Entry::Transfer, data);
}

/// From the spans down.
pub fn spans(data: &[u8]) {
    floors::run(floors::Entry::Spans, data);
}

/// The page heap alone: runs of granules and large blocks.
pub fn pages(data: &[u8]) {
    floors::run(floors::Entry::Pages, data);
}
