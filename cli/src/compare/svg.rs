//! A comparison as a chart: a panel for each figure, a bar for each allocator.

use super::report::Report;
use super::table::{SHOWN, Shown};
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 960;
const BAR: u32 = 22;
const PANEL_HEAD: u32 = 34;
const OURS: RGBColor = RGBColor(0, 109, 119);
const OTHERS: RGBColor = RGBColor(170, 178, 189);
const INK: RGBColor = RGBColor(33, 37, 41);

/// The chart as the text of an SVG file.
pub fn of(report: &Report) -> Result<String> {
    let panel = PANEL_HEAD + BAR * report.allocators.len() as u32 + 14;
    let head = 52;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, head + 2 * panel)).into_drawing_area();
    draw(report, &area, head, panel).map_err(|error| anyhow!("cannot draw: {error}"))?;
    drop(area);
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn draw(report: &Report, area: &Area<'_>, head: u32, panel: u32) -> Drawn {
    area.fill(&WHITE)?;
    let mut command = report.command.join(" ");
    if command.chars().count() > 90 {
        command = command.chars().take(89).chain(['…']).collect();
    }
    area.draw(&Text::new(command, (16, 12), ("sans-serif", 18).into_font().color(&INK)))?;
    let (head, body) = area.split_vertically(head);
    head.draw(&Text::new(
        format!(
            "medians of {} runs, taking turns; lines from quartile to quartile; {}, {}",
            report.runs, report.machine.system, report.machine.c_library
        ),
        (16, 34),
        ("sans-serif", 12).into_font().color(&INK),
    ))?;
    let (top, bottom) = body.split_vertically(panel);
    let halves = [top.split_horizontally(WIDTH / 2), bottom.split_horizontally(WIDTH / 2)];
    let areas = halves.iter().flat_map(|(left, right)| [left, right]);
    for (area, shown) in areas.zip(&SHOWN) {
        bars(report, area, shown)?;
    }
    area.present()
}

fn bars(report: &Report, area: &Area<'_>, shown: &Shown) -> Drawn {
    let figure = shown.of;
    let ink = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(shown.name, (16, 10), ink(15)))?;
    // Names to the left of the bars, values to their right.
    let (left, right) = (112, WIDTH as i32 / 2 - 130);
    let spreads = || report.allocators.iter().map(|row| figure(row).value);
    let most = spreads().map(|spread| spread.upper_quartile).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| left + (f64::from(right - left) * value / most) as i32;
    for (index, row) in report.allocators.iter().enumerate() {
        let y = (PANEL_HEAD + BAR * index as u32) as i32;
        let middle = y + BAR as i32 / 2 - 1;
        let (spread, ratio) = (figure(row).value, figure(row).ratio.median);
        let color = if index == 0 { OURS } else { OTHERS };
        let label = ink(13).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(row.name.clone(), (left - 8, middle), label))?;
        let corners = [(left, y + 2), (x(spread.median), y + BAR as i32 - 4)];
        area.draw(&Rectangle::new(corners, color.filled()))?;
        let whisker = [(x(spread.lower_quartile), middle), (x(spread.upper_quartile), middle)];
        area.draw(&PathElement::new(whisker, INK.stroke_width(1)))?;
        let value = format!("{}  {ratio:.2}x", (shown.written)(spread.median));
        let place = (x(spread.median.max(spread.upper_quartile)) + 8, middle);
        let label = ink(13).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(value, place, label))?;
    }
    Ok(())
}
