//! Building the workers, and running one.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use peers::{
    costs::Costs,
    floors::{Calls, Floors},
    worker::Outcome,
    workloads::{Point, Work},
};
use serde_json::Value;
use wait_timeout::ChildExt;

use crate::{
    allocators::{ALLOCATORS, Allocator, SYSTEM},
    cli::Plan,
    profile::Profile,
};

/// Where each worker lies.
pub struct Workers(HashMap<(&'static str, &'static str), PathBuf>);

impl Workers {
    /// The worker of `allocator` under `profile`.
    pub fn path(&self, profile: Profile, allocator: &Allocator) -> &Path {
        &self.0[&(profile.name(), allocator.worker)]
    }

    /// The one that counts calls.
    pub fn counting(&self, profile: Profile) -> &Path {
        &self.0[&(profile.name(), COUNTING)]
    }
}

/// How long a worker may take: much longer than any does.
const PATIENCE: Duration = Duration::from_secs(600);

/// The worker that counts calls.
const COUNTING: &str = "w-counting";

/// Which of a workload's twins to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// On the worker's allocator.
    Full,
    /// The harness alone.
    Empty,
}

/// How long to run it.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// About so many milliseconds.
    Millis(u64),
    /// Exactly so many rounds, or a job of exactly this amount.
    Amount(u64),
}

/// The words a worker is started with.
pub fn words(row: &str, twin: Twin, length: Length) -> [String; 4] {
    let twin = match twin {
        Twin::Full => "full",
        Twin::Empty => "empty",
    };
    let (unit, number) = match length {
        Length::Millis(n) => ("millis", n),
        Length::Amount(n) => ("amount", n),
    };
    [row, twin, unit, &number.to_string()].map(str::to_owned)
}

/// Everything a worker has to say.
#[derive(Debug, Default)]
pub struct Report {
    /// What it did and cost.
    pub outcome: Outcome,
    /// The curve, of a run that drifts.
    pub points: Vec<Point>,
    /// How far the calls went, of Spandrel.
    pub floors: Option<Floors>,
    /// How many calls there were, of the counting worker.
    pub calls: Option<Calls>,
}

/// Runs a worker to its end.
pub fn run(path: &Path, row: &str, twin: Twin, length: Length) -> Result<Report> {
    let mut command = Command::new(path);
    command.args(words(row, twin, length));
    // What a worker prints fits into its pipes, so that nobody need read before it has ended.
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start a worker")?;
    if child.wait_timeout(PATIENCE)?.is_none() {
        child.kill()?;
        child.wait()?;
        bail!("the worker had not ended after {PATIENCE:?}: {command:?}");
    }
    let output = child.wait_with_output()?;
    parse(&output).with_context(|| format!("the worker failed: {command:?}"))
}

/// Has Spandrel's worker measure its floors.
pub fn costs(path: &Path) -> Result<Costs> {
    let output = Command::new(path).arg("costs").output().context("cannot start a worker")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    Costs::parse(printed.trim_end())
        .with_context(|| format!("{} costs: printed `{printed}`", path.display()))
}

/// Reads what a worker printed.
pub fn parse(output: &Output) -> Result<Report> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{said}", output.status);
    let mut report = Report::default();
    let mut outcome = None;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(point) = Point::parse(line) {
            report.points.push(point);
        } else if let Some(floors) = Floors::parse(line) {
            report.floors = Some(floors);
        } else if let Some(calls) = Calls::parse(line) {
            report.calls = Some(calls);
        } else {
            let last = Outcome::parse(line).with_context(|| format!("it printed `{line}`"))?;
            outcome = Some(last);
        }
    }
    report.outcome = outcome.context("it printed no result")?;
    Ok(report)
}

/// Builds every worker of the plan, and the one that runs the empty harness.
pub fn build(plan: &Plan) -> Result<Workers> {
    let mut built = HashMap::new();
    for &profile in &plan.profiles {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut cargo = command(plan, profile);
        let mut child = cargo.spawn().context("cannot start cargo")?;
        let stdout = child.stdout.take().expect("stdout is piped");
        for line in BufReader::new(stdout).lines() {
            let message: Value = serde_json::from_str(&line?).context("cargo's messages")?;
            let Some(name) = message["target"]["name"].as_str() else {
                continue;
            };
            bar.set_message(format!("building, {}: {name}", profile.title()));
            let worker = ALLOCATORS.iter().map(|a| a.worker).chain([COUNTING]).find(|w| *w == name);
            if let (Some(worker), Some(path)) = (worker, message["executable"].as_str()) {
                built.insert((profile.name(), worker), PathBuf::from(path));
            }
        }
        bar.finish_and_clear();
        if !child.wait()?.success() {
            bail!("the workers do not build; the command was {cargo:?}");
        }
    }
    Ok(Workers(built))
}

fn command(plan: &Plan, profile: Profile) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let counting = plan.times.then_some(["--bin", COUNTING]);
    cargo
        .args(["build", "--quiet", "--package", "peers"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(["--no-default-features", "--profile", profile.name()])
        .arg("--message-format=json-render-diagnostics")
        .args(["--bin", SYSTEM.worker])
        .args(counting.iter().flatten())
        .stdout(Stdio::piped());
    if plan.rows.iter().any(|row| matches!(row.workload.work, Work::Job { .. })) {
        cargo.args(["--features", "jobs"]);
    }
    for allocator in &plan.allocators {
        cargo.args(["--bin", allocator.worker]);
        if let Some(feature) = allocator.feature {
            cargo.args(["--features", feature]);
        }
    }
    cargo
}
