//! Builds one worker per allocator, runs them side by side, and reports.
//!
//! Times are taken in rounds, every allocator once per round, so that a machine that slows down
//! slows down everybody. Instructions are counted by callgrind at two lengths of the same loop: the
//! difference holds neither start-up nor warm-up, and the empty twin's count is subtracted from it.
//! Instructions are exact and may be checked (`--check`); times are reported and never fail a run.

mod allocators;
mod cli;
mod count;
mod output;
mod profile;
mod stats;
mod table;
mod time;
mod workers;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cli::{Arguments, Plan};
use output::Report;

fn main() -> ExitCode {
    run(&Arguments::parse().plan()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(plan: &Plan) -> Result<ExitCode> {
    plan.check_tools()?;
    let built = workers::build(plan)?;
    let mut report = Report::new(plan);
    if plan.times {
        report.times = time::measure(plan, &built)?;
        table::print_times(plan, &report.times);
    }
    if plan.instructions {
        report.instructions = count::count(plan, &built)?;
        table::print_instructions(plan, &report.instructions);
    }
    report.write(plan)?;
    if plan.check {
        let verdict = count::check(&report.instructions);
        print!("{verdict}");
        if !verdict.passed() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
