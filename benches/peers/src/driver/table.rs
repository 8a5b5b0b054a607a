//! The tables on the terminal.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use peers::workloads::Row;

use crate::{
    allocators::{ALLOCATORS, SPANDREL},
    analysis::{self, Cell, Line, Standing, Versus},
    cli::Plan,
    count::{Count, Instructions},
    profile::{FRAGMENTATION_GOAL, Profile},
    results::{self, Results},
    sample::{Depth, FloorCost},
    stats::Summary,
};

/// Per profile a table each of time, memory and page faults, and what they amount to; then what is
/// only charted, and how far calls went.
pub fn print_results(results: &Results) {
    for profile in results.profiles() {
        let lines: Vec<&Line> = results.table_lines(profile).collect();
        let title = profile.title();
        println!(
            "\nns of processor time per operation, {title}, harness included; median ± half the \
             interquartile range"
        );
        print_times(&lines);

        println!("\nMiB resident at most, {title}; in brackets, after everything was freed");
        let mut table = header(&lines, &[], true);
        for line in &lines {
            let mut row = vec![line.row.clone()];
            row.extend(cells(&lines, line, memory));
            row.extend(line.peak.iter().flat_map(versus));
            table.add_row(row);
        }
        print(table);

        println!("\nthousands of minor page faults, {title}");
        let mut table = header(&lines, &[], false);
        for line in &lines {
            let faults = |cell: &Cell| three_digits(cell.faults.median / 1000.0);
            table.add_row(std::iter::once(line.row.clone()).chain(cells(&lines, line, faults)));
        }
        print(table);
    }
    let in_table = |line: &&Line| Row::find(&line.row).is_none_or(|row| !row.is_charted_only());
    let charted: Vec<&Line> = results.lines.iter().filter(|line| !in_table(line)).collect();
    if !charted.is_empty() {
        println!("\nns of processor time per operation, for the charts only");
        print_times(&charted);
    }
    for cost in &results.costs {
        let FloorCost { floor, step, ns, profile } = cost;
        println!("{}, {floor}: {step}: {} ns", profile.title(), three_digits(*ns));
    }
    if !results.depths.is_empty() {
        println!("\nof 1000 calls to the allocator, so many of spandrel's go further than");
        print_depths(&results.depths);
    }
    println!();
    for verdict in verdicts(results) {
        println!("{verdict}");
    }
    for line in results.about.lines().skip(results::ABOUT_LINES) {
        println!("{line}");
    }
}

fn print_times(lines: &[&Line]) {
    let mut table = header(lines, &["(harness)"], true);
    for line in lines {
        let mut row = vec![line.row.clone()];
        row.push(line.harness.as_ref().map_or_else(String::new, time));
        row.extend(cells(lines, line, |cell| time(&cell.time)));
        row.extend(line.time.iter().flat_map(versus));
        table.add_row(row);
    }
    print(table);
}

fn print_depths(depths: &[Depth]) {
    let columns = ["calls", "thread cache", "transfer cache", "spans", "page heap"];
    let mut table = headed(columns.into_iter());
    for depth in depths {
        let rates = depth.rates().map(|rate| format!("{:.4}", 1000.0 * rate));
        table.add_row([depth.row.clone(), depth.calls.to_string()].into_iter().chain(rates));
    }
    print(table);
}

/// A sentence per profile and measure: where Spandrel stands against its goals.
pub fn verdicts(results: &Results) -> Vec<String> {
    let mut verdicts = Vec::new();
    for profile in results.profiles() {
        let time = analysis::standing(results.table_lines(profile), |line| line.time.as_ref());
        let peak = analysis::standing(results.table_lines(profile), |line| line.peak.as_ref());
        let both = [("time", time, profile.time_goal()), ("peak RSS", peak, Profile::PEAK_GOAL)];
        for (what, standing, goal) in both {
            if let Some(standing) = standing {
                let what = format!("{}, {what}, spandrel / best other", profile.title());
                verdicts.push(verdict(&what, &standing, goal));
            }
        }
        let lines: Vec<&Line> = results.table_lines(profile).collect();
        if let Some(standing) = analysis::oversubscribed(&lines) {
            let what = format!("{}, time, spandrel on 16 threads / on 2", profile.title());
            verdicts.push(verdict(&what, &standing, Profile::OVERSUBSCRIBED_GOAL));
        }
    }
    if let Some(f) = analysis::fragmentation(&results.moments, SPANDREL.name) {
        let analysis::Fragmentation { highest, last, late } = f;
        verdicts.push(format!(
            "fragmentation, resident / live of spandrel: at most {highest:.2}, over the last quarter \
             {late:.2}, at the end {last:.2} (goal {FRAGMENTATION_GOAL})"
        ));
    }
    verdicts
}

fn verdict(what: &str, standing: &Standing, [mean_goal, worst_goal]: [f64; 2]) -> String {
    let Standing { mean, worst: (row, worst), rows } = standing;
    format!(
        "{what}: geometric mean of {rows} rows {mean:.3} (goal {mean_goal:.2}), worst {row} \
         {worst:.2} (goal {worst_goal:.2})"
    )
}

/// One table per profile.
pub fn print_instructions(plan: &Plan, counted: &[Instructions]) {
    for &profile in &plan.profiles {
        println!("\ninstructions per operation, {}, harness subtracted", profile.title());
        let bar = plan.has_bars(profile).then_some("bar");
        let names = plan.allocators.iter().map(|a| a.name);
        let mut table = headed(["(harness)"].into_iter().chain(names).chain(bar));
        let mut dies = Vec::new();
        for line in counted.iter().filter(|i| i.profile == profile) {
            let mut row = vec![line.row.clone()];
            row.push(line.harness.map_or_else(String::new, |n| format!("{n:.1}")));
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

/// The allocators that occur in any of the lines.
fn names(lines: &[&Line]) -> Vec<&'static str> {
    let occurs = |name| lines.iter().any(|l| l.cells.iter().any(|c| c.allocator == name));
    ALLOCATORS.iter().map(|a| a.name).filter(|name| occurs(*name)).collect()
}

/// One text per allocator, empty for who did not run or died.
fn cells(lines: &[&Line], line: &Line, text: impl Fn(&Cell) -> String) -> Vec<String> {
    let cell = |name| line.cells.iter().find(|cell| cell.allocator == name);
    names(lines).into_iter().map(|name| cell(name).map_or_else(String::new, &text)).collect()
}

fn header(lines: &[&Line], first: &[&str], compares: bool) -> Table {
    let last: &[&str] = if compares && lines.iter().any(|l| l.time.is_some()) {
        &["best other", "ratio"]
    } else {
        &[]
    };
    headed(first.iter().copied().chain(names(lines)).chain(last.iter().copied()))
}

fn headed<'a>(columns: impl Iterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(std::iter::once("row").chain(columns));
    table
}

/// Everything but the names of the rows to the right.
fn print(mut table: Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

fn time(s: &Summary) -> String {
    format!("{} ±{:.0}%", three_digits(s.median), s.spread_percent)
}

fn memory(cell: &Cell) -> String {
    let mib = |kib: &Summary| three_digits(kib.median / 1024.0);
    format!("{} ({})", mib(&cell.peak), mib(&cell.after))
}

/// As many decimals as there is use for.
pub fn three_digits(x: f64) -> String {
    let decimals = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else {
        2
    };
    format!("{x:.decimals$}")
}

fn versus(versus: &Versus) -> [String; 2] {
    [versus.best.to_owned(), format!("{:.2}", versus.ratio)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_of_everything() {
        assert_eq!(
            [0.1234, 12.34, 123.4, 12345.6].map(three_digits),
            ["0.12", "12.3", "123", "12346"]
        );
    }
}
