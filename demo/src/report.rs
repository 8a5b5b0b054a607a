//! Results: the lines a service process prints, their medians, and the tables at the end.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};

/// The allocator all others are compared with.
pub const SUBJECT: &str = "spandrel";
/// The same with its heap profile on.
pub const PROFILED: &str = "spandrel, profiled";

/// One line on a service process's standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// So many of the measured requests were sent.
    Progress {
        /// How many.
        done: u64,
    },
    /// The run is over; nothing follows.
    Result(Box<RunResult>),
}

impl Line {
    /// Writes it to standard output.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn print(&self) -> Result<()> {
        let line = serde_json::to_string(self)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write the result")
    }
}

/// What one run of one service process cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunResult {
    /// The allocator it was linked with.
    pub allocator: String,
    /// Requests answered, and verified.
    pub requests: u64,
    /// Among them, documents no longer held when asked for.
    pub gone: u64,
    /// Documents held at the end of the load.
    pub documents: usize,
    /// From the first measured request to the last answer.
    pub seconds: f64,
    /// Requests per second.
    pub throughput: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99 % were faster.
    pub p99_us: f64,
    /// 99.9 % were faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Processor seconds in the program during the measured load.
    pub user_s: f64,
    /// Processor seconds in the kernel during the measured load.
    pub system_s: f64,
    /// Page faults during the measured load.
    pub minor_faults: u64,
    /// The most memory ever resident, in KiB, from the start of the process.
    pub peak_rss_kib: u64,
    /// Memory resident at the end of the load.
    pub loaded_rss_kib: u64,
    /// Memory resident when load and store were gone and the process had settled.
    pub final_rss_kib: u64,
    /// The allocator's own account at the end of the load.
    pub snapshot_loaded: Option<String>,
    /// The allocator's own account at the very end.
    pub snapshot_final: Option<String>,
}

/// A column of the table: its name, and its figure for one run.
struct Measure {
    name: &'static str,
    of: fn(&RunResult) -> f64,
    show: fn(f64) -> String,
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // shown, and never negative
fn whole(value: f64) -> String {
    HumanCount(value.round() as u64).to_string()
}

fn two_digits(value: f64) -> String {
    format!("{value:.2}")
}

fn milliseconds(micros: f64) -> String {
    format!("{:.2} ms", micros / 1e3)
}

fn mebibytes(kib: f64) -> String {
    format!("{:.1} MiB", kib / 1024.0)
}

#[allow(clippy::cast_precision_loss)] // KiB of memory: far below 2^52
const MEASURES: [Measure; 8] = [
    Measure { name: "requests/s", of: |r| r.throughput, show: whole },
    Measure { name: "p50", of: |r| r.p50_us, show: milliseconds },
    Measure { name: "p99", of: |r| r.p99_us, show: milliseconds },
    Measure { name: "p99.9", of: |r| r.p999_us, show: milliseconds },
    Measure { name: "CPU s", of: |r| r.user_s + r.system_s, show: two_digits },
    Measure { name: "peak RSS", of: |r| r.peak_rss_kib as f64, show: mebibytes },
    Measure { name: "loaded RSS", of: |r| r.loaded_rss_kib as f64, show: mebibytes },
    Measure { name: "final RSS", of: |r| r.final_rss_kib as f64, show: mebibytes },
];
const THROUGHPUT: usize = 0;
const CPU: usize = 4;
const PEAK: usize = 5;

/// All runs of one invocation, allocator by allocator, each in the order of its rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Runs {
    /// How they were built and loaded, as text.
    pub setting: String,
    /// Per allocator its name and one result per round.
    pub allocators: Vec<(String, Vec<RunResult>)>,
}

/// One claim about Spandrel, and how it came out.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// What is compared.
    pub what: &'static str,
    /// The best of the other allocators in this.
    pub best: String,
    /// The median over the rounds of Spandrel's figure by the other's.
    pub ratio: f64,
    /// The lowest and the highest of those ratios.
    pub range: (f64, f64),
    /// Whether the claim holds, within the tolerance.
    pub holds: bool,
}

/// The middle value; of an even number of values, the mean of the middle two.
///
/// # Panics
/// Without values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

/// The median over the rounds of one's figure by the other's, and the lowest and the highest of those. Rounds are
/// compared pairwise, so that a machine that slows down for a round slows both sides of a ratio.
fn ratio(one: &[RunResult], other: &[RunResult], of: fn(&RunResult) -> f64) -> (f64, (f64, f64)) {
    let ratios: Vec<f64> = one.iter().zip(other).map(|(one, other)| of(one) / of(other)).collect();
    let range = (
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    (median(ratios), range)
}

impl Runs {
    fn of(&self, allocator: &str) -> &[RunResult] {
        let found = self.allocators.iter().find(|(name, _)| name == allocator);
        found.map_or(&[], |(_, runs)| runs)
    }

    /// The medians as a table: a row per allocator, in brackets its figure by Spandrel's.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let names = MEASURES.iter().map(|m| m.name);
        table.set_header(["median of rounds"].into_iter().chain(names));
        for (allocator, runs) in &self.allocators {
            let mut row = vec![Cell::new(allocator)];
            for measure in &MEASURES {
                let value = median(runs.iter().map(measure.of));
                let mut text = (measure.show)(value);
                if allocator != SUBJECT {
                    let subject = median(self.of(SUBJECT).iter().map(measure.of));
                    let _ = write!(text, "\n({:.2}x)", value / subject);
                }
                row.push(Cell::new(text).set_alignment(CellAlignment::Right));
            }
            table.add_row(row);
        }
        table.to_string()
    }

    /// Spandrel against the best of the others, in throughput and in peak memory. `tolerance` is a fraction.
    #[must_use]
    pub fn verdicts(&self, tolerance: f64) -> Vec<Verdict> {
        [
            ("throughput", THROUGHPUT, true),
            ("processor time", CPU, false),
            ("peak RSS", PEAK, false),
        ]
        .into_iter()
        .filter_map(|(what, measure, more_is_better)| {
            let of = MEASURES[measure].of;
            let sign = if more_is_better { -1.0 } else { 1.0 };
            let mine = [SUBJECT, PROFILED];
            let others = self.allocators.iter().filter(|(name, _)| !mine.contains(&name.as_str()));
            let (best, runs) = others.min_by(|(_, a), (_, b)| {
                let key = |runs: &[RunResult]| sign * median(runs.iter().map(of));
                key(a).total_cmp(&key(b))
            })?;
            let (ratio, range) = ratio(self.of(SUBJECT), runs, of);
            Some(Verdict {
                what,
                best: best.clone(),
                ratio,
                range,
                holds: if more_is_better {
                    ratio >= 1.0 - tolerance
                } else {
                    ratio <= 1.0 + tolerance
                },
            })
        })
        .collect()
    }

    /// What the heap profile costs, where it was measured: processor time and throughput with it over those without,
    /// round by round.
    #[must_use]
    pub fn profile_cost(&self) -> Option<String> {
        let (with, without) = (self.of(PROFILED), self.of(SUBJECT));
        if with.is_empty() {
            return None;
        }
        let [cpu, throughput] =
            [CPU, THROUGHPUT].map(|measure| ratio(with, without, MEASURES[measure].of));
        let show = |(ratio, (low, high)): (f64, (f64, f64))| {
            format!("{ratio:.3}x (rounds: {low:.3} to {high:.3})")
        };
        Some(format!(
            "heap profile at the default rate: processor time {}, throughput {} of Spandrel without it",
            show(cpu),
            show(throughput)
        ))
    }

    /// Spandrel's own account of its memory, from its last round.
    #[must_use]
    pub fn snapshot(&self) -> Option<String> {
        let last = self.of(SUBJECT).last()?;
        Some(format!(
            "Spandrel's snapshot at the end of the load, {} documents held:\n\n{}\n\nand after everything was dropped:\n\n{}",
            HumanCount(last.documents as u64),
            last.snapshot_loaded.as_deref()?.trim_end(),
            last.snapshot_final.as_deref()?.trim_end(),
        ))
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {:.3}x of the best other, {} (rounds: {:.3} to {:.3}): {}",
            self.what,
            self.ratio,
            self.best,
            self.range.0,
            self.range.1,
            match (self.holds, self.what) {
                (true, _) => "holds",
                (false, "throughput") => "SLOWER",
                (false, _) => "MORE",
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(allocator: &str, throughput: f64, peak_rss_kib: u64) -> RunResult {
        RunResult {
            allocator: allocator.to_owned(),
            requests: 1000,
            gone: 0,
            documents: 8,
            seconds: 1.0,
            throughput,
            p50_us: 100.0,
            p99_us: 200.0,
            p999_us: 300.0,
            max_us: 400.0,
            user_s: 1.0,
            system_s: 0.5,
            minor_faults: 7,
            peak_rss_kib,
            loaded_rss_kib: peak_rss_kib,
            final_rss_kib: peak_rss_kib / 2,
            snapshot_loaded: Some(format!("{allocator} loaded")),
            snapshot_final: Some(format!("{allocator} final")),
        }
    }

    fn runs(subject: &[(f64, u64)], other: &[(f64, u64)]) -> Runs {
        let all = |name: &str, of: &[(f64, u64)]| {
            (name.to_owned(), of.iter().map(|&(t, p)| result(name, t, p)).collect())
        };
        Runs {
            setting: String::new(),
            allocators: vec![
                all(SUBJECT, subject),
                all("slow", &[(1.0, 999_999); 3]),
                all("good", other),
            ],
        }
    }

    fn holding(runs: &Runs, tolerance: f64) -> Vec<bool> {
        runs.verdicts(tolerance).iter().map(|v| v.holds).collect()
    }

    #[test]
    fn medians() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
    }

    #[test]
    fn a_verdict_is_against_the_best_other_and_can_fail() {
        let good = [(100.0, 1000), (200.0, 1000), (100.0, 1000)];
        let better = runs(&[(110.0, 900), (220.0, 900), (10.0, 900)], &good);
        assert_eq!(holding(&better, 0.0), [true, true, true]);
        assert_eq!(better.verdicts(0.0)[0].best, "good");
        assert!((better.verdicts(0.0)[0].ratio - 1.1).abs() < 1e-9);
        let worse = runs(&[(98.0, 1030), (196.0, 1030), (98.0, 1030)], &good);
        assert_eq!(holding(&worse, 0.0), [false, true, false]);
        assert_eq!(holding(&worse, 0.025), [true, true, false]);
        assert!(worse.verdicts(0.0)[0].to_string().contains("SLOWER"));
    }

    #[test]
    fn a_profile_is_held_against_the_same_without() {
        let mut runs = runs(&[(100.0, 1000); 3], &[(90.0, 1000); 3]);
        assert_eq!(runs.profile_cost(), None);
        runs.allocators.push((PROFILED.to_owned(), vec![result(SUBJECT, 98.0, 900); 3]));
        let cost = runs.profile_cost().unwrap();
        assert!(cost.contains("time 1.000x") && cost.contains("throughput 0.980x"), "{cost}");
        assert_eq!(runs.verdicts(0.0)[0].best, "good", "it is no other allocator");
    }

    #[test]
    fn the_table_and_the_snapshot_show_what_was_measured() {
        let runs = runs(&[(1234.0, 2048); 3], &[(617.0, 4096); 3]);
        let table = runs.table();
        for part in ["1,234", "(0.50x)", "2.0 MiB", "4.0 MiB", "(2.00x)", "0.30 ms", "good"] {
            assert!(table.contains(part), "{part} in {table}");
        }
        let snapshot = runs.snapshot().unwrap();
        assert!(snapshot.contains("spandrel loaded") && snapshot.contains("spandrel final"));
    }
}
