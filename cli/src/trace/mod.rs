//! `spandrel trace`: what `spandrel run --trace` recorded, printed, searched, drawn, replayed, simulated.

mod double;
pub mod file;
#[allow(dead_code, reason = "the recorder's file, of which this command reads more than it writes")]
#[path = "../../../src/watch/trace/format.rs"]
mod format;
mod plots;
mod print;
mod replay;
mod simulate;
mod workload;

use crate::{Refusal, USAGE};
use anyhow::Result;
use file::Trace;
use std::path::PathBuf;
use std::process::ExitCode;

pub use replay::worker;

/// Print what `spandrel run --trace FILE` recorded, find errors in it, draw it, or run it again.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The trace.
    #[arg(required = true, value_name = "FILE")]
    file: Option<PathBuf>,
    // Without a place for it clap takes a second file for a subcommand.
    #[arg(hide = true)]
    more: Vec<PathBuf>,
    /// Say only how many calls of which kind there were.
    #[arg(long)]
    summary: bool,
    /// Find blocks that were freed twice, with all three calls. The exit code is 1 when there are any.
    #[arg(long)]
    find_double_free: bool,
    /// Draw sizes, lifetimes and live bytes over time.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Verb {
    Replay(replay::Arguments),
    Simulate(simulate::Arguments),
}

/// Does what is asked for.
pub fn trace(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.verb {
        Some(Verb::Replay(arguments)) => return replay::replay(arguments),
        Some(Verb::Simulate(arguments)) => return simulate::simulate(arguments),
        None => {}
    }
    let Some(path) = &arguments.file else {
        return Err(Refusal::new(USAGE, "no trace is named").into());
    };
    if let Some(more) = arguments.more.first() {
        let message = format!("{}: one trace at a time, and one is named before", more.display());
        return Err(Refusal::new(USAGE, message).into());
    }
    let trace = Trace::open(path)?;
    if trace.lost > 0 {
        eprintln!(
            "spandrel: note: {} calls could not be recorded: the file could not grow",
            trace.lost
        );
    }
    let mut code = ExitCode::SUCCESS;
    let out = &mut std::io::BufWriter::new(std::io::stdout().lock());
    if let Some(svg) = &arguments.svg {
        plots::draw(&trace, svg)?;
    }
    if arguments.summary {
        print::summary(&trace, out)?;
    }
    if arguments.find_double_free {
        let found = double::find(&trace);
        double::report(&trace, &found, out)?;
        if !found.is_empty() {
            code = ExitCode::FAILURE;
        }
    }
    if !(arguments.summary || arguments.find_double_free || arguments.svg.is_some()) {
        print::all(&trace, out)?;
    }
    Ok(code)
}
