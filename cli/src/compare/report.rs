//! Everything measured, in the form that JSON gets and table and chart are made of.

use super::summary::{Spread, ratios};
use crate::allocators::Allocator;
use crate::measure::Sample;
use serde::Serialize;
use std::ffi::CStr;

/// The outcome of one comparison. The first allocator is Spandrel.
#[derive(Serialize)]
pub struct Report {
    pub command: Vec<String>,
    /// Counted rounds.
    pub runs: usize,
    /// Rounds before them.
    pub warmup: u32,
    pub machine: Machine,
    /// The options of the environment variable SPANDREL that were in force on Spandrel, an item each.
    pub options: Vec<String>,
    pub allocators: Vec<Row>,
}

/// One allocator's figures.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// What was preloaded.
    pub library: Option<String>,
    /// The program's exit code.
    pub exit_code: u8,
    /// Wall time in seconds.
    pub wall_s: Figure,
    /// Processor time in seconds, in the program and in the kernel.
    pub cpu_s: Figure,
    pub peak_rss_bytes: Figure,
    pub page_faults: Figure,
    pub samples: Vec<Sample>,
}

/// One figure over all rounds.
#[derive(Serialize)]
pub struct Figure {
    #[serde(flatten)]
    pub value: Spread,
    /// Over Spandrel's of the same round.
    pub ratio: Spread,
}

/// Where it was measured.
#[derive(Serialize)]
pub struct Machine {
    pub system: String,
    pub c_library: String,
    pub processors: usize,
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        Machine {
            system: format!("{} {}", std::env::consts::ARCH, kernel()),
            c_library: c_library(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The kernel's name and release.
pub fn kernel() -> String {
    // SAFETY: all zeros is a value of this plain struct.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a struct to fill.
    if unsafe { libc::uname(&mut names) } != 0 {
        return "unknown".to_owned();
    }
    let text = |field: &[libc::c_char]| {
        // SAFETY: the kernel ends each field in a zero byte.
        unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned()
    };
    format!("{} {}", text(&names.sysname), text(&names.release))
}

/// The C library and its version.
pub fn c_library() -> String {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: answers a constant string.
        let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("glibc {}", version.to_string_lossy())
    }
    #[cfg(not(target_env = "gnu"))]
    "musl".to_owned()
}

impl Report {
    pub fn new(
        command: Vec<String>,
        warmup: u32,
        machine: Machine,
        options: Vec<String>,
        allocators: &[Allocator],
        samples: Vec<Vec<Sample>>,
    ) -> Report {
        let ours = samples[0].clone();
        let rows = allocators.iter().zip(samples).map(|(allocator, samples)| {
            let figure = |of: fn(&Sample) -> f64| {
                let value = || samples.iter().map(of);
                Figure {
                    value: Spread::of(value()),
                    ratio: Spread::of(ratios(value(), ours.iter().map(of)).collect::<Vec<_>>()),
                }
            };
            Row {
                name: allocator.name.clone(),
                library: allocator.library.as_ref().map(|path| path.display().to_string()),
                exit_code: samples[0].exit_code,
                wall_s: figure(|sample| sample.wall_s),
                cpu_s: figure(Sample::cpu_s),
                peak_rss_bytes: figure(|sample| sample.peak_rss_bytes),
                page_faults: figure(Sample::faults),
                samples,
            }
        });
        let rows: Vec<Row> = rows.collect();
        Report { command, runs: ours.len(), warmup, machine, options, allocators: rows }
    }
}
