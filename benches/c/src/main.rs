//! The programs of `programs/`, each run by `spandrel compare`, against the best of jemalloc, mimalloc and
//! tcmalloc on each row.
//!
//! ```sh
//! cargo run --release -p c-programs                               # into target/
//! cargo run --release -p c-programs -- --out benches/c/results    # the figures that are kept
//! ```
//!
//! compiles them with the system's compilers, builds the command, prints a table, and writes a CSV file and
//! a chart. Figures over the best other: below 1 Spandrel wins.

mod chart;
mod rows;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use rows::{Measured, PEERS, ROWS, Row, geometric_mean};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs allocation-heavy C and C++ programs on Spandrel and on the allocators installed.
#[derive(Parser)]
struct Arguments {
    /// How often each program runs on each allocator.
    #[arg(short = 'n', long, default_value_t = 9)]
    runs: u32,
    /// Only these rows, divided by commas.
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    only: Vec<String>,
    /// Compile the programs and end.
    #[arg(long)]
    compile: bool,
    /// Where `c-programs.csv` and `c-programs.svg` are written; without it `c-programs/results` in the target
    /// directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use this libspandrel.so instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

/// One line of the CSV file: a program on an allocator. Medians; ratios are over Spandrel's.
#[derive(Serialize)]
struct Line<'a> {
    row: &'a str,
    allocator: &'a str,
    wall_s: f64,
    cpu_s: f64,
    peak_rss_bytes: f64,
    page_faults: f64,
    wall_ratio: f64,
    cpu_ratio: f64,
    peak_rss_ratio: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rows = chosen(&arguments.only)?;
    let target = target_directory();
    let programs = target.join("c-programs");
    compile(&programs)?;
    if arguments.compile {
        return Ok(());
    }
    // Before anything is measured: a directory that cannot be is told now.
    let out = out_directory(&arguments, &target);
    std::fs::create_dir_all(&out).with_context(|| format!("--out {}", out.display()))?;
    let command = build_command(&target)?;

    let progress = ProgressBar::new(rows.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}")?);
    let mut measured = Vec::new();
    for row in rows {
        progress.set_message(row.name);
        measured.push(measure(row, &command, &programs, &arguments)?);
        progress.inc(1);
    }
    progress.finish_and_clear();

    println!("{}", table(&measured));
    let mut csv = csv::Writer::from_path(out.join("c-programs.csv"))?;
    for row in &measured {
        for one in &row.report.allocators {
            csv.serialize(Line {
                row: row.name,
                allocator: &one.name,
                wall_s: one.wall_s.median,
                cpu_s: one.cpu_s.median,
                peak_rss_bytes: one.peak_rss_bytes.median,
                page_faults: one.page_faults.median,
                wall_ratio: one.wall_s.ratio.median,
                cpu_ratio: one.cpu_s.ratio.median,
                peak_rss_ratio: one.peak_rss_bytes.ratio.median,
            })?;
        }
    }
    csv.flush()?;
    std::fs::write(out.join("c-programs.svg"), chart::of(&measured, arguments.runs)?)?;
    println!("written to {}", out.display());
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>> {
    for name in only {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        ensure!(names.contains(&name.as_str()), "no row {name}; there are: {}", names.join(", "));
    }
    let wanted = |row: &&Row| only.is_empty() || only.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(wanted).collect())
}

/// Where this program lies is the profile's directory; the target directory is around it.
fn target_directory() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

/// What is kept in the repository is overwritten only by who names it: a run of one row is no result.
fn out_directory(arguments: &Arguments, target: &Path) -> PathBuf {
    arguments.out.clone().unwrap_or_else(|| target.join("c-programs/results"))
}

/// `programs/compile.sh`, which is of use alone, too.
fn compile(to: &Path) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/compile.sh");
    let status = Command::new(script).arg(to).status().with_context(|| script.to_owned())?;
    ensure!(status.success(), "{script} failed: {status}");
    Ok(())
}

/// Builds the command and says where it is.
fn build_command(target: &Path) -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "spandrel-cli", "--target-dir"])
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()?;
    ensure!(status.success(), "the command `spandrel` could not be built");
    Ok(target.join("release/spandrel"))
}

fn measure(
    row: &'static Row,
    command: &Path,
    programs: &Path,
    arguments: &Arguments,
) -> Result<Measured> {
    let mut compare = Command::new(command);
    compare.args(["compare", "--json", "-", "-n", &arguments.runs.to_string()]);
    if let Some(library) = &arguments.library {
        compare.arg("--library").arg(library);
    }
    compare.arg("--").arg(programs.join(row.program)).args(row.arguments);
    let output = compare.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "row {}: {}", row.name, output.status);
    let report: rows::Report = serde_json::from_slice(&output.stdout)?;
    if !report.allocators.iter().any(|one| PEERS.contains(&one.name.as_str())) {
        bail!(
            "none of {} is installed (on Debian: libjemalloc2, libmimalloc2.0, libtcmalloc-minimal4)",
            PEERS.join(", ")
        );
    }
    Ok(Measured { name: row.name, report })
}

/// Spandrel over the best other of each row, with the geometric means.
fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "over the best other",
        "time",
        "",
        "processor time",
        "",
        "peak RSS",
        "",
        "page faults",
    ]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut columns = [Vec::new(), Vec::new(), Vec::new()];
    for row in measured {
        let mut cells = vec![Cell::new(row.name)];
        for (column, figure) in columns.iter_mut().zip(rows::FIGURES) {
            let (best, ratio) = row.over_best(figure);
            column.push(ratio);
            cells.push(right(format!("{ratio:.2}")));
            cells.push(Cell::new(best));
        }
        let (best, ratio) = row.over_best(|one| &one.page_faults);
        cells.push(right(format!("{ratio:.2} {best}")));
        table.add_row(cells);
    }
    let mut cells = vec![Cell::new("geometric mean")];
    for column in &columns {
        cells.push(right(format!("{:.2}", geometric_mean(column))));
        cells.push(Cell::new(""));
    }
    table.add_row(cells);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_results_are_overwritten_only_when_named() {
        let out = |words: &[&str]| {
            let words = ["c-programs"].iter().chain(words);
            out_directory(&Arguments::parse_from(words), Path::new("/there/target"))
        };
        assert_eq!(out(&["--only", "json"]), Path::new("/there/target/c-programs/results"));
        assert_eq!(out(&["--out", "benches/c/results"]), Path::new("benches/c/results"));
    }
}
