//! `spandrel`: any program, unchanged, on the Spandrel allocator.
//!
//! `run` preloads the library and becomes the program. `compare` runs a program on Spandrel and on every
//! other allocator it finds, taking turns, and reports what each cost. `doctor` says what this machine
//! gives an allocator. `trace` shows, replays and simulates what `run --trace` recorded, `map` draws what
//! `run --map` saw. The library travels inside the command (see [`library`]), so no path is set by
//! hand.
//!
//! Exit codes: the program's own, or 128 plus the signal that ended it; 127 when there is no such
//! program; 126 when it cannot be run on a preloaded library; 125 when the command itself fails; 2 for
//! wrong usage.

mod allocators;
mod compare;
mod doctor;
mod elf;
mod library;
mod map;
mod measure;
mod names;
mod options;
mod program;
mod run;
mod trace;
mod written;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs any dynamically linked program on the Spandrel memory allocator.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Arguments),
    Compare(compare::Arguments),
    Doctor(doctor::Arguments),
    Trace(trace::Arguments),
    Map(map::Arguments),
}

/// Why the command ends with a code of its own, and what it says before it does.
#[derive(Debug)]
struct Refusal {
    /// The exit code.
    code: u8,
    message: String,
}

/// There is no such program.
const NOT_FOUND: u8 = 127;
/// The program is there and cannot be run on a preloaded library.
const CANNOT_RUN: u8 = 126;
/// The command itself failed.
const FAILED: u8 = 125;
/// Wrong usage, as clap ends it too.
const USAGE: u8 = 2;

impl Refusal {
    fn new(code: u8, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

fn main() -> ExitCode {
    // The child side of `compare` stays small, so it leaves before anything else is set up.
    if let Some(code) = measure::helper() {
        return code;
    }
    if let Some(code) = library::probe() {
        return code;
    }
    if let Some(code) = trace::worker() {
        return code;
    }
    let outcome = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(&arguments).map(|never| match never {}),
        Verb::Compare(arguments) => compare::compare(&arguments),
        Verb::Doctor(arguments) => doctor::doctor(&arguments),
        Verb::Trace(arguments) => trace::trace(&arguments),
        Verb::Map(arguments) => map::map(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("spandrel: {error:#}");
        let code = error.downcast_ref::<Refusal>().map_or(FAILED, |refusal| refusal.code);
        ExitCode::from(code)
    })
}
