//! Instructions per pair, under callgrind.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use peers::workloads::{self, Workload};
use serde::Serialize;

use crate::{
    allocators::{SPANDREL, SYSTEM},
    cli::Plan,
    profile::Profile,
    time,
    workers::{self, Length, Twin, Workers},
};

/// Pairs in the short run; the long run has twice as many more. Enough for the thread caches to
/// have settled.
const PAIRS: u64 = 100_000;

/// One line of the tables: a workload under a profile.
#[derive(Debug, Serialize)]
pub struct Instructions {
    /// The build.
    pub profile: Profile,
    /// The workload's name.
    pub workload: &'static str,
    /// The harness alone, per pair.
    pub harness: f64,
    /// Every allocator of the plan, per pair, harness subtracted.
    pub allocators: Vec<(&'static str, Count)>,
    /// What Spandrel may take.
    pub bar: Option<f64>,
}

/// What became of a count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Count {
    /// Instructions per pair.
    Counted(f64),
    /// The program does not live under valgrind.
    Dies,
}

impl Instructions {
    fn ours(&self) -> Option<Count> {
        let mut counts = self.allocators.iter();
        counts.find(|(n, _)| *n == SPANDREL.name).map(|(_, c)| *c)
    }
}

/// Counts everything the plan names that can be counted.
pub fn count(plan: &Plan, workers: &Workers) -> Result<Vec<Instructions>> {
    let workloads: Vec<&Workload> =
        plan.workloads.iter().copied().filter(|w| w.countable).collect();
    let steps = plan.profiles.len() * workloads.len() * (plan.allocators.len() + 1);
    let bar = time::bar(steps, "counting");
    let mut counted = Vec::new();
    for &profile in &plan.profiles {
        for workload in &workloads {
            bar.set_message(format!("harness {}", workload.name));
            let harness = per_pair(workers.path(profile, &SYSTEM), workload, Twin::Empty)?
                .context("the empty harness dies under valgrind")?;
            bar.inc(1);
            let mut allocators = Vec::new();
            for allocator in &plan.allocators {
                bar.set_message(format!("{} {}", allocator.name, workload.name));
                let count = per_pair(workers.path(profile, allocator), workload, Twin::Full)?;
                let count = count.map_or(Count::Dies, |all| Count::Counted(all - harness));
                allocators.push((allocator.name, count));
                bar.inc(1);
            }
            counted.push(Instructions {
                profile,
                workload: workload.name,
                harness,
                allocators,
                bar: (profile == Profile::Fat).then_some(workload.instruction_bar).flatten(),
            });
        }
    }
    bar.finish_and_clear();
    Ok(counted)
}

/// The difference of a short and a long run, per pair of the difference; none if the worker dies
/// under valgrind and lives without.
fn per_pair(path: &Path, workload: &Workload, twin: Twin) -> Result<Option<f64>> {
    let rounds = PAIRS.div_ceil(workload.pairs_per_round);
    let short = collect(path, workload, twin, rounds)?;
    let long = collect(path, workload, twin, 3 * rounds)?;
    let (Some(short), Some(long)) = (short, long) else {
        return Ok(None);
    };
    let pairs = 2 * rounds * workload.pairs_per_round;
    Ok(Some(long.abs_diff(short) as f64 / pairs as f64))
}

/// The instructions of one run, from start to exit.
fn collect(path: &Path, workload: &Workload, twin: Twin, rounds: u64) -> Result<Option<u64>> {
    let length = Length::Rounds(rounds);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(path)
        .args(workers::words(workload, twin, length));
    let output = valgrind.output().context("cannot start valgrind")?;
    if !output.status.success() {
        workers::run(path, workload, twin, length)?;
        return Ok(None);
    }
    let outcome = workers::parse(&output)?;
    ensure!(
        outcome.pairs == rounds * workload.pairs_per_round,
        "the worker ran {} pairs: {valgrind:?}",
        outcome.pairs
    );
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok());
    collected.map(Some).with_context(|| format!("callgrind names no total:\n{said}"))
}

/// How Spandrel stands against its bars.
pub struct Verdict(Vec<Line>);

struct Line {
    workload: &'static str,
    count: Count,
    bar: f64,
}

impl Line {
    fn passed(&self) -> bool {
        matches!(self.count, Count::Counted(n) if tenths(n) <= tenths(self.bar))
    }
}

/// As many digits as are the allocator's: a clock read or a page fault more in one run than in the
/// other shows further right.
fn tenths(instructions: f64) -> f64 {
    (instructions * 10.0).round()
}

/// Holds every count that has a bar against it.
pub fn check(counted: &[Instructions]) -> Verdict {
    let lines = counted
        .iter()
        .filter_map(|i| Some(Line { workload: i.workload, count: i.ours()?, bar: i.bar? }));
    Verdict(lines.collect())
}

impl Verdict {
    /// Whether something was checked, and nothing exceeded its bar.
    pub fn passed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Line::passed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            let word = if line.passed() { "ok  " } else { "FAIL" };
            let (name, bar) = (line.workload, line.bar);
            let about = workloads::find(name).map_or("", |w| w.about);
            match line.count {
                Count::Counted(n) => {
                    writeln!(f, "{word} {name}: {n:.1} of at most {bar} ({about})")
                }
                Count::Dies => writeln!(f, "{word} {name}: spandrel dies under valgrind"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(count: Count, bar: Option<f64>) -> Instructions {
        Instructions {
            profile: Profile::Fat,
            workload: "same",
            harness: 6.0,
            allocators: vec![("system", Count::Counted(1.0)), ("spandrel", count)],
            bar,
        }
    }

    #[test]
    fn the_check_goes_red() {
        let passed = |count, bar| check(&[counted(count, bar)]).passed();
        assert!(passed(Count::Counted(12.04), Some(12.0)));
        assert!(!passed(Count::Counted(12.1), Some(12.0)));
        assert!(!passed(Count::Dies, Some(12.0)));
        assert!(!passed(Count::Counted(1.0), None), "nothing was checked");
        assert!(!check(&[]).passed());
    }
}
