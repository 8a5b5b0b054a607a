//! Instructions per pair, under callgrind.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use peers::workloads::{Row, Work};
use serde::Serialize;

use crate::{
    allocators::{SPANDREL, SYSTEM},
    cli::Plan,
    profile::Profile,
    time,
    workers::{self, Length, Twin, Workers},
};

/// Pairs in the short run of a loop; the long run has twice as many more. Enough for the thread
/// caches to have settled.
const PAIRS: u64 = 100_000;

/// One line of the tables: a workload under a profile.
#[derive(Debug, Serialize)]
pub struct Instructions {
    /// The build.
    pub profile: Profile,
    /// The row's name.
    pub row: String,
    /// The harness alone, per operation, where there is one.
    pub harness: Option<f64>,
    /// Every allocator of the plan, per operation, harness subtracted where there is one.
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
    let rows: Vec<Row> = plan.rows.iter().copied().filter(|row| is_countable(*row)).collect();
    let steps = plan.profiles.len() * rows.len() * (plan.allocators.len() + 1);
    let bar = time::bar(steps, "counting");
    let mut counted = Vec::new();
    for &profile in &plan.profiles {
        for row in &rows {
            let name = row.name();
            let mut harness = None;
            if let Work::Loop { .. } = row.workload.work {
                bar.set_message(format!("harness {name}"));
                let count = per_op(workers.path(profile, &SYSTEM), *row, Twin::Empty)?;
                harness = Some(count.context("the empty harness dies under valgrind")?);
            }
            bar.inc(1);
            let mut allocators = Vec::new();
            for allocator in &plan.allocators {
                bar.set_message(format!("{} {name}", allocator.name));
                let count = per_op(workers.path(profile, allocator), *row, Twin::Full)?;
                let net = |all| Count::Counted(all - harness.unwrap_or(0.0));
                allocators.push((allocator.name, count.map_or(Count::Dies, net)));
                bar.inc(1);
            }
            counted.push(Instructions {
                profile,
                row: name,
                harness,
                allocators,
                bar: (profile == Profile::Fat).then_some(row.workload.instruction_bar).flatten(),
            });
        }
    }
    bar.finish_and_clear();
    Ok(counted)
}

/// One thread, no waiting, and no bound of kernel work: the count is the same every time.
pub fn is_countable(row: Row) -> bool {
    row.threads == 1 && row.workload.countable
}

/// The difference of a short and a long run, per operation of the difference; none if the worker
/// dies under valgrind and lives without.
fn per_op(path: &Path, row: Row, twin: Twin) -> Result<Option<f64>> {
    let amount = match row.workload.work {
        Work::Loop { pairs_per_round, .. } => PAIRS.div_ceil(pairs_per_round),
        Work::Job { small, .. } => small,
    };
    let short = collect(path, row, twin, amount)?;
    let long = collect(path, row, twin, 3 * amount)?;
    let (Some(short), Some(long)) = (short, long) else {
        return Ok(None);
    };
    let ops = long.1.checked_sub(short.1).filter(|&ops| ops > 0);
    let ops = ops.context("the longer run did no more than the shorter one")?;
    Ok(Some(long.0.abs_diff(short.0) as f64 / ops as f64))
}

/// The instructions of one run, from start to exit, and its operations.
fn collect(path: &Path, row: Row, twin: Twin, amount: u64) -> Result<Option<(u64, u64)>> {
    let length = Length::Amount(amount);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(path)
        .args(workers::words(&row.name(), twin, length));
    let output = valgrind.output().context("cannot start valgrind")?;
    if !output.status.success() {
        workers::run(path, &row.name(), twin, length)?;
        return Ok(None);
    }
    let outcome = workers::parse(&output)?.outcome;
    if let Work::Loop { pairs_per_round, .. } = row.workload.work {
        let right = outcome.ops == amount * pairs_per_round;
        ensure!(right, "the worker ran {} pairs: {valgrind:?}", outcome.ops);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok());
    collected
        .map(|instructions| Some((instructions, outcome.ops)))
        .with_context(|| format!("callgrind names no total:\n{said}"))
}

/// How Spandrel stands against its bars.
pub struct Verdict(Vec<Line>);

struct Line {
    row: String,
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
        .filter_map(|i| Some(Line { row: i.row.clone(), count: i.ours()?, bar: i.bar? }));
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
            let (name, bar) = (&line.row, line.bar);
            let about = Row::find(name).map_or("", |row| row.workload.about);
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
            row: "same/t1".to_owned(),
            harness: Some(6.0),
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
