//! The report as Markdown: `README.md` beside the figures, and `table.md`, which the project's own
//! README shows.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use peers::workloads::{GROUPS, Row};

use crate::{
    allocators::ALLOCATORS,
    analysis::{self, Cell, Line, Versus},
    profile::Profile,
    results::Results,
    sample::{FloorCost, Moment},
    table::{three_digits, verdicts},
};

/// Writes both files.
pub fn write(out: &Path, results: &Results, charts: &[String]) -> Result<()> {
    for (name, text) in [("README.md", report(results, charts)), ("table.md", summary(results))] {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A line per group, then every row that loses.
fn summary(results: &Results) -> String {
    let mut text = String::new();
    let profiles = results.profiles();
    let heads: Vec<String> = profiles
        .iter()
        .flat_map(|p| {
            ["time", "worst row", "peak RSS", "worst row"].map(|w| format!("{w}, {}", p.title()))
        })
        .collect();
    row(&mut text, "group", &heads);
    rule(&mut text, heads.len());
    for (number, name) in (1..).zip(&GROUPS[1..]) {
        let in_group =
            |line: &&Line| Row::find(&line.row).is_some_and(|r| r.workload.group == number);
        let cells = profiles.iter().flat_map(|&p| {
            let lines = || results.table_lines(p).filter(in_group);
            standing(lines(), |l| l.time.as_ref())
                .into_iter()
                .chain(standing(lines(), |l| l.peak.as_ref()))
        });
        let cells: Vec<String> = cells.collect();
        if cells.iter().any(|c| !c.is_empty()) {
            row(&mut text, &format!("{number}. {name}"), &cells);
        }
    }
    let all = profiles.iter().flat_map(|&p| {
        let lines = || results.table_lines(p);
        standing(lines(), |l| l.time.as_ref())
            .into_iter()
            .chain(standing(lines(), |l| l.peak.as_ref()))
    });
    row(&mut text, "**all**", &all.collect::<Vec<_>>());
    for &profile in &profiles {
        let goals = [("time", profile.time_goal()[1]), ("peak RSS", Profile::PEAK_GOAL[1])];
        let ratios: [fn(&Line) -> Option<&Versus>; 2] = [|l| l.time.as_ref(), |l| l.peak.as_ref()];
        for ((what, goal), ratio) in goals.into_iter().zip(ratios) {
            let losing = results.table_lines(profile).filter_map(|l| Some((l, ratio(l)?)));
            let mut losing: Vec<_> = losing.filter(|(_, v)| v.ratio > goal).collect();
            losing.sort_by(|a, b| b.1.ratio.total_cmp(&a.1.ratio));
            let rows =
                losing.iter().map(|(l, v)| format!("`{}` {:.2} ({})", l.row, v.ratio, v.best));
            let rows: Vec<String> = rows.collect();
            let rows = if rows.is_empty() { "none".to_owned() } else { rows.join(", ") };
            let title = profile.title();
            let _ = write!(text, "\nRows over the goal of {goal:.2} in {what}, {title}: {rows}.\n");
        }
    }
    text
}

fn standing<'a>(
    lines: impl Iterator<Item = &'a Line>,
    ratio: fn(&Line) -> Option<&Versus>,
) -> [String; 2] {
    analysis::standing(lines, ratio).map_or_else(Default::default, |s| {
        [format!("{:.2}", s.mean), format!("`{}` {:.2}", s.worst.0, s.worst.1)]
    })
}

/// Everything: how it ran, where Spandrel stands, the charts, the tables.
fn report(results: &Results, charts: &[String]) -> String {
    let mut text = String::from(
        "# Spandrel and its peers: what was measured\n\nWritten by the command below; the figures \
         of every single run are in `samples.csv`.\n\n```text\n",
    );
    text += results.about.trim_end();
    text += "\n```\n\n";
    for verdict in verdicts(results) {
        let _ = writeln!(text, "- {verdict}");
    }
    text.push('\n');
    text += &summary(results);
    for chart in charts {
        let _ = write!(text, "\n![{}]({chart})\n", chart.trim_end_matches(".svg"));
    }
    for profile in results.profiles() {
        let lines: Vec<&Line> = results.table_lines(profile).collect();
        let title = profile.title();
        heading(
            &mut text,
            &format!("Time, {title}"),
            "Nanoseconds of processor time per operation, ± half the interquartile range; ratio: \
             Spandrel over the best other.",
        );
        lines_table(
            &mut text,
            &lines,
            |l| l.time.as_ref(),
            |c| format!("{} ±{:.0}%", three_digits(c.time.median), c.time.spread_percent),
        );
        heading(
            &mut text,
            &format!("Memory, {title}"),
            "MiB resident at most (after everything was freed); ratio of the peaks.",
        );
        lines_table(
            &mut text,
            &lines,
            |l| l.peak.as_ref(),
            |c| {
                let mib = |kib: f64| three_digits(kib / 1024.0);
                format!("{} ({})", mib(c.peak.median), mib(c.after.median))
            },
        );
    }
    counted(&mut text, results);
    floors(&mut text, results);
    costs(&mut text, results);
    fragmentation(&mut text, &results.moments);
    workloads(&mut text);
    text
}

fn lines_table(
    text: &mut String,
    lines: &[&Line],
    ratio: fn(&Line) -> Option<&Versus>,
    cell: impl Fn(&Cell) -> String,
) {
    let names: Vec<&str> = ALLOCATORS.iter().map(|a| a.name).collect();
    let heads: Vec<String> =
        names.iter().copied().chain(["best other", "ratio"]).map(str::to_owned).collect();
    row(text, "row", &heads);
    rule(text, heads.len());
    for line in lines {
        let of = |name: &&str| line.cells.iter().find(|c| c.allocator == *name).map(&cell);
        let mut cells: Vec<String> = names.iter().map(|n| of(n).unwrap_or_default()).collect();
        cells.extend(ratio(line).map_or_else(Default::default, |v| {
            let ratio = format!("{:.2}", v.ratio);
            [v.best.to_owned(), if v.ratio > 1.0 { format!("**{ratio}**") } else { ratio }]
        }));
        row(text, &line.row, &cells);
    }
}

fn counted(text: &mut String, results: &Results) {
    let mut rows: Vec<(Profile, &str)> = Vec::new();
    for counted in &results.counted {
        if !rows.contains(&(counted.profile, &*counted.row)) {
            rows.push((counted.profile, &counted.row));
        }
    }
    if rows.is_empty() {
        return;
    }
    heading(
        text,
        "Instructions",
        "Per operation, by callgrind, one thread; of the short loops the harness is \
         subtracted. Empty: dies under valgrind.",
    );
    let mut heads = vec!["build".to_owned()];
    heads.extend(ALLOCATORS.iter().map(|a| a.name.to_owned()));
    row(text, "row", &heads);
    rule(text, heads.len());
    for (profile, name) in rows {
        let of = |allocator: &str| {
            let is = |c: &&crate::results::Counted| {
                c.profile == profile && c.row == name && c.allocator == allocator
            };
            results.counted.iter().find(is).and_then(|c| c.instructions)
        };
        let mut cells = vec![profile.title().to_owned()];
        cells.extend(
            ALLOCATORS.iter().map(|a| of(a.name).map_or_else(String::new, |n| format!("{n:.1}"))),
        );
        row(text, name, &cells);
    }
}

fn floors(text: &mut String, results: &Results) {
    if results.depths.is_empty() {
        return;
    }
    heading(
        text,
        "How far calls go",
        "Of 1000 calls to the allocator, so many of Spandrel's go further than each \
         floor.",
    );
    let heads =
        ["calls", "thread cache", "transfer cache", "spans", "page heap"].map(str::to_owned);
    row(text, "row", &heads);
    rule(text, heads.len());
    for depth in &results.depths {
        let mut cells = vec![depth.calls.to_string()];
        cells.extend(depth.rates().map(|rate| format!("{:.4}", 1000.0 * rate)));
        row(text, &depth.row, &cells);
    }
}

fn costs(text: &mut String, results: &Results) {
    if results.costs.is_empty() {
        return;
    }
    heading(
        text,
        "What a step on each floor costs",
        "There and back, nanoseconds of processor time.",
    );
    row(text, "floor", &["step", "build", "ns"].map(str::to_owned));
    rule(text, 3);
    for FloorCost { floor, step, ns, profile } in &results.costs {
        row(text, floor, &[step.clone(), profile.title().to_owned(), three_digits(*ns)]);
    }
}

fn fragmentation(text: &mut String, moments: &[Moment]) {
    if moments.is_empty() {
        return;
    }
    heading(
        text,
        "Fragmentation",
        "Resident over live memory while sizes drift. A program that replaces its 128 MiB once a \
         second does so 600 times in ten minutes, and so does a full run, only faster: what \
         returns memory by the clock has less time for it.",
    );
    row(
        text,
        "allocator",
        &["highest", "at the end", "mean of the last quarter"].map(str::to_owned),
    );
    rule(text, 3);
    for allocator in ALLOCATORS.iter().map(|a| a.name) {
        if let Some(f) = analysis::fragmentation(moments, allocator) {
            row(text, allocator, &[f.highest, f.last, f.late].map(|r| format!("{r:.2}")));
        }
    }
}

fn workloads(text: &mut String) {
    heading(
        text,
        "The rows",
        "`/t2` is on two threads. Peaks and remainders are of the whole process.",
    );
    *text += "| workload | group | what |\n|---|---|---|\n";
    for workload in peers::workloads::workloads() {
        let group = GROUPS[usize::from(workload.group)];
        let _ = writeln!(text, "| {} | {} | {} |", workload.name, group, workload.about);
    }
}

fn heading(text: &mut String, title: &str, about: &str) {
    let _ = write!(text, "\n## {title}\n\n{about}\n\n");
}

fn row(text: &mut String, first: &str, cells: &[String]) {
    let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
}

fn rule(text: &mut String, columns: usize) {
    let _ = writeln!(text, "|---|{}", "--:|".repeat(columns));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Sample, tests::sample};

    #[test]
    fn the_report_names_winners_and_losers() {
        let samples =
            [("same/t1", 5, 100), ("mixed/t2", 30, 300)].iter().flat_map(|&(row, ns, kib)| {
                [sample(row, "spandrel", 0, ns, kib), sample(row, "system", 0, 10, 200)]
            });
        let samples: Vec<Sample> = samples.collect();
        let results = Results { lines: analysis::lines(&samples), ..Results::default() };
        let text = report(&results, &["time-fat.svg".to_owned()]);
        for expected in [
            "| 1. short loops | 0.50 | `same/t1` 0.50 | 0.50 | `same/t1` 0.50 |",
            "| **all** | 1.22 | `mixed/t2` 3.00 | 0.87 | `mixed/t2` 1.50 |",
            "Rows over the goal of 1.05 in time, fat LTO: `mixed/t2` 3.00 (system).",
            "Rows over the goal of 1.25 in peak RSS, fat LTO: `mixed/t2` 1.50 (system).",
            "![time-fat](time-fat.svg)",
            "| same/t1 | 5.00 ±0% |  |  |  |  | 10.0 ±0% | system | 0.50 |",
            "| mixed/t2 | 30.0 ±0% |  |  |  |  | 10.0 ±0% | system | **3.00** |",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
