//! The tables on the terminal.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use crate::{
    analysis::{self, Cell, Line, Standing, Versus},
    cli::Plan,
    count::{Count, Instructions},
    profile::Profile,
    stats::Summary,
};

/// Time, peak and remainder of resident memory: a table each per profile, and what they amount to.
pub fn print_lines(plan: &Plan, lines: &[Line]) {
    let compares: [&str; 2] = ["best other", "ratio"];
    for &profile in &plan.profiles {
        let of_profile = || lines.iter().filter(move |line| line.profile == profile);
        let title = profile.title();
        println!(
            "\nns of processor time per operation, {title}, harness included; median ± half the \
             interquartile range"
        );
        let mut table = header(plan, &["(harness)"], &compares);
        for line in of_profile() {
            let mut row = vec![line.row.clone()];
            row.push(line.harness.as_ref().map_or_else(String::new, time));
            row.extend(line.cells.iter().map(|cell| time(&cell.time)));
            row.extend(line.time.iter().flat_map(versus));
            table.add_row(row);
        }
        print(table);

        println!("\nMiB resident at most, {title}; in brackets, after everything was freed");
        let mut table = header(plan, &[], &compares);
        for line in of_profile() {
            let mut row = vec![line.row.clone()];
            row.extend(line.cells.iter().map(memory));
            row.extend(line.peak.iter().flat_map(versus));
            table.add_row(row);
        }
        print(table);

        println!("\nthousands of minor page faults, {title}");
        let mut table = header(plan, &[], &[]);
        for line in of_profile() {
            let faults = line.cells.iter().map(|c| three_digits(c.faults.median / 1000.0));
            table.add_row(std::iter::once(line.row.clone()).chain(faults));
        }
        print(table);

        let time = analysis::standing(of_profile(), |line| line.time.as_ref());
        let peak = analysis::standing(of_profile(), |line| line.peak.as_ref());
        for (what, standing, goal) in
            [("time", time, profile.time_goal()), ("peak RSS", peak, Profile::PEAK_GOAL)]
        {
            if let Some(standing) = standing {
                println!("{}", verdict(&format!("{title}, {what}"), &standing, goal));
            }
        }
    }
}

fn verdict(what: &str, standing: &Standing, [mean_goal, worst_goal]: [f64; 2]) -> String {
    let Standing { mean, worst: (row, worst), rows } = standing;
    format!(
        "{what}, spandrel / best other: geometric mean of {rows} rows {mean:.3} (goal {mean_goal:.2}), \
         worst {row} {worst:.2} (goal {worst_goal:.2})"
    )
}

/// One table per profile.
pub fn print_instructions(plan: &Plan, counted: &[Instructions]) {
    for &profile in &plan.profiles {
        println!("\ninstructions per operation, {}, harness subtracted", profile.title());
        let bars = if plan.has_bars(profile) { &["bar"][..] } else { &[] };
        let mut table = header(plan, &["(harness)"], bars);
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

fn header(plan: &Plan, first: &[&str], last: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let names = plan.allocators.iter().map(|a| a.name);
    let last = if plan.compares() || last.len() == 1 { last } else { &[] };
    let first = ["row"].into_iter().chain(first.iter().copied());
    table.set_header(first.chain(names).chain(last.iter().copied()));
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
