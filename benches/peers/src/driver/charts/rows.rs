//! Charts with a line per row: dots on a logarithmic scale.

use anyhow::Result;
use peers::workloads::{GROUPS, Row};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    Area, BAND, FAINT, GOAL, GRID, INK, Series, failed, head, in_drawing_order, text, tick,
};
use crate::{
    analysis::{Cell, Line},
    profile::Profile,
    results::Counted,
    sample::Depth,
    stats::Summary,
};

/// Height of a line.
const LINE: i32 = 14;
/// Room above the plot for title and legend, and below it for the axis.
const ABOVE: i32 = 108;
const BELOW: i32 = 44;
const WIDTH: i32 = 1000;
/// Room left and right of the plot for the names of rows and groups.
const LEFT: i32 = 150;
const RIGHT: i32 = 170;

/// A chart with a line per row.
pub struct Dots {
    title: String,
    about: String,
    axis: &'static str,
    series: Vec<Series>,
    rows: Vec<(String, Vec<Dot>)>,
    /// Values to hold the dots against, and what they are.
    marks: Vec<(f64, String)>,
    ticks: &'static [f64],
}

#[derive(Clone, Copy, Debug)]
struct Dot {
    series: Series,
    value: f64,
    /// To either side of the value, as a part of it.
    spread: f64,
}

/// Time of everybody over the best of the others.
pub fn time(lines: &[&Line], profile: Profile, goals: [f64; 2]) -> Option<Dots> {
    let title = format!("Processor time per operation, {}", profile.title());
    ratios(lines, title, |cell| cell.time, goals)
}

/// Peaks of resident memory of everybody over the best of the others'.
pub fn peak(lines: &[&Line], profile: Profile, goals: [f64; 2]) -> Option<Dots> {
    let title = format!("Peak of resident memory, {}", profile.title());
    ratios(lines, title, |cell| cell.peak, goals)
}

fn ratios(
    lines: &[&Line],
    title: String,
    value: fn(&Cell) -> Summary,
    [mean, worst]: [f64; 2],
) -> Option<Dots> {
    let rows = lines.iter().filter_map(|line| {
        let others = line
            .cells
            .iter()
            .filter(|c| !Series::of_allocator(c.allocator).is_some_and(|s| s.ours));
        let best = others.map(|c| value(c).median).min_by(f64::total_cmp)?;
        Some((line.row.clone(), dots(line, value, best)))
    });
    Dots::new(
        rows.collect(),
        title,
        "median over the median of the best of the others on that row; left is better; bars: half \
         the interquartile range"
            .to_owned(),
        "times the best of the others",
        vec![
            (1.0, String::new()),
            (mean, format!("mean goal {mean}")),
            (worst, format!("row goal {worst}")),
        ],
        &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0],
    )
}

/// What is resident after everything was freed.
pub fn after(lines: &[&Line], profile: Profile) -> Option<Dots> {
    let rows = lines.iter().map(|line| (line.row.clone(), dots(line, |cell| cell.after, 1024.0)));
    Dots::new(
        rows.collect(),
        format!("Resident memory after everything was freed, {}", profile.title()),
        "at once, with no time to give anything back; median; bars: half the interquartile range"
            .to_owned(),
        "MiB",
        Vec::new(),
        &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],
    )
}

/// Medians and spreads, in the unit.
fn dots(line: &Line, summary: fn(&Cell) -> Summary, unit: f64) -> Vec<Dot> {
    let dot = |cell: &Cell| {
        let Summary { median, spread_percent, .. } = summary(cell);
        let series = Series::of_allocator(cell.allocator)?;
        Some(Dot { series, value: median / unit, spread: spread_percent / 100.0 })
    };
    line.cells.iter().filter_map(dot).collect()
}

/// Instructions of everybody over the best of the others.
pub fn instructions(counted: &[Counted], profile: Profile) -> Option<Dots> {
    let mut rows: Vec<(String, Vec<Dot>)> = Vec::new();
    for c in counted.iter().filter(|c| c.profile == profile) {
        let (Some(series), Some(value)) = (Series::of_allocator(&c.allocator), c.instructions)
        else {
            continue;
        };
        let dot = Dot { series, value, spread: 0.0 };
        match rows.last_mut().filter(|(row, _)| *row == c.row) {
            Some((_, dots)) => dots.push(dot),
            None => rows.push((c.row.clone(), vec![dot])),
        }
    }
    for (_, dots) in &mut rows {
        let others = dots.iter().filter(|dot| !dot.series.ours).map(|dot| dot.value);
        let best = others.min_by(f64::total_cmp).unwrap_or(1.0);
        dots.iter_mut().for_each(|dot| dot.value /= best);
    }
    Dots::new(
        rows,
        format!("Instructions per operation, {}", profile.title()),
        "by callgrind, one thread, over the best of the others; who has no mark dies under valgrind"
            .to_owned(),
        "times the best of the others",
        vec![(1.0, String::new())],
        &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0],
    )
}

/// How far the calls of each row go on Spandrel.
pub fn floors(depths: &[Depth]) -> Option<Dots> {
    const NAMES: [(usize, &str); 4] = [
        (0, "leave the thread cache"),
        (1, "miss the transfer cache too"),
        (2, "take or give granules"),
        (5, "ask the system"),
    ];
    let series = NAMES.map(|(style, name)| Series::styled(style, name, false));
    let rows = depths.iter().map(|depth| {
        let rates = series.into_iter().zip(depth.rates()).filter(|(_, rate)| *rate > 0.0);
        let dot = |(series, value)| Dot { series, value, spread: 0.0 };
        (depth.row.clone(), rates.map(dot).collect())
    });
    Dots::new(
        rows.collect(),
        "How far Spandrel's calls go".to_owned(),
        "of all calls to the allocator, the part that goes further than each floor (no dot: none \
         does)"
            .to_owned(),
        "of all calls",
        Vec::new(),
        &[1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
    )
}

impl Dots {
    fn new(
        rows: Vec<(String, Vec<Dot>)>,
        title: String,
        about: String,
        axis: &'static str,
        marks: Vec<(f64, String)>,
        ticks: &'static [f64],
    ) -> Option<Self> {
        let mut series: Vec<Series> = Vec::new();
        for dot in rows.iter().flat_map(|(_, dots)| dots) {
            if !series.contains(&dot.series) {
                series.push(dot.series);
            }
        }
        (!series.is_empty()).then_some(Self { title, about, axis, series, rows, marks, ticks })
    }

    /// Width and height of the page.
    pub fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (ABOVE + LINE * self.rows.len() as i32 + BELOW) as u32)
    }

    /// Draws it.
    pub fn draw(&self, area: &Area<'_>) -> Result<()> {
        head(area, &self.title, &self.about, &self.series)?;
        let bottom = ABOVE + LINE * self.rows.len() as i32;
        let [low, high] = self.range();
        let x = |value: f64| {
            let part = (value / low).ln() / (high / low).ln();
            LEFT + (part * f64::from(WIDTH - LEFT - RIGHT)).round() as i32
        };
        self.rules(area, bottom)?;
        let upright = |value, style| {
            let ends = vec![(x(value), ABOVE), (x(value), bottom)];
            area.draw(&PathElement::new(ends, style)).map_err(failed)
        };
        let centred = Pos::new(HPos::Center, VPos::Top);
        let small = |colour: RGBColor| ("sans-serif", 12).into_font().color(&colour).pos(centred);
        for &value in self.ticks.iter().filter(|t| (low..=high).contains(*t)) {
            upright(value, GRID.stroke_width(1))?;
            let label = Text::new(tick(value), (x(value), bottom + 6), small(INK));
            area.draw(&label).map_err(failed)?;
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2;
        let axis = Text::new(self.axis, (middle, bottom + 24), small(FAINT));
        area.draw(&axis).map_err(failed)?;
        for (n, (value, name)) in self.marks.iter().enumerate() {
            upright(
                *value,
                if name.is_empty() { INK.stroke_width(1) } else { GOAL.stroke_width(2) },
            )?;
            // Left of the one, right of the other, so that neighbours do not meet.
            let side = if n % 2 == 1 { HPos::Right } else { HPos::Left };
            let style = small(FAINT).pos(Pos::new(side, VPos::Top));
            area.draw(&Text::new(name.clone(), (x(*value), ABOVE - 17), style)).map_err(failed)?;
        }
        for series in in_drawing_order(self.series.clone()) {
            for (n, (_, dots)) in self.rows.iter().enumerate() {
                let y = ABOVE + LINE * n as i32 + LINE / 2;
                for Dot { value, spread, .. } in dots.iter().filter(|dot| dot.series == series) {
                    let at = |value: f64| (x(value.clamp(low, high)), y);
                    let ends = vec![at(value * (1.0 - spread)), at(value * (1.0 + spread))];
                    let bar = PathElement::new(ends, series.colour.stroke_width(1));
                    area.draw(&bar).map_err(failed)?;
                    area.draw(&series.dot(at(*value))).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// The names of rows and groups, bands below every other row, lines between groups.
    fn rules(&self, area: &Area<'_>, bottom: i32) -> Result<()> {
        let mut group = None;
        for (n, (name, _)) in self.rows.iter().enumerate() {
            let y = ABOVE + LINE * n as i32;
            if n % 2 == 0 {
                let band = [(LEFT, y), (WIDTH - RIGHT, y + LINE)];
                area.draw(&Rectangle::new(band, BAND.filled())).map_err(failed)?;
            }
            text(area, name, (16, y + 1), 12, INK)?;
            let of_row = Row::find(name).map(|row| row.workload.group);
            if of_row != group {
                group = of_row;
                let rule = vec![(16, y), (WIDTH - 16, y)];
                area.draw(&PathElement::new(rule, GOAL.stroke_width(1))).map_err(failed)?;
                if let Some(group) = group {
                    let title = format!("{group}  {}", GROUPS[usize::from(group)]);
                    text(area, &title, (WIDTH - RIGHT + 8, y + 1), 12, FAINT)?;
                }
            }
        }
        let frame = [(LEFT, ABOVE), (WIDTH - RIGHT, bottom)];
        area.draw(&Rectangle::new(frame, GOAL.stroke_width(1))).map_err(failed)
    }

    /// The ends of the axis: ticks around all dots.
    fn range(&self) -> [f64; 2] {
        let values = || {
            let dots = self.rows.iter().flat_map(|(_, dots)| dots.iter().map(|dot| dot.value));
            dots.chain(self.marks.iter().map(|(value, _)| *value))
        };
        let (least, most) = values().fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(v), b.max(v)));
        let below = self.ticks.iter().copied().rfind(|t| *t <= least);
        let above = self.ticks.iter().copied().find(|t| *t >= most);
        [below.unwrap_or(self.ticks[0]), above.unwrap_or(self.ticks[self.ticks.len() - 1])]
    }
}
