//! Builds one worker per allocator, runs them side by side, and reports.
//!
//! Times are taken in rounds, every allocator once per round, so that a machine that slows down
//! slows down everybody. Instructions are counted by callgrind at two lengths of the same loop: the
//! difference holds neither start-up nor warm-up, and the empty twin's count is subtracted from it.
//! Instructions are exact and may be checked (`--check`); times are reported and never fail a run.

mod allocators;
mod analysis;
mod charts;
mod cli;
mod count;
mod markdown;
mod profile;
mod results;
mod sample;
mod stats;
mod table;
mod time;
mod warm;
mod workers;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cli::{Arguments, Plan};
use results::Results;

fn main() -> ExitCode {
    run(&Arguments::parse().plan()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(plan: &Plan) -> Result<ExitCode> {
    if plan.render {
        report(plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    plan.check_tools()?;
    let built = workers::build(plan)?;
    if plan.times {
        time::measure(plan, &built)?;
        report(plan)?;
    }
    if plan.instructions {
        let counted = count::count(plan, &built)?;
        table::print_instructions(plan, &counted);
        results::write_counted(&plan.out, &counted)?;
        if !plan.check {
            // Beside the samples of a former run, if there are any.
            draw(plan, &Results::read(&plan.out)?)?;
        }
        if plan.check {
            let verdict = count::check(&counted);
            print!("{verdict}");
            if !verdict.passed() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tables, files and charts of what lies in the directory of the results.
fn report(plan: &Plan) -> Result<()> {
    let results = Results::read(&plan.out)?;
    table::print_results(&results);
    draw(plan, &results)
}

fn draw(plan: &Plan, results: &Results) -> Result<()> {
    let charts = charts::draw(&plan.out, results)?;
    markdown::write(&plan.out, results, &charts)?;
    println!("\nfigures and charts: {}", plan.out.display());
    Ok(())
}
