//! A comparison as a table for people.

use super::report::{Figure, Report, Row};
use crate::written::{bytes, count, seconds};
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
