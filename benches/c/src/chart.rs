//! The chart: Spandrel over the best other, a panel for each figure, a bar for each row.

use crate::rows::{Allocator, FIGURES, Figure, Measured, geometric_mean};
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const PANEL: i32 = 300;
const NAMES: i32 = 170;
const BAR: i32 = 20;
const HEAD: i32 = 84;
const INK: RGBColor = RGBColor(33, 37, 41);
const WON: RGBColor = RGBColor(0, 109, 119);
const LOST: RGBColor = RGBColor(196, 91, 66);

/// The chart as the text of an SVG file.
pub fn of(measured: &[Measured], runs: u32) -> Result<String> {
    let height = HEAD + BAR * (measured.len() as i32 + 1) + 24;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, ((NAMES + 3 * PANEL) as u32, height as u32))
        .into_drawing_area();
    draw(measured, runs, &area).map_err(|error| anyhow!("cannot draw: {error}"))?;
    drop(area);
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn draw(measured: &[Measured], runs: u32, area: &Area<'_>) -> Drawn {
    let ink = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.fill(&WHITE)?;
    area.draw(&Text::new(
        "C and C++ programs: Spandrel over the best of jemalloc, mimalloc and tcmalloc",
        (16, 12),
        ink(18),
    ))?;
    area.draw(&Text::new(
        format!("median of {runs} rounds, taking turns; left of the line Spandrel needs less"),
        (16, 36),
        ink(12),
    ))?;
    let names = measured.iter().map(|row| row.name).chain(["geometric mean"]);
    let right = Pos::new(HPos::Right, VPos::Center);
    for (index, name) in names.enumerate() {
        let y = HEAD + BAR * index as i32 + BAR / 2;
        area.draw(&Text::new(name.to_owned(), (NAMES - 10, y), ink(13).pos(right)))?;
    }
    for (panel, (name, figure)) in
        ["time", "processor time", "peak RSS"].into_iter().zip(FIGURES).enumerate()
    {
        column(measured, area, NAMES + panel as i32 * PANEL, name, figure)?;
    }
    area.present()
}

fn column(
    measured: &[Measured],
    area: &Area<'_>,
    left: i32,
    name: &str,
    figure: fn(&Allocator) -> &Figure,
) -> Drawn {
    let ink = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(name.to_owned(), (left, HEAD - 22), ink(14)))?;
    let mut bars: Vec<(f64, String)> = measured
        .iter()
        .map(|row| row.over_best(figure))
        .map(|(best, r)| (r, best.into()))
        .collect();
    let ratios: Vec<f64> = bars.iter().map(|bar| bar.0).collect();
    bars.push((geometric_mean(&ratios), String::new()));
    let most = bars.iter().map(|bar| bar.0).fold(1.5, f64::max);
    let x = |ratio: f64| left + (f64::from(PANEL - 120) * ratio / most) as i32;
    for (index, (ratio, best)) in bars.iter().enumerate() {
        let y = HEAD + BAR * index as i32;
        let color = if *ratio <= 1.0 { WON } else { LOST };
        area.draw(&Rectangle::new([(left, y + 3), (x(*ratio), y + BAR - 3)], color.filled()))?;
        let label = ink(12).pos(Pos::new(HPos::Left, VPos::Center));
        let text = format!("{ratio:.2}  {best}");
        area.draw(&Text::new(text, (x(ratio.max(1.0)) + 6, y + BAR / 2), label))?;
    }
    let bottom = HEAD + BAR * bars.len() as i32;
    area.draw(&PathElement::new([(x(1.0), HEAD - 4), (x(1.0), bottom + 4)], INK.stroke_width(1)))
}
