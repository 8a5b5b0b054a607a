//! What the samples amount to: medians, ratios, geometric means, the worst rows.

use crate::{
    allocators::{ALLOCATORS, SPANDREL},
    profile::Profile,
    sample::{HARNESS, Moment, Sample},
    stats::Summary,
};

/// One line of the tables: a row under a profile.
#[derive(Debug)]
pub struct Line {
    /// The build.
    pub profile: Profile,
    /// The row's name.
    pub row: String,
    /// The harness alone, where it has been run: nanoseconds per operation.
    pub harness: Option<Summary>,
    /// Every allocator that ran, in the order of the tables.
    pub cells: Vec<Cell>,
    /// Spandrel's time against the best of the others'.
    pub time: Option<Versus>,
    /// Spandrel's peak of resident memory against the best of the others'.
    pub peak: Option<Versus>,
}

/// One allocator's part of a line.
#[derive(Debug)]
pub struct Cell {
    /// Who.
    pub allocator: &'static str,
    /// Nanoseconds of processor time per operation.
    pub time: Summary,
    /// KiB resident at most.
    pub peak: Summary,
    /// KiB resident after everything was freed.
    pub after: Summary,
    /// Minor page faults.
    pub faults: Summary,
}

/// Spandrel's median over the least of the others' medians: below 1, Spandrel is better.
#[derive(Debug, PartialEq)]
pub struct Versus {
    /// The best of the others.
    pub best: &'static str,
    /// Ours over theirs.
    pub ratio: f64,
}

/// Sorts the samples into lines, in the order in which rows first occur.
pub fn lines(samples: &[Sample]) -> Vec<Line> {
    let mut keys: Vec<(Profile, &str)> = Vec::new();
    for sample in samples {
        let key = (sample.profile, &*sample.row);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let line = |(profile, row): (Profile, &str)| {
        let of = |allocator: &'static str| -> Vec<&Sample> {
            let is = |s: &&Sample| s.profile == profile && s.row == row && s.allocator == allocator;
            samples.iter().filter(is).collect()
        };
        let harness = of(HARNESS);
        let cells: Vec<Cell> =
            ALLOCATORS.iter().filter_map(|a| cell(a.name, &of(a.name))).collect();
        Line {
            profile,
            row: row.to_owned(),
            harness: (!harness.is_empty()).then(|| summary(&harness, Sample::nanos_per_op)),
            time: versus(&cells, |cell| cell.time.median),
            peak: versus(&cells, |cell| cell.peak.median),
            cells,
        }
    };
    keys.into_iter().map(line).collect()
}

fn cell(allocator: &'static str, samples: &[&Sample]) -> Option<Cell> {
    (!samples.is_empty()).then(|| Cell {
        allocator,
        time: summary(samples, Sample::nanos_per_op),
        peak: summary(samples, |s| s.peak_kib as f64),
        after: summary(samples, |s| s.after_kib as f64),
        faults: summary(samples, |s| s.faults as f64),
    })
}

fn summary(samples: &[&Sample], value: fn(&Sample) -> f64) -> Summary {
    Summary::of(samples.iter().copied().map(value).collect())
}

fn versus(cells: &[Cell], value: fn(&Cell) -> f64) -> Option<Versus> {
    let (ours, others): (Vec<&Cell>, _) =
        cells.iter().partition(|cell| cell.allocator == SPANDREL.name);
    let best = others.into_iter().min_by(|a, b| value(a).total_cmp(&value(b)))?;
    Some(Versus { best: best.allocator, ratio: value(ours.first()?) / value(best) })
}

/// What a profile's lines amount to.
#[derive(Debug)]
pub struct Standing {
    /// The geometric mean of the ratios.
    pub mean: f64,
    /// The worst row, and its ratio.
    pub worst: (String, f64),
    /// How many rows there are.
    pub rows: usize,
}

/// Over the lines that have this ratio.
pub fn standing<'a>(
    lines: impl Iterator<Item = &'a Line>,
    ratio: fn(&Line) -> Option<&Versus>,
) -> Option<Standing> {
    standing_of(lines.filter_map(|l| Some((&*l.row, ratio(l)?.ratio))).collect())
}

fn standing_of(ratios: Vec<(&str, f64)>) -> Option<Standing> {
    let worst = ratios.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let logs: f64 = ratios.iter().map(|(_, ratio)| ratio.ln()).sum();
    Some(Standing {
        mean: (logs / ratios.len() as f64).exp(),
        worst: (worst.0.to_owned(), worst.1),
        rows: ratios.len(),
    })
}

/// What an operation costs Spandrel on 16 threads, over what it costs on 2.
pub fn oversubscribed(lines: &[&Line]) -> Option<Standing> {
    let ours = |line: &Line| {
        let cell = line.cells.iter().find(|cell| cell.allocator == SPANDREL.name)?;
        Some(cell.time.median)
    };
    let ratio = |line: &&'_ Line| {
        let pair = format!("{}/t2", line.row.strip_suffix("/t16")?);
        let pair = lines.iter().find(|other| other.row == pair)?;
        Some(ours(line)? / ours(pair)?)
    };
    standing_of(lines.iter().filter_map(|l| Some((&*l.row, ratio(l)?))).collect())
}

/// How resident memory stands to live memory, while sizes drift.
#[derive(Debug, PartialEq)]
pub struct Fragmentation {
    /// At most, once as much is live as will be.
    pub highest: f64,
    /// At the end.
    pub last: f64,
    /// On average over the last quarter.
    pub late: f64,
}

/// Of one allocator.
pub fn fragmentation(moments: &[Moment], allocator: &str) -> Option<Fragmentation> {
    let most = moments.iter().map(|m| m.live_kib).max()?;
    let full = |m: &&Moment| m.allocator == allocator && m.live_kib * 10 >= most * 9;
    let ratios: Vec<f64> =
        moments.iter().filter(full).map(|m| m.rss_kib as f64 / m.live_kib as f64).collect();
    let quarter = &ratios[ratios.len() - ratios.len().div_ceil(4)..];
    Some(Fragmentation {
        highest: ratios.iter().copied().fold(0.0, f64::max),
        last: *ratios.last()?,
        late: quarter.iter().sum::<f64>() / quarter.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tests::sample;

    #[test]
    fn medians_are_held_against_the_best_of_the_others() {
        let mut samples = Vec::new();
        for (round, extra) in [0, 4, 0].into_iter().enumerate() {
            for (allocator, nanos, peak) in
                [("system", 40, 100), ("spandrel", 20, 120), ("mimalloc", 30, 150)]
            {
                samples.push(sample("a/t1", allocator, round as u32, nanos + extra, peak));
                samples.push(sample("b/t1", allocator, round as u32, nanos * nanos, peak));
            }
            samples.push(sample("a/t1", HARNESS, round as u32, 1, 50));
        }
        let lines = lines(&samples);
        assert_eq!(lines.len(), 2);
        let names: Vec<_> = lines[0].cells.iter().map(|c| c.allocator).collect();
        assert_eq!(names, ["spandrel", "mimalloc", "system"]);
        assert_eq!(lines[0].harness.map(|h| h.median), Some(1.0));
        assert_eq!(lines[0].time, Some(Versus { best: "mimalloc", ratio: 20.0 / 30.0 }));
        assert_eq!(lines[0].peak, Some(Versus { best: "system", ratio: 1.2 }));
        let standing = standing(lines.iter(), |l| l.time.as_ref()).unwrap();
        assert!((standing.mean - (2.0_f64 / 3.0).powf(1.5)).abs() < 1e-9, "{standing:?}");
        assert_eq!((&*standing.worst.0, standing.rows), ("a/t1", 2));
    }

    #[test]
    fn sixteen_threads_are_held_against_two() {
        let of = |row, nanos| sample(row, "spandrel", 0, nanos, 1);
        let lines = lines(&[of("a/t1", 9), of("a/t2", 10), of("a/t16", 12), of("b/t16", 99)]);
        let lines: Vec<&Line> = lines.iter().collect();
        let standing = oversubscribed(&lines).unwrap();
        assert_eq!((&*standing.worst.0, standing.worst.1, standing.rows), ("a/t16", 1.2, 1));
    }

    #[test]
    fn fragmentation_is_seen_once_all_is_live() {
        let moment = |(live_kib, rss_kib)| Moment {
            profile: Profile::Fat,
            allocator: "a".to_owned(),
            round: 0,
            allocated_mib: 0,
            live_kib,
            rss_kib,
        };
        let moments = [(10, 90), (100, 150), (100, 110), (100, 120), (100, 130)].map(moment);
        let expected = Fragmentation { highest: 1.5, last: 1.3, late: 1.3 };
        assert_eq!(fragmentation(&moments, "a"), Some(expected));
        assert_eq!(fragmentation(&moments, "b"), None);
    }

    #[test]
    fn nobody_is_compared_with_nobody() {
        let lines = lines(&[sample("a/t1", "spandrel", 0, 1, 1)]);
        assert!(lines[0].time.is_none() && lines[0].harness.is_none());
        assert!(standing(lines.iter(), |l| l.time.as_ref()).is_none());
    }
}
