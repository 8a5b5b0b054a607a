//! What the files of a run hold, and reading and writing them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use peers::workloads::Row;
use serde::{Deserialize, Serialize};

use crate::{
    analysis::{self, Line},
    count::{Count, Instructions},
    profile::Profile,
    sample::{self, Depth, FloorCost, Moment, Sample},
    time::Measured,
};

const SAMPLES: &str = "samples.csv";
const MOMENTS: &str = "fragmentation.csv";
const DEPTHS: &str = "floors.csv";
const COSTS: &str = "costs.csv";
const COUNTS: &str = "instructions.csv";
const ABOUT: &str = "run.txt";

/// One line of the file of instructions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The build.
    pub profile: Profile,
    /// What ran.
    pub row: String,
    /// On what.
    pub allocator: String,
    /// Per operation, harness subtracted where there is one; none for who dies under valgrind.
    pub instructions: Option<f64>,
}

/// Everything there is to report, from one run or from the files of runs.
#[derive(Debug, Default)]
pub struct Results {
    /// A line per row and profile.
    pub lines: Vec<Line>,
    /// The curves of the runs that drift.
    pub moments: Vec<Moment>,
    /// How far calls went.
    pub depths: Vec<Depth>,
    /// What a step on each floor costs.
    pub costs: Vec<FloorCost>,
    /// Instructions, if they have been counted.
    pub counted: Vec<Counted>,
    /// When, where and how it ran, and who died.
    pub about: String,
}

impl Results {
    /// The lines of the tables: without what is only charted.
    pub fn table_lines(&self, profile: Profile) -> impl Iterator<Item = &Line> {
        let in_table = |line: &Line| Row::find(&line.row).is_none_or(|r| !r.is_charted_only());
        self.lines.iter().filter(move |line| line.profile == profile && in_table(line))
    }

    /// The profiles there are lines of.
    pub fn profiles(&self) -> Vec<Profile> {
        let mut profiles: Vec<_> = self.lines.iter().map(|line| line.profile).collect();
        profiles.sort_unstable();
        profiles.dedup();
        profiles
    }

    /// Reads what runs have left in a directory.
    pub fn read(out: &Path) -> Result<Self> {
        fn optional<T: serde::de::DeserializeOwned>(path: PathBuf) -> Result<Vec<T>> {
            if path.exists() { sample::read(&path) } else { Ok(Vec::new()) }
        }
        let samples: Vec<Sample> = optional(out.join(SAMPLES))?;
        let counted = optional(out.join(COUNTS))?;
        if samples.is_empty() && counted.is_empty() {
            bail!("no run has left its figures in {}", out.display());
        }
        Ok(Self {
            lines: analysis::lines(&samples),
            moments: optional(out.join(MOMENTS))?,
            depths: optional(out.join(DEPTHS))?,
            costs: optional(out.join(COSTS))?,
            counted,
            about: fs::read_to_string(out.join(ABOUT)).unwrap_or_default(),
        })
    }
}

/// Writes what was measured. Files of earlier runs in the same place are replaced, but for the
/// counts of instructions.
pub fn write_measured(out: &Path, measured: &Measured) -> Result<()> {
    prepare(out)?;
    sample::write(&out.join(SAMPLES), &measured.samples)?;
    sample::write(&out.join(MOMENTS), &measured.moments)?;
    sample::write(&out.join(DEPTHS), &measured.depths)?;
    sample::write(&out.join(COSTS), &measured.costs)?;
    let about = about() + &measured.deaths.join("\n");
    let path = out.join(ABOUT);
    fs::write(&path, about).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the counts of a run.
pub fn write_counted(out: &Path, counted: &[Instructions]) -> Result<()> {
    let of_row = |i| {
        let Instructions { profile, row, allocators, .. }: &Instructions = i;
        allocators.iter().map(move |&(allocator, count)| Counted {
            profile: *profile,
            row: row.clone(),
            allocator: allocator.to_owned(),
            instructions: match count {
                Count::Counted(n) => Some(n),
                Count::Dies => None,
            },
        })
    };
    let lines: Vec<_> = counted.iter().flat_map(of_row).collect();
    prepare(out)?;
    sample::write(&out.join(COUNTS), &lines)
}

fn prepare(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))
}

/// Lines of `about`; after them, who died and what was left out.
pub const ABOUT_LINES: usize = 4;

/// How it ran and on what, as far as that explains a figure.
fn about() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let meminfo = read("/proc/meminfo");
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "command: cargo run --release -p peers -- {}\ncpu: {}, {} cores\nmemory: {}\nkernel: {}\n",
        words.join(" "),
        cpu.map_or("unknown", |(_, name)| name),
        std::thread::available_parallelism().map_or(0, usize::from),
        memory.unwrap_or("unknown").trim(),
        read("/proc/sys/kernel/osrelease").trim_end(),
    )
}
