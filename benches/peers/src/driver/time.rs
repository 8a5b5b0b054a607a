//! Runs of the workers, in interleaved rounds.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use peers::workloads::{Row, Work};

use crate::{
    allocators::{Allocator, SYSTEM},
    cli::Plan,
    profile::Profile,
    sample::{HARNESS, Moment, Sample},
    workers::{self, Length, Twin, Workers},
};

/// Everything the runs reported.
#[derive(Debug, Default)]
pub struct Measured {
    /// One per run.
    pub samples: Vec<Sample>,
    /// The curves of the runs that drift.
    pub moments: Vec<Moment>,
}

/// The style of every bar of the driver.
pub fn bar(steps: usize, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg:<36} {eta:>4}")
        .expect("the template is valid");
    ProgressBar::new(steps as u64).with_style(style).with_prefix(what.to_owned())
}

/// A row under a profile, and who takes turns in it.
struct Line {
    profile: Profile,
    row: Row,
    turns: Vec<(&'static Allocator, Twin)>,
    length: Length,
    rounds: u32,
}

/// Runs everything the plan names.
pub fn measure(plan: &Plan, workers: &Workers) -> Result<Measured> {
    let lines: Vec<Line> = plan
        .profiles
        .iter()
        .flat_map(|&profile| plan.rows.iter().map(move |&row| line(plan, profile, row)))
        .collect();
    let runs = lines.iter().map(|line| line.rounds as usize * line.turns.len()).sum();
    let bar = bar(runs, "measuring");
    let mut measured = Measured::default();
    for round in 0..plan.repeat {
        for line in lines.iter().filter(|line| round < line.rounds) {
            let name = line.row.name();
            // Nobody always runs first.
            for i in 0..line.turns.len() {
                let (allocator, twin) = line.turns[(i + round as usize) % line.turns.len()];
                bar.set_message(format!("{} {name}", allocator.name));
                let path = workers.path(line.profile, allocator);
                let (outcome, points) = workers::run(path, &name, twin, line.length)?;
                let who = if twin == Twin::Empty { HARNESS } else { allocator.name };
                measured.samples.push(Sample::new(line.profile, &name, who, round, outcome));
                let moments = points.into_iter().map(|p| Moment::new(line.profile, who, round, p));
                measured.moments.extend(moments);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(measured)
}

fn line(plan: &Plan, profile: Profile, row: Row) -> Line {
    let mut turns: Vec<_> = plan.allocators.iter().map(|&a| (a, Twin::Full)).collect();
    let length = match row.workload.work {
        Work::Loop { .. } => {
            // The harness runs among the allocators, as one more of them.
            if row.threads == 1 {
                turns.push((&SYSTEM, Twin::Empty));
            }
            Length::Millis(plan.millis)
        }
        Work::Job { amount, quick, .. } => Length::Amount(if plan.quick { quick } else { amount }),
    };
    let rounds = if row.workload.heavy { plan.repeat.min(plan.heavy_repeat) } else { plan.repeat };
    Line { profile, row, turns, length, rounds }
}
