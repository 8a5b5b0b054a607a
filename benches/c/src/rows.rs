//! The rows, and what `spandrel compare` says of each.

use serde::Deserialize;

/// A program and its arguments.
pub struct Row {
    pub name: &'static str,
    pub program: &'static str,
    pub arguments: &'static [&'static str],
}

const fn row(name: &'static str, program: &'static str, arguments: &'static [&'static str]) -> Row {
    Row { name, program, arguments }
}

/// All rows. What each does is said at the head of its source.
pub const ROWS: &[Row] = &[
    row("string map", "string_map", &[]),
    row("trees", "trees", &[]),
    row("queue, 2 threads", "queue", &["2"]),
    row("queue, 4 threads", "queue", &["4"]),
    row("realloc chains", "realloc_chains", &[]),
    row("mixed, 2 threads", "mixed_threads", &["2"]),
    row("mixed, 4 threads", "mixed_threads", &["4"]),
    row("json", "json", &[]),
    row("shuffled", "shuffled", &[]),
    row("buffers", "buffers", &[]),
    row("C++ containers", "containers", &[]),
    row("C++ words", "words", &["1"]),
    row("C++ words, 4 threads", "words", &["4"]),
];

/// The allocators whose best each row is held against.
pub const PEERS: [&str; 3] = ["jemalloc", "mimalloc", "tcmalloc"];

/// The part of `spandrel compare --json` that is read here.
#[derive(Deserialize)]
pub struct Report {
    pub allocators: Vec<Allocator>,
}

#[derive(Deserialize)]
pub struct Allocator {
    pub name: String,
    pub wall_s: Figure,
    pub cpu_s: Figure,
    pub peak_rss_bytes: Figure,
    pub page_faults: Figure,
}

#[derive(Deserialize)]
pub struct Figure {
    pub median: f64,
    /// Over Spandrel's, paired by rounds.
    pub ratio: Ratio,
}

#[derive(Deserialize)]
pub struct Ratio {
    pub median: f64,
}

/// The figures that have a goal: at most 1 over the best other.
pub const FIGURES: [fn(&Allocator) -> &Figure; 3] =
    [|one| &one.wall_s, |one| &one.cpu_s, |one| &one.peak_rss_bytes];

/// A row with its figures.
pub struct Measured {
    pub name: &'static str,
    pub report: Report,
}

impl Measured {
    /// The best of the peers, and Spandrel's figure over its.
    pub fn over_best(&self, figure: fn(&Allocator) -> &Figure) -> (&str, f64) {
        self.report
            .allocators
            .iter()
            .filter(|one| PEERS.contains(&one.name.as_str()))
            .map(|one| (one.name.as_str(), 1.0 / figure(one).ratio.median))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or(("none", 1.0))
    }
}

/// The geometric mean of positive numbers.
pub fn geometric_mean(numbers: &[f64]) -> f64 {
    let sum: f64 = numbers.iter().map(|number| number.ln()).sum();
    (sum / numbers.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_one_hardest_to_beat() {
        let figure =
            |ratio: f64| serde_json::json!({ "median": 1.0, "ratio": { "median": ratio } });
        let one = |name: &str, ratio: f64| {
            serde_json::json!({ "name": name, "wall_s": figure(ratio), "cpu_s": figure(1.0),
                "peak_rss_bytes": figure(1.0), "page_faults": figure(1.0) })
        };
        let report = serde_json::json!({ "allocators": [
            one("spandrel", 1.0), one("system", 0.1), one("jemalloc", 2.0), one("mimalloc", 0.8)
        ]});
        let measured = Measured { name: "row", report: serde_json::from_value(report).unwrap() };
        let (best, ratio) = measured.over_best(|one| &one.wall_s);
        assert_eq!(best, "mimalloc", "the system's malloc is no peer");
        assert!((ratio - 1.25).abs() < 1e-12);
    }

    #[test]
    fn means_are_geometric() {
        assert!((geometric_mean(&[0.5, 2.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_program_is_a_row() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/programs");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|kind| kind == "c" || kind == "cpp") {
                assert!(ROWS.iter().any(|row| row.program == stem), "{stem} is no row");
            }
        }
    }
}
