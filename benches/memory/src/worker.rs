//! The command line of the thin binaries: one program, one way to be idle, one line of result.
//!
//! ```text
//! m-spandrel free-64 sleep      prints `peak=269000704 left=3100672 live=0 growth=0 nanos=0`
//! ```
//!
//! Parsed by hand: the workers stay as thin as a program can be, so that nothing else in the process
//! shapes the heap.

use crate::programs::{self, Idle};
use std::process::ExitCode;

/// What a program held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes resident when it held most.
    pub peak: usize,
    /// Bytes resident at the end.
    pub left: usize,
    /// Bytes it still held itself then, or at its peak.
    pub live: usize,
    /// Bytes resident at the end more than before.
    pub growth: usize,
    /// How long its work took, where that is the point.
    pub nanos: usize,
}

impl Figures {
    /// Reads the line that a worker prints.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.parse().ok();
        Some(Self {
            peak: value("peak=")?,
            left: value("left=")?,
            live: value("live=")?,
            growth: value("growth=")?,
            nanos: value("nanos=")?,
        })
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { peak, left, live, growth, nanos } = self;
        write!(f, "peak={peak} left={left} live={live} growth={growth} nanos={nanos}")
    }
}

/// The `main` of every worker.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, idle) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let idle = match idle.as_str() {
        "sleep" => Idle::Sleep,
        "trickle" => Idle::Trickle,
        _ => return usage(),
    };
    let Some(program) = programs::find(&name) else { return usage() };
    println!("{}", (program.run)(idle));
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: m-ALLOCATOR PROGRAM (sleep|trickle)");
    for program in programs::PROGRAMS {
        eprintln!("  {:<16}{}", program.name, program.about);
    }
    ExitCode::from(2)
}
