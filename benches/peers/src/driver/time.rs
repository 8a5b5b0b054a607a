//! Runs of the workers, in interleaved rounds.

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use peers::workloads::{Row, Work, Workload};

use crate::{
    allocators::{Allocator, SPANDREL, SYSTEM},
    cli::Plan,
    profile::Profile,
    results,
    sample::{Depth, FloorCost, HARNESS, Moment, Sample},
    warm::Warm,
    workers::{self, Length, Twin, Workers},
};

/// Everything the runs reported.
#[derive(Debug, Default)]
pub struct Measured {
    /// One per run.
    pub samples: Vec<Sample>,
    /// The curves of the runs that drift.
    pub moments: Vec<Moment>,
    /// How far the calls of each row went.
    pub depths: Vec<Depth>,
    /// What a step on each floor costs, if Spandrel is in the plan.
    pub costs: Vec<FloorCost>,
    /// What each of the other allocators died of, where it did.
    pub deaths: Vec<String>,
}

/// Pairs of a loop whose calls are counted, on each thread.
const PAIRS: u64 = 1_000_000;

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

/// Runs everything the plan names, and writes down what comes of it, round by round. That Spandrel
/// or the system's allocator fails is an error; another's death is noted, and the rest goes on.
pub fn measure(plan: &Plan, workers: &Workers) -> Result<()> {
    let mut measured = Measured::default();
    let mut warm = Warm::default();
    let lines = lines(plan, &mut measured.deaths);
    let runs = lines.iter().map(|line| line.rounds as usize * line.turns.len()).sum::<usize>();
    let deep = lines.iter().filter(|line| counts_calls(plan, line)).count();
    let bar = bar(runs + deep, "measuring");
    for round in 0..plan.repeat {
        for line in lines.iter().filter(|line| round < line.rounds) {
            let name = line.row.name();
            // Nobody always runs first.
            for i in 0..line.turns.len() {
                let (allocator, twin) = line.turns[(i + round as usize) % line.turns.len()];
                bar.set_message(format!("{} {name}", allocator.name));
                let path = workers.path(line.profile, allocator);
                warm.up(&name);
                let ran = workers::run(path, &name, twin, line.length);
                bar.inc(1);
                let report = match ran {
                    Err(error) if allocator.feature.is_some() => {
                        let about = format!("{}, {name}: {error:#}", allocator.name);
                        measured.deaths.push(about);
                        continue;
                    }
                    report => report?,
                };
                let who = if twin == Twin::Empty { HARNESS } else { allocator.name };
                let sample = Sample::new(line.profile, &name, who, round, report.outcome);
                warm.note(&sample);
                measured.samples.push(sample);
                let moment = |p| Moment::new(line.profile, who, round, p);
                measured.moments.extend(report.points.into_iter().map(moment));
            }
        }
        // Whoever stops us here has what there is.
        results::write_measured(&plan.out, &measured)?;
    }
    if plan.allocators.iter().any(|a| a.is_ours()) {
        for &profile in &plan.profiles {
            let costs = workers::costs(workers.path(profile, &SPANDREL))?;
            measured.costs.extend(FloorCost::all(profile, costs));
        }
    }
    for line in lines.iter().filter(|line| counts_calls(plan, line)) {
        bar.set_message(format!("calls of {}", line.row.name()));
        measured.depths.push(depth(line, workers)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    results::write_measured(&plan.out, &measured)
}

/// Counts are much the same in every build, so that one will do.
fn counts_calls(plan: &Plan, line: &Line) -> bool {
    let spandrel = plan.allocators.iter().any(|a| a.is_ours());
    spandrel && line.profile == plan.profiles[0] && !line.row.is_charted_only()
}

/// The same amount on Spandrel, which counts what happens on its slow paths, and on an allocator
/// that counts calls.
fn depth(line: &Line, workers: &Workers) -> Result<Depth> {
    let name = line.row.name();
    let length = match line.row.workload.work {
        Work::Loop { pairs_per_round, .. } => Length::Amount(PAIRS.div_ceil(pairs_per_round)),
        // What takes long shows the same sooner.
        Work::Job { quick, .. } if line.row.workload.once => Length::Amount(quick),
        Work::Job { .. } => line.length,
    };
    let run = |path| workers::run(path, &name, Twin::Full, length);
    let floors = run(workers.path(line.profile, &SPANDREL))?.floors;
    let calls = run(workers.counting(line.profile))?.calls;
    let (Some(floors), Some(calls)) = (floors, calls) else {
        bail!("{name}: a worker did not say what it counted");
    };
    Ok(Depth::new(line.profile, &name, calls, floors))
}

fn lines(plan: &Plan, left_out: &mut Vec<String>) -> Vec<Line> {
    let available = memory_available_gib();
    let mut lines = Vec::new();
    for &profile in &plan.profiles {
        for &row in &plan.rows {
            let first = profile == plan.profiles[0];
            if !first && (row.is_charted_only() || row.workload.once) {
                continue;
            }
            let needs = row.workload.gib;
            if needs > available {
                let name = row.name();
                left_out.push(format!("{name} left out: needs {needs} GiB, has {available}"));
                continue;
            }
            lines.push(line(plan, profile, row));
        }
    }
    lines
}

fn memory_available_gib() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map_or(0, |kib| kib >> 20)
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
    let most = match row.workload {
        Workload { once: true, .. } => 1,
        Workload { heavy: true, .. } => plan.heavy_repeat,
        _ => plan.repeat,
    };
    Line { profile, row, turns, length, rounds: plan.repeat.min(most) }
}
