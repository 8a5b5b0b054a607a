//! The workers: building them, running them, reading what they print.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::group::Group;
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
    /// Whether it is measured beside ours only when asked for.
    pub peer: bool,
    preload: Preload,
    /// Whether it is one of the ways to use hugepages, which are compared when asked for.
    pub hugepages: bool,
    idle: &'static str,
    options: &'static str,
}

/// What a worker runs on, besides what is built into it.
#[derive(Clone, Copy, Debug)]
enum Preload {
    Nothing,
    /// The C library of this repository.
    Ours,
    /// A library that the system's packages bring, by its file name.
    Installed(&'static str),
}

/// Where packages put libraries: Debian, then the others.
const FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

impl Preload {
    /// The library's path; none is needed, or (`Err`) there is none.
    fn path(self) -> Result<Option<PathBuf>, &'static str> {
        match self {
            Preload::Nothing => Ok(None),
            Preload::Ours => Ok(Some(target().join("libspandrel.so"))),
            Preload::Installed(name) => {
                let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
                places.find(|path| path.exists()).map(Some).ok_or(name)
            }
        }
    }
}

impl Allocator {
    /// The library that it needs and that is not installed.
    pub fn missing(&self) -> Option<&'static str> {
        match self.preload {
            Preload::Installed(_) => self.preload.path().err(),
            Preload::Nothing | Preload::Ours => None,
        }
    }
}

/// The columns that `--check` holds to the bars.
pub const HELD: [&str; 2] = ["spandrel, background", "spandrel, C door"];

/// The programs whose bar they are known to miss: to keep to it is news as well.
const MISSED: [&str; 1] = ["drift"];

impl Outcome {
    /// What is not as it is known to be, of the columns that are held to the bars.
    pub fn news(&self) -> Option<&'static str> {
        match (MISSED.contains(&self.program), self.holds) {
            _ if !HELD.contains(&self.allocator) => None,
            (false, false) => Some("misses the bar of"),
            (true, true) => Some("is not known to keep to the bar of"),
            _ => None,
        }
    }
}

const fn ours(name: &'static str, idle: &'static str, options: &'static str) -> Allocator {
    let (worker, preload) = ("m-spandrel", Preload::Nothing);
    Allocator { name, worker, feature: None, peer: false, preload, hugepages: false, idle, options }
}

const fn hugepages(name: &'static str, options: &'static str) -> Allocator {
    Allocator { hugepages: true, ..ours(name, "sleep", options) }
}

const fn peer(name: &'static str, worker: &'static str) -> Allocator {
    Allocator { worker, feature: Some(name), peer: true, ..ours(name, "sleep", "") }
}

/// A worker of the system allocator on what is preloaded.
const fn on(preload: Preload, name: &'static str, options: &'static str) -> Allocator {
    Allocator { worker: "m-system", preload, ..ours(name, "sleep", options) }
}

/// All columns. A process that sleeps is served by the background thread alone; one that allocates a
/// little now and then, by its own slow paths. Through the C door the programs are those of the system
/// allocator, on the library, and so they are for tcmalloc, as packages bring it.
pub static ALLOCATORS: &[Allocator] = &[
    ours(HELD[0], "sleep", "background=on"),
    ours("spandrel, trickle", "trickle", ""),
    ours("spandrel, asleep", "sleep", ""),
    on(Preload::Ours, HELD[1], "background=on"),
    hugepages("spandrel, hugepages=never", "background=on,hugepages=never"),
    hugepages("spandrel, hugepages=always", "background=on,hugepages=always"),
    on(Preload::Nothing, "system", ""),
    peer("mimalloc", "m-mimalloc"),
    peer("jemalloc", "m-jemalloc"),
    peer("snmalloc", "m-snmalloc"),
    peer("rpmalloc", "m-rpmalloc"),
    Allocator { peer: true, ..on(Preload::Installed("libtcmalloc_minimal.so.4"), "tcmalloc", "") },
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
        if program.group.is_some() && self.figure == 0 {
            return "killed !".to_owned();
        }
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
pub fn build(allocators: &[&Allocator]) -> Result<()> {
    let mut workers = cargo("memory");
    workers.arg("--no-default-features");
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
    let group = program.group.map(Group::make).transpose()?;
    let worker = target().join(allocator.worker);
    let mut command = group.as_ref().map_or_else(|| Command::new(&worker), |g| g.command(&worker));
    command.args([program.name, allocator.idle]).env("SPANDREL", allocator.options);
    match allocator.preload.path() {
        Ok(Some(library)) => _ = command.env("LD_PRELOAD", library),
        Ok(None) => _ = command.env_remove("LD_PRELOAD"),
        Err(name) => bail!("there is no {name}"),
    }
    let output = command.output().context("cannot start a worker")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let killed = group.is_some() && output.status.signal() == Some(libc::SIGKILL);
    if !output.status.success() && !killed {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}\n{said}", output.status);
    }
    let mut figures = Figures::default();
    if !killed {
        let last = text.lines().last().and_then(Figures::parse);
        figures = last.with_context(|| format!("{command:?} printed `{text}`"))?;
        if let Some(group) = &group {
            figures.peak = group.peak()?;
        }
    }
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
