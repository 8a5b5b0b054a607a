//! Builds one worker per allocator, runs every program on each in a process of its own, and holds the
//! figures against the bars.
//!
//! ```text
//! cargo run --release -p memory                               # Spandrel and the system allocator
//! cargo run --release -p memory -- --peers                    # and four other crates (C, C++, cmake), tcmalloc
//! cargo run --release -p memory -- --only series --peers --chart rss.svg
//! ```

mod chart;
mod group;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, builder::PossibleValuesParser};
use comfy_table::{CellAlignment, Table};
use group::Group;
use memory::programs::{PROGRAMS, Program};
use run::{ALLOCATORS, Allocator, Outcome};

/// What programs leave resident, on Spandrel and beside it on other allocators.
#[derive(Debug, Parser)]
#[command(version, after_help = help())]
struct Arguments {
    /// Programs to run; all but the chart's if none is named
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = PossibleValuesParser::new(PROGRAMS.iter().map(|p| p.name)))]
    only: Vec<String>,

    /// The mimalloc, tikv-jemallocator, snmalloc-rs and rpmalloc crates as well, and tcmalloc if it is installed
    #[arg(long)]
    peers: bool,

    /// These columns only, by the names they have in the table
    #[arg(long, value_name = "COLUMN", num_args = 1.., value_parser = PossibleValuesParser::new(ALLOCATORS.iter().map(|a| a.name)))]
    columns: Vec<String>,

    /// Spandrel with hugepages never asked for, and always, as well
    #[arg(long)]
    hugepages: bool,

    /// Processes at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,

    /// Measure only Spandrel with its background thread, in both doors, and fail if it misses a bar, or keeps
    /// to that of `drift`, which it is known to miss
    #[arg(long, conflicts_with_all = ["columns", "peers", "hugepages"])]
    check: bool,

    /// Write all figures to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the chart of RSS over time to FILE as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

fn help() -> String {
    let lines = PROGRAMS.iter().map(|p| format!("  {:<14}{} [{}]\n", p.name, p.about, p.bar));
    format!("Programs:\n{}", lines.collect::<String>())
}

fn main() -> ExitCode {
    match report(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: a bar was missed that `--check` holds Spandrel to, or the one kept that it is known to miss.
fn report(arguments: &Arguments) -> Result<bool> {
    let wanted = |program: &&Program| match arguments.only.is_empty() {
        true => program.name != "series" || arguments.chart.is_some(),
        false => arguments.only.iter().any(|name| name == program.name),
    };
    let mut programs: Vec<&Program> = PROGRAMS.iter().filter(wanted).collect();
    if programs.iter().any(|p| p.group.is_some())
        && let Err(error) = Group::make(1 << 30)
    {
        for left_out in programs.extract_if(.., |p| p.group.is_some()) {
            eprintln!("no row {}: {error:#}", left_out.name);
        }
    }
    let asked_for = |a: &&Allocator| match arguments.columns.is_empty() {
        false => arguments.columns.iter().any(|name| name == a.name),
        true => {
            (arguments.peers || !a.peer)
                && (arguments.hugepages || !a.hugepages)
                && (!arguments.check || run::HELD.contains(&a.name))
        }
    };
    let (missing, allocators): (Vec<&Allocator>, _) =
        ALLOCATORS.iter().filter(asked_for).partition(|a| a.missing().is_some());
    for (allocator, library) in missing.iter().filter_map(|a| Some((a.name, a.missing()?))) {
        eprintln!("no column {allocator}: {library} is not installed");
    }
    run::build(&allocators)?;
    let outcomes = run::all(&programs, &allocators, usize::from(arguments.at_once))?;
    println!("{}", table(&programs, &allocators, &outcomes));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&outcomes)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.chart {
        chart::write(path, &outcomes)?;
    }
    let news: Vec<_> = outcomes.iter().filter_map(|o| Some((o, o.news()?))).collect();
    for (outcome, what) in news.iter().filter(|_| arguments.check) {
        println!("{} {what} {}: {outcome:?}", outcome.allocator, outcome.program);
    }
    Ok(!arguments.check || news.is_empty())
}

/// A row a program, a column an allocator; what keeps to the bar is marked.
fn table(programs: &[&Program], allocators: &[&Allocator], outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    let names = allocators.iter().map(|a| a.name);
    table.set_header(["MB", "bar"].into_iter().chain(names));
    for program in programs {
        let cells = allocators.iter().map(|allocator| {
            let found = outcomes
                .iter()
                .find(|o| o.program == program.name && o.allocator == allocator.name);
            found.map_or_else(String::new, |outcome| outcome.cell(program))
        });
        let head = [program.name.to_owned(), program.bar.to_owned()];
        table.add_row(head.into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
