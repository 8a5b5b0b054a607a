//! `spandrel compare`: a program on every allocator of this machine, taking turns.

mod report;
pub use report::{c_library, kernel};
mod summary;
pub use summary::{Spread, ratios};
mod svg;
mod table;

use crate::allocators::{self, Allocator};
use crate::measure::{self, Input, Sample};
use crate::options::InForce;
use crate::written::quietly;
use crate::{Refusal, program, run};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use report::{Machine, Report};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

/// More rounds than anybody waits for.
pub const MOST_ROUNDS: i64 = 1_000_000;

/// Run a program on Spandrel, on the system's malloc and on every other allocator found, taking turns,
/// and report time, processor time, peak memory and page faults.
///
/// The program's output is dropped. Ratios are medians over the rounds of an allocator's figure over
/// Spandrel's in the same round, so a machine that gets slower for a while does not bend them. The options
/// of the environment variable SPANDREL (see `spandrel run --help`) hold for the program on Spandrel.
#[derive(clap::Args)]
pub struct Arguments {
    /// How often the program runs on each allocator.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=MOST_ROUNDS))]
    runs: u32,
    /// Rounds before these that are not counted.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(..=MOST_ROUNDS))]
    warmup: u32,
    /// One more allocator: its library, and a name for it.
    #[arg(long, value_name = "NAME=PATH")]
    with: Vec<String>,
    /// Only these allocators beside Spandrel, divided by commas: `system`, or a name that is installed. What
    /// --with names is there in any case.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Write everything measured as JSON; `-` for stdout, in the table's place.
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Draw a chart.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The program's input at every run; `-` for what this command gets. Without it, nothing.
    #[arg(long, value_name = "FILE|-")]
    input: Option<PathBuf>,
    /// Use this library instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Measures and reports. The answer is the exit code the program had on every allocator.
pub fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let program = program::find(&arguments.command[0])?;
    for note in &program.notes {
        eprintln!("spandrel: note: {note}");
    }
    let options = InForce::said();
    let allocators =
        allocators::line_up(arguments.library.as_deref(), &arguments.with, &arguments.only)?;
    let input = Input::of(arguments.input.as_deref())?;
    let outputs = Outputs::open(arguments)?;
    let mut samples = vec![Vec::new(); allocators.len()];

    let rounds = arguments.warmup + arguments.runs;
    let progress = ProgressBar::new(u64::from(rounds) * allocators.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}")?);
    let mut expected: Option<(u8, &str)> = None;
    for round in 0..rounds {
        for turn in 0..allocators.len() {
            // Another allocator begins each round, so none always runs behind the same neighbour.
            let index = (turn + round as usize) % allocators.len();
            let allocator = &allocators[index];
            progress.set_message(allocator.name.clone());
            let (sample, errors) = once(&program.path, &arguments.command, allocator, &input)?;
            let code = sample.exit_code;
            let (usual, usual_on) = *expected.get_or_insert((code, &allocator.name));
            if code != usual {
                progress.finish_and_clear();
                let culprit = if usual == 0 { code } else { usual.max(code) };
                return Err(Refusal::new(
                    culprit,
                    format!(
                        "{}: {} on {}, after {} on {usual_on}; stopped in round {}{errors}",
                        program.path.display(),
                        ending(code),
                        allocator.name,
                        ending(usual),
                        round + 1
                    ),
                )
                .into());
            }
            if round == 0 && turn == 0 && code != 0 {
                progress.suspend(|| {
                    eprintln!("spandrel: note: {}{errors}", ending(code));
                });
            }
            if round >= arguments.warmup {
                samples[index].push(sample);
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    let command: Vec<String> =
        arguments.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let machine = Machine::this();
    let report =
        Report::new(command, arguments.warmup, machine, options.items, &allocators, samples);
    outputs.deliver(&report)?;
    Ok(ExitCode::from(expected.map_or(0, |(code, _)| code)))
}

/// Where the report goes, opened before anything is measured: a path that cannot be written to is told now,
/// not when all rounds are over. What a file holds stays until then.
struct Outputs<'a> {
    /// The table's place is the JSON's.
    json_for_table: bool,
    json: Option<(&'a Path, File)>,
    svg: Option<(&'a Path, File)>,
}

impl Outputs<'_> {
    fn open(arguments: &Arguments) -> Result<Outputs<'_>> {
        let open = |flag: &str, path: &'_ Path| {
            File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .with_context(|| format!("{flag} {}", path.display()))
        };
        let json = arguments.json.as_deref();
        let json_for_table = json == Some(Path::new("-"));
        Ok(Outputs {
            json_for_table,
            json: match json.filter(|_| !json_for_table) {
                Some(path) => Some((path, open("--json", path)?)),
                None => None,
            },
            svg: match arguments.svg.as_deref() {
                Some(path) => Some((path, open("--svg", path)?)),
                None => None,
            },
        })
    }

    /// The terminal first: what was measured is seen whatever becomes of the files.
    fn deliver(self, report: &Report) -> Result<()> {
        let json = serde_json::to_string_pretty(report)?;
        let mut stdout = std::io::stdout().lock();
        let shown = if self.json_for_table { json.clone() } else { table::of(report) };
        let shown = quietly(writeln!(stdout, "{shown}"));
        if let Some((path, file)) = self.json {
            fill(file, &json).with_context(|| format!("--json {}", path.display()))?;
        }
        if let Some((path, file)) = self.svg {
            fill(file, &svg::of(report)?).with_context(|| format!("--svg {}", path.display()))?;
        }
        shown
    }
}

/// Writes all of a file anew.
fn fill(mut file: File, text: &str) -> std::io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(text.as_bytes())
}

/// One run, and the last lines of its stderr, ready to stand below a message.
fn once(
    program: &Path,
    command: &[OsString],
    allocator: &Allocator,
    input: &Input,
) -> Result<(Sample, String)> {
    let mut errors = tempfile::tempfile()?;
    let preload = allocator.library.as_deref().map(|library| run::preload([library]));
    let streams = [input.again()?, Stdio::null(), errors.try_clone()?.into()];
    let sample = measure::run(program, command, preload.as_deref(), streams)?;
    let length = errors.seek(std::io::SeekFrom::End(0))?;
    errors.seek(std::io::SeekFrom::Start(length.saturating_sub(2000)))?;
    let mut text = Vec::new();
    errors.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.trim_end().lines().rev().take(10).collect();
    let tail = lines.iter().rev().map(|line| format!("\n  | {line}")).collect();
    Ok((sample, tail))
}

/// An exit code in words.
fn ending(code: u8) -> String {
    match code {
        0 => "success".to_owned(),
        129..=192 => {
            // SAFETY: answers a string of the C library's, of this thread until its next call.
            let name = unsafe { libc::strsignal(i32::from(code) - 128) };
            if name.is_null() {
                return format!("ended by signal {}", code - 128);
            }
            // SAFETY: not null, so a string that ends in a zero byte.
            let name = unsafe { std::ffi::CStr::from_ptr(name) };
            format!("ended by signal {} ({})", code - 128, name.to_string_lossy())
        }
        _ => format!("exit code {code}"),
    }
}
