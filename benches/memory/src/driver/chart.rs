//! The chart: bytes resident over time while a program works, rests and works again.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::prelude::*;

use crate::run::Outcome;

/// Colours that stay apart for most eyes (Okabe and Ito), ours first.
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

/// Draws every series there is.
pub fn write(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut drawn: Vec<&Outcome> = outcomes.iter().filter(|o| !o.series.is_empty()).collect();
    ensure!(!drawn.is_empty(), "the chart needs the program `series`");
    drawn.sort_by_key(|o| crate::run::ALLOCATORS.iter().position(|a| a.name == o.allocator));
    draw(path, &drawn).with_context(|| format!("cannot draw {}", path.display()))
}

fn draw(path: &Path, drawn: &[&Outcome]) -> Result<()> {
    let seconds = |at: u64| at as f64 / 1000.0;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let all = || drawn.iter().flat_map(|o| &o.series);
    let (end, top) = all().fold((0.0f64, 0.0f64), |(end, top), &(at, bytes)| {
        (end.max(seconds(at)), top.max(mib(bytes)))
    });
    let area = SVGBackend::new(path, (1000, 520)).into_drawing_area();
    let wrong = |error: DrawingAreaErrorKind<std::io::Error>| anyhow!("{error}");
    area.fill(&WHITE).map_err(wrong)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Two bursts of 300 MB, freed, and 20 s of rest after each", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.05)
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds")
        .y_desc("MiB resident")
        .label_style(("sans-serif", 14))
        .draw()
        .map_err(wrong)?;
    for (outcome, colour) in drawn.iter().zip(COLOURS.iter().cycle()) {
        let width = if outcome.allocator.starts_with("spandrel") { 3 } else { 2 };
        let style = colour.stroke_width(width);
        let points = outcome.series.iter().map(|&(at, bytes)| (seconds(at), mib(bytes)));
        chart
            .draw_series(LineSeries::new(points, style))
            .map_err(wrong)?
            .label(outcome.allocator)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(32)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(wrong)?;
    area.present().map_err(wrong)
}
