//! The charts, as SVG.
//!
//! Colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart;
//! shapes tell the same once more. Spandrel's dots are larger than the others and drawn last.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    element::{DynElement, IntoDynElement},
    prelude::*,
};

use crate::{
    allocators::{ALLOCATORS, SPANDREL},
    analysis::Line,
    profile::Profile,
    results::Results,
    table,
};

mod curves;
mod rows;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x77, 0x77, 0x77);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const BAND: RGBColor = RGBColor(0xf5, 0xf5, 0xf5);
const GOAL: RGBColor = RGBColor(0x99, 0x99, 0x99);

/// Who a dot or a curve belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Series {
    name: &'static str,
    colour: RGBColor,
    shape: Shape,
    /// Drawn larger.
    ours: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Disc,
    Square,
    Diamond,
    Up,
    Down,
    Cross,
}

const STYLES: [(RGBColor, Shape); 6] = [
    (RGBColor(0xd5, 0x5e, 0x00), Shape::Disc),
    (RGBColor(0x00, 0x72, 0xb2), Shape::Square),
    (RGBColor(0x00, 0x9e, 0x73), Shape::Up),
    (RGBColor(0xcc, 0x79, 0xa7), Shape::Diamond),
    (RGBColor(0xe6, 0x9f, 0x00), Shape::Down),
    (RGBColor(0x55, 0x55, 0x55), Shape::Cross),
];

impl Series {
    fn styled(index: usize, name: &'static str, ours: bool) -> Self {
        let (colour, shape) = STYLES[index];
        Self { name, colour, shape, ours }
    }

    fn of_allocator(name: &str) -> Option<Self> {
        let index = ALLOCATORS.iter().position(|a| a.name == name)?;
        let name = ALLOCATORS[index].name;
        Some(Self::styled(index, name, name == SPANDREL.name))
    }

    /// The dot, around a point of the chart or of the page.
    fn dot<'a, C>(self, at: C) -> DynElement<'a, SVGBackend<'a>, C>
    where
        C: Clone + 'a,
        EmptyElement<C, SVGBackend<'a>>: 'a,
    {
        let r = if self.ours { 5 } else { 4 };
        let fill = self.colour.filled();
        let at = EmptyElement::at(at);
        let polygon = |corners: Vec<(i32, i32)>| Polygon::new(corners, fill);
        match self.shape {
            Shape::Disc => (at + Circle::new((0, 0), r, fill)).into_dyn(),
            Shape::Square => {
                (at + Rectangle::new([(1 - r, 1 - r), (r - 1, r - 1)], fill)).into_dyn()
            }
            Shape::Diamond => (at + polygon(vec![(0, -r), (r, 0), (0, r), (-r, 0)])).into_dyn(),
            Shape::Up => (at + polygon(vec![(0, -r), (r, r - 1), (-r, r - 1)])).into_dyn(),
            Shape::Down => (at + polygon(vec![(0, r), (r, 1 - r), (-r, 1 - r)])).into_dyn(),
            Shape::Cross => {
                (at + Cross::new((0, 0), r - 1, self.colour.stroke_width(2))).into_dyn()
            }
        }
    }
}

/// The others first, Spandrel last, so that nothing hides it.
fn in_drawing_order(mut series: Vec<Series>) -> Vec<Series> {
    series.sort_by_key(|s| s.ours);
    series
}

/// Draws every chart for which there are figures into the directory; says which.
pub fn draw(out: &Path, results: &Results) -> Result<Vec<String>> {
    let mut drawn = Vec::new();
    let mut page = |name: String, size, draw: &dyn Fn(&Area<'_>) -> Result<()>| -> Result<()> {
        let path = out.join(&name);
        let area = SVGBackend::new(&path, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        draw(&area)?;
        area.present().map_err(failed)?;
        drawn.push(name);
        Ok(())
    };
    let profiles: BTreeSet<Profile> = results.lines.iter().map(|l| l.profile).collect();
    for profile in profiles {
        let lines: Vec<&Line> = results.table_lines(profile).collect();
        let [mean, worst] = profile.time_goal();
        for (what, dots) in [
            ("time", rows::time(&lines, profile, [mean, worst])),
            ("peak", rows::peak(&lines, profile, Profile::PEAK_GOAL)),
            ("after", rows::after(&lines, profile)),
        ] {
            if let Some(dots) = dots {
                let name = format!("{what}-{}.svg", profile.name());
                page(name, dots.size(), &|area| dots.draw(area))?;
            }
        }
    }
    for profile in [Profile::Fat, Profile::Release] {
        if let Some(dots) = rows::instructions(&results.counted, profile) {
            let name = format!("instructions-{}.svg", profile.name());
            page(name, dots.size(), &|area| dots.draw(area))?;
        }
    }
    if let Some(dots) = rows::floors(&results.depths) {
        page("floors.svg".into(), dots.size(), &|area| dots.draw(area))?;
    }
    if !results.moments.is_empty() {
        page("fragmentation.svg".into(), (1000, 760), &|area| {
            curves::fragmentation(area, &results.moments)
        })?;
    }
    let threads = curves::thread_panels(&results.lines);
    if !threads.is_empty() {
        page("threads.svg".into(), (1000, 700), &|area| curves::threads(area, &threads))?;
    }
    let heap = curves::heap_points(&results.lines);
    if !heap.is_empty() {
        page("heap.svg".into(), (1000, 460), &|area| curves::heap(area, &heap))?;
    }
    Ok(drawn)
}

/// Plotters' errors borrow what they are about.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a chart: {error}")
}

/// A title, a line below it, and who is who on a third.
fn head(area: &Area<'_>, title: &str, about: &str, series: &[Series]) -> Result<()> {
    text(area, title, (16, 12), 20, INK)?;
    text(area, about, (16, 38), 13, FAINT)?;
    let mut x = 24;
    for series in series {
        area.draw(&series.dot((x, 69))).map_err(failed)?;
        text(area, series.name, (x + 10, 62), 14, INK)?;
        x += 40 + 8 * series.name.len() as i32;
    }
    Ok(())
}

/// Text whose upper left corner is there.
fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, colour: RGBColor) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&colour);
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
}

/// A number on an axis.
fn tick(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        let text = table::three_digits(value);
        if value < 0.01 {
            return format!("{value:.0e}");
        }
        let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
        text.trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis,
        results::Counted,
        sample::{Depth, Moment, Sample, tests::sample},
    };

    fn results() -> Results {
        let rows = ["same/t1", "mixed/t1", "mixed/t2", "mixed/t4", "mixed/t8", "heap-1g/t1"];
        let samples = rows.iter().flat_map(|row| {
            ALLOCATORS.iter().zip(1..).map(|(a, n)| sample(row, a.name, 0, 10 * n, 3000))
        });
        let samples: Vec<Sample> = samples.collect();
        let moment = |allocator: &str| Moment {
            profile: Profile::Fat,
            allocator: allocator.to_owned(),
            round: 0,
            allocated_mib: 1000,
            live_kib: 1000,
            rss_kib: 1100,
        };
        let counted = |allocator: &str| Counted {
            profile: Profile::Fat,
            row: "same/t1".to_owned(),
            allocator: allocator.to_owned(),
            instructions: Some(12.0),
        };
        let depth = Depth {
            profile: Profile::Fat,
            row: "same/t1".to_owned(),
            calls: 1000,
            refills: 10,
            spills: 10,
            transfer_misses: 1,
            transfer_refusals: 0,
            spans_begun: 1,
            spans_died: 0,
            page_takes: 1,
            page_gives: 0,
            system_calls: 0,
        };
        Results {
            lines: analysis::lines(&samples),
            moments: vec![moment("spandrel"), moment("system")],
            depths: vec![depth],
            counted: ["spandrel", "system"].map(counted).into(),
            ..Results::default()
        }
    }

    #[test]
    fn every_chart_is_drawn() {
        let out = std::env::temp_dir().join(format!("peers-charts-{}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        let drawn = draw(&out, &results()).unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        let texts: Vec<String> = drawn.iter().map(|name| read(name)).collect();
        std::fs::remove_dir_all(&out).unwrap();
        let names = [
            "time-fat.svg",
            "peak-fat.svg",
            "after-fat.svg",
            "instructions-fat.svg",
            "floors.svg",
            "fragmentation.svg",
            "threads.svg",
            "heap.svg",
        ];
        assert_eq!(drawn, names);
        assert!(texts.iter().all(|t| t.starts_with("<svg") && t.trim_end().ends_with("</svg>")));
        assert!(texts[0].contains("same/t1") && texts[0].contains("jemalloc"));
        // What is only charted stands in no table.
        assert!(!texts[0].contains("mixed/t4") && !texts[0].contains("heap-1g"));
        assert!(texts[6].contains("mixed") && texts[7].contains("8 GiB"));
    }

    #[test]
    fn ticks_are_short() {
        let ticks = [1e-7, 0.001, 0.05, 0.5, 1.0, 2.5, 10.0, 3000.0].map(tick);
        assert_eq!(ticks, ["1e-7", "1e-3", "0.05", "0.5", "1", "2.5", "10", "3000"]);
    }
}
