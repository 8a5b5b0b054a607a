//! What the workers reported: one record per process, kept and written as it came.

use std::path::Path;

use anyhow::{Context, Result};
use peers::{
    costs::Costs,
    floors::{Calls, Floors},
    worker::Outcome,
    workloads::Point,
};
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

/// A point of the curve of a run whose sizes drift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// The build.
    pub profile: Profile,
    /// On what.
    pub allocator: String,
    /// The round it was part of.
    pub round: u32,
    /// Allocated so far.
    pub allocated_mib: u64,
    /// What the program holds.
    pub live_kib: u64,
    /// What is resident.
    pub rss_kib: u64,
}

impl Moment {
    /// Files a line that a worker printed.
    pub fn new(profile: Profile, allocator: &str, round: u32, p: Point) -> Self {
        let allocator = allocator.to_owned();
        Self {
            profile,
            allocator,
            round,
            allocated_mib: p.allocated,
            live_kib: p.live,
            rss_kib: p.rss,
        }
    }
}

/// How far the calls of a row went on Spandrel, and how many there were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Depth {
    /// The build.
    pub profile: Profile,
    /// What ran, on how many threads.
    pub row: String,
    /// Calls of the allocator, of any kind.
    pub calls: u64,
    /// Bins that ran empty.
    pub refills: u64,
    /// Bins that ran full, and surpluses given back.
    pub spills: u64,
    /// Refills for which no batch waited in the transfer cache.
    pub transfer_misses: u64,
    /// Spills for which there was no room in the transfer cache.
    pub transfer_refusals: u64,
    /// Spans begun.
    pub spans_begun: u64,
    /// Spans whose last object came home.
    pub spans_died: u64,
    /// Runs of granules taken: spans and large blocks.
    pub page_takes: u64,
    /// Runs of granules given back.
    pub page_gives: u64,
    /// Requests to the system.
    pub system_calls: u64,
}

impl Depth {
    /// Files what two workers printed.
    pub fn new(profile: Profile, row: &str, calls: Calls, floors: Floors) -> Self {
        Self {
            profile,
            row: row.to_owned(),
            calls: calls.total(),
            refills: floors.refills,
            spills: floors.spills,
            transfer_misses: floors.transfer_misses,
            transfer_refusals: floors.transfer_refusals,
            spans_begun: floors.spans_begun,
            spans_died: floors.spans_died,
            page_takes: floors.page_takes,
            page_gives: floors.page_gives,
            system_calls: floors.system_calls,
        }
    }

    /// Of the calls, the part that went further than each floor: out of the thread cache, through
    /// the transfer cache, into a new or dying span or a large block, to the system.
    pub fn rates(&self) -> [f64; 4] {
        let slow = self.refills + self.spills;
        let spans = self.transfer_misses + self.transfer_refusals;
        let pages = self.page_takes + self.page_gives;
        [slow, spans, pages, self.system_calls].map(|n| n as f64 / self.calls as f64)
    }
}

/// What a step on one of Spandrel's floors costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloorCost {
    /// The build.
    pub profile: Profile,
    /// The floor.
    pub floor: String,
    /// What is done there, there and back.
    pub step: String,
    /// Processor time.
    pub ns: f64,
}

impl FloorCost {
    /// Files what a worker printed.
    pub fn all(profile: Profile, costs: Costs) -> [Self; 5] {
        let Costs { cache_ps, transfer_ps, spans_ps, page_ps, system_ps } = costs;
        [
            ("thread cache", "an object out and in", cache_ps),
            ("transfer cache", "a batch of 62 in and out", transfer_ps),
            ("spans", "a shuffled batch of 62 in and out", spans_ps),
            ("page heap", "a granule out and in", page_ps),
            ("system", "2 MiB mapped, touched, unmapped", system_ps),
        ]
        .map(|(floor, step, ps)| Self {
            profile,
            floor: floor.to_owned(),
            step: step.to_owned(),
            ns: ps as f64 / 1000.0,
        })
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
