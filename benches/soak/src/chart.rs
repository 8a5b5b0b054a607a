//! Two panels over time: memory, and how long calls take.

use super::Sample;
use anyhow::Result;
use plotters::prelude::*;
use std::path::Path;

const COLOURS: [RGBColor; 3] =
    [RGBColor(31, 119, 180), RGBColor(255, 127, 14), RGBColor(44, 160, 44)];

type Curve<'a> = (&'a str, fn(&Sample) -> f64);

/// Writes the chart.
pub fn draw(path: &Path, samples: &[Sample]) -> Result<()> {
    let root = SVGBackend::new(path, (900, 620)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(310);
    panel(
        &upper,
        "memory, MB",
        samples,
        &[("resident", |s| s.resident as f64 / 1e6), ("live", |s| s.live as f64 / 1e6)],
    )?;
    panel(
        &lower,
        "a call, ns, log2",
        samples,
        &[
            ("99.9 %", |s| log2(s.latency[2])),
            ("99 %", |s| log2(s.latency[1])),
            ("median", |s| log2(s.latency[0])),
        ],
    )?;
    root.present()?;
    Ok(())
}

fn log2(nanos: u64) -> f64 {
    (nanos.max(1) as f64).log2()
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    samples: &[Sample],
    curves: &[Curve<'_>],
) -> Result<()> {
    let end = samples.last().map_or(1.0, |s| s.seconds / 60.0);
    let all = curves.iter().flat_map(|(_, f)| samples.iter().map(f));
    let top = all.fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().x_desc("minutes").light_line_style(WHITE).draw()?;
    for (&(name, f), colour) in curves.iter().zip(COLOURS) {
        let points = samples.iter().map(|s| (s.seconds / 60.0, f(s)));
        chart
            .draw_series(LineSeries::new(points, colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE.mix(0.8))
        .position(SeriesLabelPosition::LowerRight)
        .draw()?;
    Ok(())
}
