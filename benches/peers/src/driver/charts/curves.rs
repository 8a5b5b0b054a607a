//! Charts with a curve per allocator.

use anyhow::Result;
use plotters::{coord::Shift, prelude::*};

use super::{Area, FAINT, GOAL, GRID, INK, Series, failed, head, in_drawing_order, text, tick};
use crate::{allocators::ALLOCATORS, analysis::Line, profile::FRAGMENTATION_GOAL, sample::Moment};

type Points = Vec<(f64, f64)>;

/// A plot of curves.
struct Panel<'a> {
    title: &'a str,
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
    /// Where the x axis is marked, and with what; if empty, at regular distances.
    x_labels: &'a [(f64, String)],
    x_title: &'a str,
    y_title: &'a str,
    curves: Vec<(Series, Points)>,
    dots: bool,
}

impl Panel<'_> {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
        text(area, self.title, (70, 4), 14, INK)?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(26)
            .margin_left(10)
            .margin_right(20)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x.clone(), self.y.clone())
            .map_err(failed)?;
        let label = ("sans-serif", 12).into_font().color(&INK);
        let mut mesh = chart.configure_mesh();
        mesh.label_style(label.clone())
            .axis_desc_style(("sans-serif", 12).into_font().color(&FAINT))
            .axis_style(GOAL)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .y_labels(6)
            .y_label_formatter(&|y| tick(*y))
            .y_desc(self.y_title)
            .x_desc(self.x_title);
        if self.x_labels.is_empty() {
            mesh.x_labels(6).x_label_formatter(&|x| tick(*x));
        } else {
            mesh.x_labels(0);
        }
        mesh.draw().map_err(failed)?;
        let (left, top) = area.get_base_pixel();
        for (x, name) in self.x_labels {
            let (px, py) = chart.backend_coord(&(*x, self.y.start));
            let at = (px - left - 4 * name.len() as i32, py - top + 6);
            text(area, name, at, 12, INK)?;
        }
        for series in in_drawing_order(self.curves.iter().map(|(s, _)| *s).collect()) {
            let points = self.curves.iter().filter(|(s, _)| *s == series).flat_map(|(_, p)| p);
            let inside: Points =
                points.map(|&(x, y)| (x, y.clamp(self.y.start, self.y.end))).collect();
            let style = series.colour.stroke_width(if series.ours { 3 } else { 2 });
            chart.draw_series(LineSeries::new(inside.iter().copied(), style)).map_err(failed)?;
            for at in inside.iter().filter(|_| self.dots) {
                let (x, y) = chart.backend_coord(at);
                area.draw(&series.dot((x - left, y - top))).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// The first curve of every allocator, in the order of the tables.
fn curves(of: impl Fn(&str) -> Points) -> Vec<(Series, Points)> {
    let curve = |name| Some((Series::of_allocator(name)?, of(name)));
    let curves = ALLOCATORS.iter().filter_map(|a| curve(a.name));
    curves.filter(|(_, points)| !points.is_empty()).collect()
}

fn highest(curves: &[(Series, Points)]) -> f64 {
    curves.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(0.0, f64::max)
}

fn legend(curves: &[(Series, Points)]) -> Vec<Series> {
    curves.iter().map(|(series, _)| *series).collect()
}

/// Resident beside live memory while sizes drift, and one over the other.
pub fn fragmentation(area: &Area<'_>, moments: &[Moment]) -> Result<()> {
    let first = (moments[0].profile, moments[0].round);
    let gib = |m: &Moment| m.allocated_mib as f64 / 1024.0;
    let of = |name: &str, y: fn(&Moment) -> f64| -> Points {
        let is = |m: &&Moment| m.allocator == name && (m.profile, m.round) == first;
        moments.iter().filter(is).map(|m| (gib(m), y(m))).collect()
    };
    let mib = |kib: u64| kib as f64 / 1024.0;
    let mut resident = curves(|name| of(name, |m| m.rss_kib as f64 / 1024.0));
    let ratios = curves(|name| of(name, |m| m.rss_kib as f64 / m.live_kib as f64));
    let names = legend(&resident);
    let live = Series { name: "live", colour: INK, ..names[0] };
    let live = Series { ours: false, ..live };
    let asked = moments.iter().filter(|m| m.allocator == moments[0].allocator);
    let asked = asked.map(|m| (gib(m), mib(m.live_kib))).collect();
    resident.push((live, asked));
    head(
        area,
        "Fragmentation: resident memory while sizes drift",
        "128 MiB of blocks of 256 B..1 KiB drift to 8..32 KiB and back; black: what the program \
         holds",
        &names,
    )?;
    let most = moments.iter().map(gib).fold(0.0, f64::max);
    let (_, plots) = area.split_vertically(90);
    let (upper, lower) = plots.split_vertically(330);
    Panel {
        title: "",
        x: 0.0..most,
        y: 0.0..highest(&resident) * 1.05,
        x_labels: &[],
        x_title: "GiB allocated and freed",
        y_title: "MiB resident",
        curves: resident,
        dots: false,
    }
    .draw(&upper)?;
    let goal = Series { name: "goal", colour: GOAL, ..live };
    let mut with_goal = ratios;
    let top = highest(&with_goal).clamp(1.5, 4.0);
    with_goal.push((goal, vec![(0.0, FRAGMENTATION_GOAL), (most, FRAGMENTATION_GOAL)]));
    Panel {
        title: "resident over live; grey: the goal of 1.15",
        x: 0.0..most,
        y: 0.9..top,
        x_labels: &[],
        x_title: "GiB allocated and freed",
        y_title: "resident / live",
        curves: with_goal,
        dots: false,
    }
    .draw(&lower)
}

/// The curves of one workload against the number of threads.
pub struct ThreadPanel {
    workload: String,
    threads: Vec<u32>,
    curves: Vec<(Series, Points)>,
}

/// The workloads that were measured on more numbers of threads than the tables have, under the
/// profile that comes first.
pub fn thread_panels(lines: &[Line]) -> Vec<ThreadPanel> {
    let Some(profile) = lines.first().map(|line| line.profile) else {
        return Vec::new();
    };
    let parsed = |line: &Line| -> Option<(String, u32)> {
        let (workload, threads) = line.row.split_once("/t")?;
        Some((workload.to_owned(), threads.parse().ok()?))
    };
    let mut panels: Vec<ThreadPanel> = Vec::new();
    for line in lines.iter().filter(|line| line.profile == profile) {
        let Some((workload, threads)) = parsed(line) else { continue };
        match panels.iter_mut().find(|p| p.workload == workload) {
            Some(panel) => panel.threads.push(threads),
            None => panels.push(ThreadPanel { workload, threads: vec![threads], curves: vec![] }),
        }
    }
    panels.retain_mut(|panel| {
        panel.threads.sort_unstable();
        panel.threads.len() >= 4
    });
    for panel in &mut panels {
        let point = |name: &str, &threads: &u32| {
            let row = format!("{}/t{threads}", panel.workload);
            let line = lines.iter().find(|l| l.profile == profile && l.row == row)?;
            let cell = line.cells.iter().find(|c| c.allocator == name)?;
            Some((f64::from(threads).log2(), cell.time.median))
        };
        panel.curves = curves(|name| panel.threads.iter().filter_map(|t| point(name, t)).collect());
    }
    panels
}

/// Cost per operation against the number of threads, a panel per workload.
pub fn threads(area: &Area<'_>, panels: &[ThreadPanel]) -> Result<()> {
    head(
        area,
        "Cost against threads",
        "ns of processor time per operation, all threads together; the machine has two cores",
        &legend(&panels[0].curves),
    )?;
    let (_, plots) = area.split_vertically(90);
    for (panel, place) in panels.iter().zip(plots.split_evenly((panels.len().div_ceil(3), 3))) {
        let labels: Vec<_> =
            panel.threads.iter().map(|&t| (f64::from(t).log2(), t.to_string())).collect();
        let most = labels.last().map_or(1.0, |(x, _)| *x);
        Panel {
            title: &panel.workload,
            x: -0.2..most + 0.2,
            y: 0.0..highest(&panel.curves) * 1.05,
            x_labels: &labels,
            x_title: "threads",
            y_title: "ns",
            curves: panel.curves.clone(),
            dots: true,
        }
        .draw(&place)?;
    }
    Ok(())
}

/// The live heaps of the rows `heap-...`, in MiB, with their names.
const HEAPS: [(&str, f64, &str); 4] = [
    ("heap-10m/t1", 10.0, "10 MiB"),
    ("heap-100m/t1", 100.0, "100 MiB"),
    ("heap-1g/t1", 1024.0, "1 GiB"),
    ("heap-8g/t1", 8192.0, "8 GiB"),
];

/// Cost per operation against the size of the live heap.
pub fn heap_points(lines: &[Line]) -> Vec<(Series, Points)> {
    let point = |name: &str, &(row, mib, _): &(&str, f64, &str)| {
        let cell =
            lines.iter().find(|l| l.row == row)?.cells.iter().find(|c| c.allocator == name)?;
        Some((mib.log2(), cell.time.median))
    };
    curves(|name| HEAPS.iter().filter_map(|heap| point(name, heap)).collect())
}

/// Draws what `heap_points` found.
pub fn heap(area: &Area<'_>, curves: &[(Series, Points)]) -> Result<()> {
    head(
        area,
        "Cost against the live heap",
        "objects of 1 KiB replaced all over the heap, 10 MiB at a time, their contents left alone",
        &legend(curves),
    )?;
    let (_, plot) = area.split_vertically(84);
    let labels = HEAPS.map(|(_, mib, name)| (mib.log2(), name.to_owned()));
    Panel {
        title: "",
        x: 3.0..13.3,
        y: 0.0..highest(curves) * 1.05,
        x_labels: &labels,
        x_title: "live",
        y_title: "ns of processor time per object freed and allocated",
        curves: curves.to_vec(),
        dots: true,
    }
    .draw(&plot)
}
