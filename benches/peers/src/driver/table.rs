//! The tables on the terminal.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use crate::{
    cli::Plan,
    count::{Count, Instructions},
    stats::Summary,
    time::{Ratio, Times},
};

/// One table per profile.
pub fn print_times(plan: &Plan, times: &[Times]) {
    for &profile in &plan.profiles {
        println!(
            "\nns of CPU time per alloc+free pair, {}, harness included; \
             median ± half the interquartile range of {} runs of {} ms",
            profile.title(),
            plan.repeat,
            plan.millis,
        );
        let comparison = ["best other", "ratio", "net", "goal"];
        let mut table = header(plan, if plan.compares() { &comparison } else { &[] });
        for line in times.iter().filter(|t| t.profile == profile) {
            let mut row = vec![line.workload.to_owned(), summary(&line.harness)];
            row.extend(line.allocators.iter().map(|(_, s)| summary(s)));
            row.extend(line.ratio.iter().flat_map(ratio));
            table.add_row(row);
        }
        print(table);
        if plan.compares() {
            println!(
                "ratio: time of the best other / time of spandrel, median of the rounds; \
                 net: of the medians, harness subtracted"
            );
        }
    }
}

/// One table per profile.
pub fn print_instructions(plan: &Plan, counted: &[Instructions]) {
    for &profile in &plan.profiles {
        println!("\ninstructions per alloc+free pair, {}, harness subtracted", profile.title());
        let mut table = header(plan, if plan.has_bars(profile) { &["bar"] } else { &[] });
        let mut dies = Vec::new();
        for line in counted.iter().filter(|i| i.profile == profile) {
            let mut row = vec![line.workload.to_owned(), format!("{:.1}", line.harness)];
            for (name, count) in &line.allocators {
                row.push(match count {
                    Count::Counted(n) => format!("{n:.1}"),
                    Count::Dies => "n/a".to_owned(),
                });
                if *count == Count::Dies && !dies.contains(name) {
                    dies.push(name);
                }
            }
            if plan.has_bars(profile) {
                row.push(line.bar.map_or_else(String::new, |bar| format!("≤ {bar}")));
            }
            table.add_row(row);
        }
        print(table);
        for name in dies {
            println!("n/a: {name} dies under valgrind");
        }
    }
}

fn header(plan: &Plan, last: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let names = plan.allocators.iter().map(|a| a.name);
    table
        .set_header(["workload", "(harness)"].into_iter().chain(names).chain(last.iter().copied()));
    table
}

/// Everything but the names of the rows to the right.
fn print(mut table: Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

fn summary(s: &Summary) -> String {
    format!("{:.2} ±{:.0}%", s.median, s.spread_percent)
}

fn ratio(r: &Ratio) -> [String; 4] {
    let times = |x: Option<f64>| x.map_or_else(String::new, |x| format!("{x:.2}x"));
    [r.best.to_owned(), times(Some(r.ratio)), times(r.net), times(r.goal)]
}
