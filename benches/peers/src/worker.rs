//! The command line of the thin binaries: one row, once, and one line of result.
//!
//! ```text
//! w-spandrel same/t1 full  millis 100     calibrate, then run for about 100 ms
//! w-spandrel same/t1 empty amount 5000    exactly 5000 rounds, for callgrind
//! w-spandrel tree/t2 full  amount 10000000
//! ```
//!
//! prints `outcome ops=5000000 cpu=4400123 ...`, after lines that some workloads and some
//! allocators have to add. It is parsed by hand: the workers stay as thin as a program can be, so
//! that nothing else in the process shapes the heap.

use std::{process::ExitCode, time::Duration};

use crate::{
    meter::{Resident, Spent},
    record::record,
    workloads::{Row, Work},
};

const USAGE: &str = "usage: w-ALLOCATOR ROW (full|empty) (millis|amount) NUMBER";

record! {
    /// What one run did and cost.
    "outcome" Outcome {
        /// Operations.
        ops,
        /// Nanoseconds of all threads on the cores.
        cpu,
        /// Nanoseconds of the day.
        wall,
        /// Minor page faults.
        faults,
        /// KiB that were resident at most, from the program's start.
        peak,
        /// KiB that are resident after everything was freed.
        after,
    }
}

impl Outcome {
    fn new(spent: Spent, resident: Resident) -> Self {
        Self {
            ops: spent.ops,
            cpu: spent.cpu.as_nanos() as u64,
            wall: spent.wall.as_nanos() as u64,
            faults: spent.faults,
            peak: resident.peak,
            after: resident.now,
        }
    }
}

/// The `main` of every worker. `report` prints what its allocator has to add.
pub fn main(report: fn()) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(outcome) => {
            report();
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Result<Outcome, String> {
    let &[name, twin, unit, number] = arguments else {
        return Err(USAGE.into());
    };
    let row = Row::find(name).ok_or_else(|| format!("no row `{name}`\n{USAGE}"))?;
    let number: u64 = number
        .parse()
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("`{number}` is not a positive number\n{USAGE}"))?;
    let no_twin = format!("`{name}` has no empty twin\n{USAGE}");
    let work: &dyn Fn(u64) -> Option<Spent> = match twin {
        "full" => &|amount| Some(row.run(amount)),
        "empty" => &|amount| row.run_empty(amount),
        _ => return Err(format!("`{twin}` is neither full nor empty\n{USAGE}")),
    };
    let spent = match unit {
        "amount" => work(number).ok_or(no_twin)?,
        "millis" if matches!(row.workload.work, Work::Loop { .. }) => {
            calibrated(&|n| work(n).unwrap_or_default(), Duration::from_millis(number))
        }
        "millis" => {
            return Err(format!("`{name}` has an amount, and no length in millis\n{USAGE}"));
        }
        _ => return Err(format!("`{unit}` is neither millis nor amount\n{USAGE}")),
    };
    Ok(Outcome::new(spent, Resident::read()))
}

/// Doubles the rounds until they last an eighth of `target`, over all threads, then runs as many
/// as fill it.
fn calibrated(work: &dyn Fn(u64) -> Spent, target: Duration) -> Spent {
    let mut rounds = 1;
    let elapsed = loop {
        let elapsed = work(rounds).cpu;
        if elapsed >= target / 8 {
            break elapsed;
        }
        rounds *= 2;
    };
    let scale = target.as_secs_f64() / elapsed.as_secs_f64();
    work((rounds as f64 * scale).ceil().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_prints_what_it_parses() {
        let outcome = run(&["same", "full", "amount", "3"]).unwrap();
        assert_eq!(outcome.ops, 3000);
        assert_eq!(Outcome::parse(&outcome.to_string()), Some(outcome));
        assert!(run(&["lifo100/t2", "empty", "millis", "1"]).unwrap().ops > 0);
    }

    #[test]
    fn says_what_is_wrong() {
        for (arguments, expected) in [
            (&["same"][..], "usage"),
            (&["sam", "full", "amount", "3"], "no row `sam`"),
            (&["same", "half", "amount", "3"], "`half` is neither"),
            (&["same", "full", "years", "3"], "`years` is neither"),
            (&["same", "full", "amount", "0"], "`0` is not a positive"),
        ] {
            let message = run(arguments).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
    #[cfg(feature = "jobs")]
    #[test]
    fn jobs_have_an_amount_and_no_twin() {
        let outcome = run(&["tree/t2", "full", "amount", "100"]).unwrap();
        assert!(outcome.ops == 100 && outcome.peak >= outcome.after);
        let wrong = |twin, unit| run(&["tree", twin, unit, "1"]).unwrap_err();
        assert!(wrong("empty", "amount").contains("`tree` has no empty twin"));
        assert!(wrong("full", "millis").contains("`tree` has an amount"));
    }
}
