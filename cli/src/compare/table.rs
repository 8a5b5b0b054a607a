//! A comparison as a table for people.

use super::report::{Figure, Report, Row};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

/// One of the figures that are shown.
pub struct Shown {
    /// What it is called.
    pub name: &'static str,
    /// Where it is.
    pub of: fn(&Row) -> &Figure,
    /// How its values are written.
    pub written: fn(f64) -> String,
}

/// All of them, in order.
pub const SHOWN: [Shown; 4] = [
    Shown { name: "time", of: |row| &row.wall_s, written: seconds },
    Shown { name: "processor time", of: |row| &row.cpu_s, written: seconds },
    Shown { name: "peak RSS", of: |row| &row.peak_rss_bytes, written: bytes },
    Shown { name: "page faults", of: |row| &row.page_faults, written: count },
];

/// The whole text, without a line end.
pub fn of(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let heads = SHOWN.iter().flat_map(|shown| [shown.name, "x"]);
    table.set_header(std::iter::once("").chain(heads));
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for row in &report.allocators {
        let mut cells = vec![Cell::new(&row.name)];
        for Shown { of, written, .. } in SHOWN {
            let Figure { value, ratio } = of(row);
            let spread = 100.0 * value.relative();
            cells.push(right(format!("{} ±{spread:.0}%", written(value.median))));
            cells.push(right(format!("{:.2}", ratio.median)));
        }
        table.add_row(cells);
    }
    let runs = if report.runs == 1 { "1 run".to_owned() } else { format!("{} runs", report.runs) };
    format!(
        "{table}\n{runs} on each of {} allocators, taking turns; medians, ± half the distance of the \
         quartiles; x: over spandrel's",
        report.allocators.len()
    )
}

/// Seconds with three significant digits.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{} ms", three(s * 1e3)),
        s => format!("{} s", three(s)),
    }
}

/// Bytes with three significant digits.
fn bytes(bytes: f64) -> String {
    let mebibytes = bytes / 1_048_576.0;
    if mebibytes < 1024.0 {
        format!("{} MiB", three(mebibytes))
    } else {
        format!("{} GiB", three(mebibytes / 1024.0))
    }
}

/// A count with three significant digits.
fn count(count: f64) -> String {
    match count {
        n if n < 10_000.0 => format!("{n:.0}"),
        n if n < 999_500.0 => format!("{} k", three(n / 1e3)),
        n => format!("{} M", three(n / 1e6)),
    }
}

fn three(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        assert_eq!(seconds(0.001234), "1.23 ms");
        assert_eq!(seconds(0.9996), "1.00 s");
        assert_eq!(seconds(0.9994), "999 ms");
        assert_eq!(seconds(83.21), "83.2 s");
        assert_eq!(bytes(3.5 * 1_048_576.0), "3.50 MiB");
        assert_eq!(bytes(2048.0 * 1_048_576.0), "2.00 GiB");
        assert_eq!(count(9999.0), "9999");
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(count(2_500_000.0), "2.50 M");
    }
}
