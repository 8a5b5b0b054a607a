//! The figures as files.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    cli::Plan,
    count::{Count, Instructions},
    profile::Profile,
    time::Times,
};

/// Everything one invocation found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    machine: Machine,
    /// Rounds of timing.
    repeat: u32,
    /// Milliseconds per timed run.
    millis: u64,
    /// Empty if times were not asked for.
    pub times: Vec<Times>,
    /// Empty if instructions were not asked for.
    pub instructions: Vec<Instructions>,
}

/// As much of the machine as explains a figure.
#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Machine {
    fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim_end().to_owned(),
        }
    }
}

/// One line of the CSV file. `unit` says what the numbers are.
#[derive(Serialize)]
struct Row {
    unit: &'static str,
    profile: Profile,
    workload: &'static str,
    allocator: &'static str,
    median: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    spread_percent: Option<f64>,
}

impl Report {
    /// Nothing found out yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            machine: Machine::here(),
            repeat: plan.repeat,
            millis: plan.millis,
            times: Vec::new(),
            instructions: Vec::new(),
        }
    }

    /// Writes the files that the plan names.
    pub fn write(&self, plan: &Plan) -> Result<()> {
        if let Some(path) = &plan.json {
            let file = create(path)?;
            serde_json::to_writer_pretty(file, self).with_context(|| in_file(path))?;
        }
        if let Some(path) = &plan.csv {
            let mut file = csv::Writer::from_writer(create(path)?);
            for row in self.rows() {
                file.serialize(row).with_context(|| in_file(path))?;
            }
            file.flush().with_context(|| in_file(path))?;
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for line in &self.times {
            for (allocator, s) in [("(harness)", line.harness)].iter().chain(&line.allocators) {
                rows.push(Row {
                    unit: "ns per pair, harness included",
                    profile: line.profile,
                    workload: line.workload,
                    allocator,
                    median: Some(s.median),
                    min: Some(s.min),
                    max: Some(s.max),
                    spread_percent: Some(s.spread_percent),
                });
            }
        }
        for line in &self.instructions {
            for (allocator, count) in
                [("(harness)", Count::Counted(line.harness))].iter().chain(&line.allocators)
            {
                let exact = match count {
                    Count::Counted(n) => Some(*n),
                    Count::Dies => None,
                };
                rows.push(Row {
                    unit: "instructions per pair, harness subtracted",
                    profile: line.profile,
                    workload: line.workload,
                    allocator,
                    median: exact,
                    min: exact,
                    max: exact,
                    spread_percent: exact.map(|_| 0.0),
                });
            }
        }
        rows
    }
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| in_file(path))?;
    Ok(BufWriter::new(file))
}

fn in_file(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
