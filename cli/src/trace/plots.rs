//! A trace as a picture: sizes, lifetimes, and live bytes over time.

use super::file::{Trace, What};
use crate::written::{bytes, count, seconds};
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::collections::HashMap;
use std::path::Path;

const SIZE: (u32, u32) = (960, 900);
const INK: RGBColor = RGBColor(33, 37, 41);
const BARS: RGBColor = RGBColor(0, 109, 119);
/// Points of the curve at most.
const POINTS: usize = 2000;

/// What is drawn.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    /// Requests by power of two: `sizes[k]` of at most 2^k bytes and more than half of that.
    sizes: Vec<u64>,
    /// Blocks by how long they lived: `lifetimes[k]` of less than 10^k nanoseconds and at least a tenth.
    lifetimes: Vec<u64>,
    /// Blocks that were never freed.
    immortal: u64,
    /// Seconds and bytes.
    live: Vec<(f64, f64)>,
}

impl Figures {
    fn of(trace: &Trace) -> Figures {
        let mut figures =
            Figures { sizes: vec![0; 1], lifetimes: vec![0; 1], ..Figures::default() };
        let mut alive: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut moving: HashMap<(u32, u64), (u64, u64)> = HashMap::new();
        let mut live = 0u64;
        let every = trace.events.len().div_ceil(POINTS).max(1);
        let note = |list: &mut Vec<u64>, index: usize| {
            list.resize(list.len().max(index + 1), 0);
            list[index] += 1;
        };
        for (index, event) in trace.events.iter().enumerate() {
            let mut born = event.time;
            let gone = match event.what {
                What::Alloc => None,
                What::Free => alive.remove(&event.at),
                What::Leave => {
                    if let Some(block) = alive.remove(&event.at) {
                        moving.insert((event.thread, event.at), block);
                    }
                    None
                }
                What::Resize if event.old == event.at => alive.remove(&event.at),
                What::Resize => moving.remove(&(event.thread, event.old)),
            };
            if let Some((since, size)) = gone {
                live -= size;
                if event.what == What::Free {
                    let age = event.time - since;
                    note(&mut figures.lifetimes, age.max(1).ilog10() as usize + 1);
                }
                // A block that is resized lives on.
                born = since;
            }
            if matches!(event.what, What::Alloc | What::Resize) {
                note(
                    &mut figures.sizes,
                    event.size.max(1).next_power_of_two().trailing_zeros() as usize,
                );
                live += event.size;
                if let Some((_, size)) = alive.insert(event.at, (born, event.size)) {
                    live -= size;
                }
            }
            if index % every == 0 || index + 1 == trace.events.len() {
                figures.live.push((event.time as f64 / 1e9, live as f64));
            }
        }
        figures.immortal = (alive.len() + moving.len()) as u64;
        figures
    }
}

/// Draws into an SVG file.
pub fn draw(trace: &Trace, to: &Path) -> Result<()> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        panels(&Figures::of(trace), &area).map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    std::fs::write(to, text).with_context(|| format!("--svg {}", to.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn panels(figures: &Figures, area: &Area<'_>) -> Drawn {
    area.fill(&WHITE)?;
    let areas = area.split_evenly((3, 1));
    let size = |index: usize| match index {
        0..64 => bytes((1u64 << index) as f64),
        _ => "more".to_owned(),
    };
    bars(&areas[0], "requests by size, to the next power of two", &figures.sizes, size)?;
    let title = format!("blocks by lifetime; {} were never freed", count(figures.immortal as f64));
    bars(&areas[1], &title, &figures.lifetimes, |index| {
        format!("< {}", seconds(10f64.powi(index as i32) / 1e9))
    })?;
    let end = figures.live.last().map_or(1.0, |point| point.0).max(1e-9);
    let most = figures.live.iter().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&areas[2])
        .caption("bytes asked for and alive", ("sans-serif", 16).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end, 0.0..most * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_label_formatter(&|x| seconds(*x))
        .y_label_formatter(&|y| bytes(*y))
        .draw()?;
    chart.draw_series(
        AreaSeries::new(figures.live.iter().copied(), 0.0, BARS.mix(0.3)).border_style(BARS),
    )?;
    area.present()
}

fn bars(area: &Area<'_>, title: &str, values: &[u64], name: impl Fn(usize) -> String) -> Drawn {
    let first = values.iter().position(|&value| value > 0).unwrap_or(0);
    let values = &values[first..];
    let most = values.iter().copied().max().unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(80)
        .build_cartesian_2d((0..values.len()).into_segmented(), 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(values.len().min(16))
        .x_label_formatter(&|place| match place {
            SegmentValue::CenterOf(index) => name(first + index),
            _ => String::new(),
        })
        .y_label_formatter(&|y| count(*y))
        .draw()?;
    let columns = values.iter().enumerate().map(|(index, &value)| {
        let corners =
            [(SegmentValue::Exact(index), 0.0), (SegmentValue::Exact(index + 1), value as f64)];
        let mut column = Rectangle::new(corners, BARS.filled());
        column.set_margin(0, 0, 2, 2);
        column
    });
    chart.draw_series(columns)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::file::Event;
    use super::*;

    #[test]
    fn sizes_and_lifetimes_fall_into_their_columns() {
        let event = |time, what, at, size| Event {
            time,
            at,
            old: at,
            size,
            align: 0,
            stack: 0,
            thread: 1,
            what,
        };
        let events = vec![
            event(0, What::Alloc, 0x10, 64),
            event(10, What::Alloc, 0x20, 65),
            event(15, What::Leave, 0x20, 0),
            Event { old: 0x20, ..event(20, What::Resize, 0x30, 300) },
            event(95, What::Free, 0x10, 0),
            event(2000, What::Free, 0x30, 0),
            event(3000, What::Alloc, 0x10, 1),
        ];
        let trace = Trace { events, ..Trace::default() };
        let figures = Figures::of(&trace);
        assert_eq!(figures.sizes, [1, 0, 0, 0, 0, 0, 1, 1, 0, 1]);
        assert_eq!(figures.lifetimes, [0, 0, 1, 0, 1], "95 ns are below 100, 1990 below 10000");
        assert_eq!(figures.immortal, 1);
        let live: Vec<_> = figures.live.iter().map(|point| point.1).collect();
        assert_eq!(live, [64.0, 129.0, 129.0, 364.0, 300.0, 0.0, 1.0]);
        let file = tempfile::NamedTempFile::new().unwrap();
        draw(&trace, file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(
            text.starts_with("<svg")
                && text.contains("requests by size")
                && text.contains("1 were never freed")
        );
        draw(&Trace::default(), file.path()).unwrap();
    }
}
