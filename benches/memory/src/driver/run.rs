//! The workers: building them, running them, reading what they print.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use memory::programs::Program;
use memory::worker::Figures;
use serde::Serialize;

/// One column: an allocator in one setting.
#[derive(Debug)]
pub struct Allocator {
    /// As it is called in the tables.
    pub name: &'static str,
    worker: &'static str,
    /// What it needs of this package; none: it is always there.
    pub feature: Option<&'static str>,
    /// Whether it runs on the C library, preloaded.
    pub preloaded: bool,
    /// Whether it is one of the ways to use hugepages, which are compared when asked for.
    pub hugepages: bool,
    idle: &'static str,
    options: &'static str,
}

/// The columns that `--check` holds to the bars.
pub const HELD: [&str; 2] = ["spandrel, background", "spandrel, C door"];

const fn ours(name: &'static str, idle: &'static str, options: &'static str) -> Allocator {
    let worker = "m-spandrel";
    Allocator { name, worker, feature: None, preloaded: false, hugepages: false, idle, options }
}

const fn hugepages(name: &'static str, options: &'static str) -> Allocator {
    Allocator { hugepages: true, ..ours(name, "sleep", options) }
}

const fn peer(name: &'static str, worker: &'static str) -> Allocator {
    Allocator { worker, feature: Some(name), ..ours(name, "sleep", "") }
}

/// All columns. A process that sleeps is served by the background thread alone; one that allocates a
/// little now and then, by its own slow paths. Through the C door the programs are those of the system
/// allocator, on the library.
pub static ALLOCATORS: &[Allocator] = &[
    ours(HELD[0], "sleep", "background=on"),
    ours("spandrel, trickle", "trickle", ""),
    ours("spandrel, asleep", "sleep", ""),
    Allocator { worker: "m-system", preloaded: true, ..ours(HELD[1], "sleep", "background=on") },
    hugepages("spandrel, hugepages=never", "background=on,hugepages=never"),
    hugepages("spandrel, hugepages=always", "background=on,hugepages=always"),
    Allocator { worker: "m-system", ..ours("system", "sleep", "") },
    peer("mimalloc", "m-mimalloc"),
    peer("jemalloc", "m-jemalloc"),
    peer("snmalloc", "m-snmalloc"),
    peer("rpmalloc", "m-rpmalloc"),
];

/// What one program did on one allocator.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The program's name.
    pub program: &'static str,
    /// The column's name.
    pub allocator: &'static str,
    /// The figure that the bar is about, in bytes.
    pub figure: usize,
    /// Bytes resident at the peak and at the end, and what the program still held.
    pub peak: usize,
    /// Bytes resident at the end.
    pub left: usize,
    /// Bytes held by the program itself.
    pub live: usize,
    /// Time its work took, where that is the point.
    pub nanos: usize,
    /// Whether it keeps to the bar.
    pub holds: bool,
    /// Milliseconds and bytes resident, for the chart.
    pub series: Vec<(u64, u64)>,
}

impl Outcome {
    /// The figure for the table.
    pub fn cell(&self, program: &Program) -> String {
        let mark = if program.bar.starts_with('(') || self.holds { "" } else { " !" };
        let figure = self.figure as f64 / 1e6;
        let digits = if figure < 1.0 { 3 } else { 1 };
        let time = match self.nanos {
            0 => String::new(),
            nanos => format!(", {:.2} s", nanos as f64 / 1e9),
        };
        format!("{figure:.digits$}{time}{mark}")
    }
}

fn target() -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    own.unwrap_or_else(|| PathBuf::from("target/release"))
}

/// Builds the workers beside this program.
///
/// Without `debug = 0`, cargo tells snmalloc's build script `DEBUG=true`, and its C++ is a debug build.
pub fn build(allocators: &[&Allocator]) -> Result<()> {
    let mut workers = cargo("memory");
    workers.args(["--no-default-features", "--config", "profile.release.debug=0"]);
    for allocator in allocators {
        workers.args(["--bin", allocator.worker]);
        if let Some(feature) = allocator.feature {
            workers.args(["--features", feature]);
        }
    }
    let bar = ProgressBar::new_spinner().with_message("building the workers");
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    for mut command in [workers, cargo("capi")] {
        let status = command.status().context("cannot start cargo")?;
        ensure!(status.success(), "the workers do not build; the command was {command:?}");
    }
    bar.finish_and_clear();
    Ok(())
}

fn cargo(package: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--release", "--package", package])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    cargo
}

/// Runs every program on every allocator, some at a time.
pub fn all(
    programs: &[&'static Program],
    allocators: &[&'static Allocator],
    at_once: usize,
) -> Result<Vec<Outcome>> {
    let jobs: Vec<_> =
        programs.iter().flat_map(|&p| allocators.iter().map(move |&a| (p, a))).collect();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")?;
    let bar = ProgressBar::new(jobs.len() as u64).with_style(style);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(&(program, allocator)) = jobs.get(next.fetch_add(1, Relaxed)) {
                    let outcome = one(program, allocator);
                    bar.set_message(format!("{} on {}", program.name, allocator.name));
                    bar.inc(1);
                    done.lock().expect("no panic").push(outcome);
                }
            });
        }
    });
    bar.finish_and_clear();
    done.into_inner().expect("no panic").into_iter().collect()
}

fn one(program: &'static Program, allocator: &'static Allocator) -> Result<Outcome> {
    let mut command = Command::new(target().join(allocator.worker));
    command.args([program.name, allocator.idle]).env("SPANDREL", allocator.options);
    if allocator.preloaded {
        command.env("LD_PRELOAD", target().join("libspandrel.so"));
    }
    let output = command.output().context("cannot start a worker")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}\n{said}", output.status);
    }
    let last = text.lines().last().and_then(Figures::parse);
    let figures = last.with_context(|| format!("{command:?} printed `{text}`"))?;
    let series = text.lines().filter_map(|line| {
        let (at, bytes) = line.strip_prefix("at=")?.split_once(" rss=")?;
        Some((at.parse().ok()?, bytes.parse().ok()?))
    });
    Ok(Outcome {
        program: program.name,
        allocator: allocator.name,
        figure: (program.figure)(&figures),
        peak: figures.peak,
        left: figures.left,
        live: figures.live,
        nanos: figures.nanos,
        holds: (program.holds)(&figures),
        series: series.collect(),
    })
}
