//! `spandrel trace replay`: the recorded calls again, on Spandrel and on every other allocator found.

mod calls;
mod plan;
mod worker;

use super::file::Trace;
use super::simulate::{Cost, Outcome};
use super::workload::Workload;
use crate::allocators;
use crate::compare::{MOST_ROUNDS, Spread, ratios};
use crate::options;
use crate::written::{bytes, quietly, seconds};
use crate::{FAILED, Refusal, run};
use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use worker::Mode;
pub use worker::worker;

/// Replay the trace on Spandrel, on the system's malloc and on every other allocator found, taking turns,
/// and report time, memory and fragmentation.
///
/// Every recorded thread is a thread that makes its calls in their order, as fast as it can, and waits
/// where it takes over a block from another. A byte of every page of a block is written. Time is that of
/// the whole; memory is what the process holds beyond what it held before, at its peak; fragmentation is
/// that over the most bytes alive at a time in the trace. The options of the environment variable SPANDREL
/// (see `spandrel run --help`) hold for the replays on Spandrel.
#[derive(clap::Args)]
pub struct Arguments {
    /// The trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How often the trace is replayed on each allocator for time.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=MOST_ROUNDS))]
    runs: u32,
    /// One more allocator: its library, and a name for it.
    #[arg(long, value_name = "NAME=PATH")]
    with: Vec<String>,
    /// Only these allocators beside Spandrel, divided by commas: `system`, or a name that is installed. What
    /// --with names is there in any case.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Print the figures as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Use this library instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

/// One allocator's figures.
#[derive(Serialize)]
struct Row {
    name: String,
    /// Seconds for all of the trace.
    wall_s: Spread,
    /// Over Spandrel's of the same round.
    ratio: Spread,
    /// The most memory held, beyond what the process held before.
    peak_rss_bytes: f64,
    /// That, over the most bytes alive at a time.
    fragmentation: f64,
    /// Requests that were refused.
    failed: f64,
}

/// Replays a plan once and answers the numbers the worker printed.
fn once(
    plan: &Path,
    mode: Mode,
    library: Option<&Path>,
    options: Option<&OsStr>,
) -> Result<Vec<f64>> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(worker::WORKER).arg(mode.name()).arg(plan);
    command.env_remove("SPANDREL");
    if let Some(library) = library {
        command.env("LD_PRELOAD", run::preload([library]));
    }
    if let Some(options) = options {
        command.env("SPANDREL", options);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> =
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
    if !output.status.success() || numbers.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("the replay ended with {}: {}", output.status, said.trim());
        return Err(Refusal::new(FAILED, message).into());
    }
    Ok(numbers)
}

fn plan(load: &Workload, serial: bool) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    plan::write(load, serial, file.as_file())?;
    Ok(file)
}

/// Spandrel, really serving what the strategies simulate: in one thread, every call timed.
pub fn beside(load: &Workload, library: &Path) -> Result<Outcome> {
    let plan = plan(load, true)?;
    let counts = tempfile::NamedTempFile::new()?;
    // A path without a comma, as temporary files have.
    let options = format!("stats={}", counts.path().display());
    let numbers = once(plan.path(), Mode::Calls, Some(library), Some(options.as_ref()))
        .context("spandrel")?;
    let &[peak_live, footprint, internal, external, allocs, alloc_nanos, frees, free_nanos] =
        &numbers[..]
    else {
        anyhow::bail!("the replay reported {numbers:?}");
    };
    let floors = Floors::of(&std::fs::read_to_string(counts.path())?)?;
    Ok(Outcome {
        name: "spandrel",
        served: load.ops.len(),
        peak_live: peak_live as u64,
        footprint: footprint as u64,
        internal: internal as u64,
        external: external as u64,
        alloc: Cost {
            calls: allocs as u64,
            steps: allocs + floors.down,
            most: None,
            nanos: alloc_nanos,
        },
        free: Cost { calls: frees as u64, steps: frees + floors.up, most: None, nanos: free_nanos },
    })
}

/// How often calls went below the thread's cache, a floor at a time.
#[derive(Debug, PartialEq)]
struct Floors {
    /// Refills, batches that had to come from spans, spans that had to begin.
    down: f64,
    /// Spills, batches that had to go to spans, spans that ended.
    up: f64,
}

impl Floors {
    /// From the text of `SPANDREL=stats`.
    fn of(text: &str) -> Result<Floors> {
        // The number before a word, in the line that begins with another.
        let count = |line: &str, word: &str| -> Result<f64> {
            let row = text.lines().find(|row| row.trim_start().starts_with(line));
            let words: Vec<&str> =
                row.unwrap_or_default().split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|&other| other == word);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok())
                .with_context(|| format!("the statistics do not say how many {word} there were"))
        };
        Ok(Floors {
            down: count("caches ", "refills")?
                + count("transfer ", "misses")?
                + count("spans ", "begun")?,
            up: count("caches ", "spills")?
                + count("transfer ", "refusals")?
                + count("spans ", "ended")?,
        })
    }
}

/// Replays and reports.
pub fn replay(arguments: &Arguments) -> Result<ExitCode> {
    let trace = Trace::open(&arguments.file)?;
    let load = Workload::of(&trace)?;
    let lineup =
        allocators::line_up(arguments.library.as_deref(), &arguments.with, &arguments.only)?;
    options::InForce::said();
    let variable = options::variable();
    let plan = plan(&load, false)?;
    let mut walls = vec![Vec::new(); lineup.len()];
    let mut memory = Vec::new();
    let progress = ProgressBar::new(u64::from(arguments.runs + 1) * lineup.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}")?);
    let play = |mode, index: usize| {
        let allocator = &lineup[index];
        progress.set_message(allocator.name.clone());
        // The first is Spandrel.
        let options = variable.as_deref().filter(|_| index == 0);
        let numbers = once(plan.path(), mode, allocator.library.as_deref(), options)
            .with_context(|| allocator.name.clone());
        progress.inc(1);
        numbers
    };
    for index in 0..lineup.len() {
        memory.push(play(Mode::Memory, index)?);
    }
    for round in 0..arguments.runs as usize {
        for turn in 0..lineup.len() {
            // Another allocator begins each round, so none always runs behind the same neighbour.
            let index = (turn + round) % lineup.len();
            walls[index].push(play(Mode::Time, index)?[0] / 1e9);
        }
    }
    progress.finish_and_clear();
    let ours = walls[0].clone();
    let rows = lineup.iter().zip(&walls).zip(&memory).map(|((allocator, walls), memory)| Row {
        name: allocator.name.clone(),
        wall_s: Spread::of(walls.iter().copied()),
        ratio: Spread::of(ratios(walls.iter().copied(), ours.iter().copied()).collect::<Vec<_>>()),
        peak_rss_bytes: memory[1],
        fragmentation: memory[1] / (load.peak_live.max(1)) as f64,
        failed: memory.get(2).copied().unwrap_or_default(),
    });
    let rows: Vec<Row> = rows.collect();
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        quietly(writeln!(stdout, "{}", serde_json::to_string_pretty(&rows)?))?;
    } else {
        quietly(writeln!(stdout, "{}", table(&rows, &load, arguments.runs)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row], load: &Workload, runs: u32) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", "time", "x", "peak RSS", "over live"]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut failed = String::new();
    for row in rows {
        table.add_row([
            Cell::new(&row.name),
            right(format!("{} ±{:.0}%", seconds(row.wall_s.median), 100.0 * row.wall_s.relative())),
            right(format!("{:.2}", row.ratio.median)),
            right(bytes(row.peak_rss_bytes)),
            right(format!("{:.2}", row.fragmentation)),
        ]);
        if row.failed > 0.0 {
            failed.push_str(&format!("\n{} refused {} requests", row.name, row.failed));
        }
    }
    let threads =
        if load.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", load.threads) };
    let note = load.note().map(|note| format!("\n{note}")).unwrap_or_default();
    format!(
        "{table}\n{} operations of {threads} on {} blocks, at most {} alive at a time; medians of {runs}; x: over \
         spandrel's{failed}{note}",
        load.ops.len(),
        load.blocks,
        bytes(load.peak_live as f64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_counted_from_the_statistics() {
        let text = "spandrel: 1 x\nfloors\n  caches        2 (0 idle), 65 refills of 3.1 objects, 7 spills of 2.0, 1 sweeps\n  \
                    transfer      50 hits, 15 misses, 3 refusals, 0 retries\n  spans         9 begun, 2 ended, 0 last resorts, 0 retries\n";
        assert_eq!(Floors::of(text).unwrap(), Floors { down: 89.0, up: 12.0 });
        assert_eq!(
            Floors::of("").unwrap_err().to_string(),
            "the statistics do not say how many refills there were"
        );
    }
}
