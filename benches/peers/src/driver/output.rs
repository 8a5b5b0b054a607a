//! The figures as files.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    cli::Plan,
    count::{Count, Instructions},
    profile::Profile,
    sample::{self, Sample},
    time::Measured,
};

/// What the files are called.
const SAMPLES: &str = "samples.csv";
const MOMENTS: &str = "fragmentation.csv";
const INSTRUCTIONS: &str = "instructions.csv";
const MACHINE: &str = "machine.txt";

/// What it ran on, as far as that explains a figure.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    format!(
        "cpu: {}\ncores: {}\nmemory: {}\nkernel: {}\n",
        cpu.map_or("unknown", |(_, name)| name),
        std::thread::available_parallelism().map_or(0, usize::from),
        memory.trim(),
        read("/proc/sys/kernel/osrelease").trim_end(),
    )
}

/// One line of the file of instructions.
#[derive(Serialize)]
struct Counted<'a> {
    profile: Profile,
    row: &'a str,
    allocator: &'a str,
    /// Per operation, harness subtracted; empty for who dies under valgrind.
    instructions: Option<f64>,
}

/// Writes the samples of a run.
pub fn write_samples(plan: &Plan, measured: &Measured) -> Result<()> {
    let out = prepared(plan)?;
    sample::write(&out.join(SAMPLES), &measured.samples)?;
    if !measured.moments.is_empty() {
        sample::write(&out.join(MOMENTS), &measured.moments)?;
    }
    println!("\nfigures: {}", out.display());
    Ok(())
}

/// Reads the samples of a former run.
pub fn read_samples(plan: &Plan) -> Result<Vec<Sample>> {
    sample::read(&plan.out.join(SAMPLES))
}

/// Writes the counts of a run.
pub fn write_instructions(plan: &Plan, counted: &[Instructions]) -> Result<()> {
    let of_row = |i| {
        let Instructions { profile, row, allocators, .. }: &Instructions = i;
        allocators.iter().map(move |&(allocator, count)| Counted {
            profile: *profile,
            row,
            allocator,
            instructions: match count {
                Count::Counted(n) => Some(n),
                Count::Dies => None,
            },
        })
    };
    let lines: Vec<_> = counted.iter().flat_map(of_row).collect();
    sample::write(&prepared(plan)?.join(INSTRUCTIONS), &lines)
}

fn prepared(plan: &Plan) -> Result<&Path> {
    let write = || {
        fs::create_dir_all(&plan.out)?;
        fs::write(plan.out.join(MACHINE), machine())
    };
    write().with_context(|| format!("cannot write to {}", plan.out.display()))?;
    Ok(&plan.out)
}
