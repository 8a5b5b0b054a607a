//! The strategies as a table.

use super::{Cost, Outcome};
use crate::trace::workload::Workload;
use crate::written::{bytes, seconds};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

/// The whole text, without a line end.
pub fn of(rows: &[Outcome], load: &Workload) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "",
        "footprint",
        "over live",
        "internal",
        "external",
        "alloc: steps",
        "most",
        "time",
        "free: steps",
        "most",
        "time",
    ]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut stopped = String::new();
    for row in rows {
        let share =
            |part: u64| format!("{:.1} %", 100.0 * part as f64 / row.footprint.max(1) as f64);
        let mut cells = vec![
            Cell::new(row.name),
            right(bytes(row.footprint as f64)),
            right(format!("{:.2}", row.footprint as f64 / row.peak_live.max(1) as f64)),
            right(share(row.internal)),
            right(share(row.external)),
        ];
        for cost in [&row.alloc, &row.free] {
            cells.extend(costs(cost).map(right));
        }
        table.add_row(cells);
        if row.served < load.ops.len() {
            stopped.push_str(&format!(
                "\n{} was stopped after {} of {} operations: its row is of these (--steps)",
                row.name,
                row.served,
                load.ops.len()
            ));
        }
    }
    let note = load.note().map(|note| format!("\n{note}")).unwrap_or_default();
    format!(
        "{table}\n{} operations on {} blocks, at most {} alive at a time\n\
         footprint: the highest address in use, for spandrel memory it held; over live: over the most bytes \
         alive\n\
         internal, external: bytes in blocks beyond what was asked for, free bytes between them, when the \
         footprint was largest\n\
         steps of a call on average and at most; spandrel's are the floors a call visited{stopped}{note}",
        load.ops.len(),
        load.blocks,
        bytes(load.peak_live as f64)
    )
}

fn costs(cost: &Cost) -> [String; 3] {
    let most = cost.most.map_or("-".to_owned(), |most| most.to_string());
    [format!("{:.2}", cost.mean()), most, seconds(cost.time() / 1e9)]
}
