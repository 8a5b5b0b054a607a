//! The command line of the thin binaries: one workload, once, and one line of result.
//!
//! ```text
//! w-spandrel same full  millis 100     calibrate, then run for about 100 ms
//! w-spandrel same empty rounds 5000    exactly 5000 rounds, for callgrind
//! ```
//!
//! prints `pairs=5000000 nanos=4400123`. It is parsed by hand: the workers stay as thin as a
//! program can be, so that nothing else in the process shapes the heap.

use std::{process::ExitCode, time::Duration};

use crate::workloads::{self, Workload};

const USAGE: &str = "usage: w-ALLOCATOR WORKLOAD (full|empty) (millis|rounds) NUMBER";

/// What one run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// alloc+free pairs.
    pub pairs: u64,
    /// The time they took.
    pub nanos: u64,
}

impl Outcome {
    /// Nanoseconds per pair.
    pub fn nanos_per_pair(self) -> f64 {
        self.nanos as f64 / self.pairs as f64
    }

    /// Reads the line that a worker prints.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.parse().ok();
        Some(Self { pairs: value("pairs=")?, nanos: value("nanos=")? })
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pairs={} nanos={}", self.pairs, self.nanos)
    }
}

/// The `main` of every worker.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(outcome) => {
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
    let workload = workloads::find(name).ok_or_else(|| format!("no workload `{name}`\n{USAGE}"))?;
    let work = match twin {
        "full" => workload.full,
        "empty" => workload.empty,
        _ => return Err(format!("`{twin}` is neither full nor empty\n{USAGE}")),
    };
    let number: u64 = number
        .parse()
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("`{number}` is not a positive number\n{USAGE}"))?;
    match unit {
        "rounds" => Ok(measure(workload, work, number)),
        "millis" => Ok(calibrated(workload, work, Duration::from_millis(number))),
        _ => Err(format!("`{unit}` is neither millis nor rounds\n{USAGE}")),
    }
}

fn measure(workload: &Workload, work: fn(u64) -> Duration, rounds: u64) -> Outcome {
    let elapsed = work(rounds);
    Outcome { pairs: rounds * workload.pairs_per_round, nanos: elapsed.as_nanos() as u64 }
}

/// Doubles the rounds until they last an eighth of `target`, then runs as many as fill it.
fn calibrated(workload: &Workload, work: fn(u64) -> Duration, target: Duration) -> Outcome {
    let mut rounds = 1;
    let elapsed = loop {
        let elapsed = work(rounds);
        if elapsed >= target / 8 {
            break elapsed;
        }
        rounds *= 2;
    };
    let scale = target.as_secs_f64() / elapsed.as_secs_f64();
    let rounds = (rounds as f64 * scale).ceil() as u64;
    measure(workload, work, rounds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_prints_what_it_parses() {
        let outcome = run(&["same", "full", "rounds", "3"]).unwrap();
        assert_eq!(outcome.pairs, 3000);
        assert_eq!(Outcome::parse(&outcome.to_string()), Some(outcome));
        assert!(run(&["lifo100", "empty", "millis", "1"]).unwrap().pairs > 0);
    }

    #[test]
    fn says_what_is_wrong() {
        for (arguments, expected) in [
            (&["same"][..], "usage"),
            (&["sam", "full", "rounds", "3"], "no workload `sam`"),
            (&["same", "half", "rounds", "3"], "`half` is neither"),
            (&["same", "full", "years", "3"], "`years` is neither"),
            (&["same", "full", "rounds", "0"], "`0` is not a positive"),
        ] {
            let message = run(arguments).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(Outcome::parse("nanos=1 pairs=2"), None);
    }
}
