//! What the workers reported: one record per process, kept and written as it came.

use std::path::Path;

use anyhow::{Context, Result};
use peers::{worker::Outcome, workloads::Point};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::profile::Profile;

/// The name under which the empty harness stands among the allocators.
pub const HARNESS: &str = "(harness)";

/// One run of one worker. Sizes in KiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The build.
    pub profile: Profile,
    /// What ran, on how many threads.
    pub row: String,
    /// On what.
    pub allocator: String,
    /// The round it was part of.
    pub round: u32,
    /// Operations.
    pub ops: u64,
    /// Processor time of all threads.
    pub cpu_ns: u64,
    /// Time of day.
    pub wall_ns: u64,
    /// Minor page faults.
    pub faults: u64,
    /// Resident at most.
    pub peak_kib: u64,
    /// Resident after everything was freed.
    pub after_kib: u64,
}

impl Sample {
    /// Files what a worker printed.
    pub fn new(profile: Profile, row: &str, allocator: &str, round: u32, o: Outcome) -> Self {
        Self {
            profile,
            row: row.to_owned(),
            allocator: allocator.to_owned(),
            round,
            ops: o.ops,
            cpu_ns: o.cpu,
            wall_ns: o.wall,
            faults: o.faults,
            peak_kib: o.peak,
            after_kib: o.after,
        }
    }

    /// Nanoseconds of processor time per operation.
    pub fn nanos_per_op(&self) -> f64 {
        self.cpu_ns as f64 / self.ops as f64
    }
}

/// A point of the curve of a run whose sizes drift. Sizes in KiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// The build.
    pub profile: Profile,
    /// On what.
    pub allocator: String,
    /// The round it was part of.
    pub round: u32,
    /// Operations so far.
    pub ops: u64,
    /// What the program holds.
    pub live_kib: u64,
    /// What is resident.
    pub rss_kib: u64,
}

impl Moment {
    /// Files a line that a worker printed.
    pub fn new(profile: Profile, allocator: &str, round: u32, p: Point) -> Self {
        let allocator = allocator.to_owned();
        Self { profile, allocator, round, ops: p.ops, live_kib: p.live, rss_kib: p.rss }
    }
}

/// Writes records as CSV, a line each under a line of names.
pub fn write<T: Serialize>(path: &Path, records: &[T]) -> Result<()> {
    let write = || {
        let mut file = csv::Writer::from_path(path)?;
        records.iter().try_for_each(|record| file.serialize(record))?;
        Ok::<_, csv::Error>(file.flush()?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what `write` wrote.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let read = || csv::Reader::from_path(path)?.deserialize().collect::<csv::Result<Vec<T>>>();
    read().with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A sample of so many nanoseconds and KiB.
    pub fn sample(row: &str, allocator: &str, round: u32, nanos: u64, peak: u64) -> Sample {
        let outcome =
            Outcome { ops: 10, cpu: 10 * nanos, wall: nanos, faults: 1, peak, after: peak / 2 };
        Sample::new(Profile::Fat, row, allocator, round, outcome)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let path = std::env::temp_dir().join(format!("peers-{}.csv", std::process::id()));
        let samples = [sample("same/t1", "spandrel", 0, 5, 2000), sample("a/t2", HARNESS, 1, 3, 4)];
        write(&path, &samples).unwrap();
        let read_back = read::<Sample>(&path);
        let as_moments = read::<Moment>(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_back.unwrap(), samples);
        assert!(as_moments.is_err(), "columns are missing");
        assert!(read::<Sample>(&path).unwrap_err().to_string().contains("cannot read"));
    }
}
