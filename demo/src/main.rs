//! `demo`: the same service on Spandrel and on other allocators, side by side in one run.
//!
//! Each run is a process of its own, given the same fixed number of requests; allocators take turns, and every other
//! round goes in reverse order, so that a machine that drifts is unfair to all of them alike. This binary itself runs on
//! the system allocator: when a service dies, it is there to say so.

use std::{
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use demo::{
    report::{RunResult, Runs, Verdict},
    runner::{Allocator, Binaries, Profile},
    service_main::{ANYWHERE, MAX_THREADS, SERVE_HELP, capacity_range},
};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

/// Rounds when the time allows.
const ROUNDS: u32 = 5;
/// A run of this length, start and end included, is mostly load: fewer rounds rather than shorter runs.
const GOOD_RUN: Duration = Duration::from_secs(3);
/// Less than this per run measures the start of the process and little else.
const SHORTEST_RUN: Duration = Duration::from_secs(2);
/// Seconds of measuring, and the same with the peers.
const SECONDS: (u64, u64) = (40, 120);
/// Idle time before the last look at a service's memory.
const SETTLE: Duration = Duration::from_secs(1);
const CALIBRATION_REQUESTS: u64 = 2_000;

/// Run a JSON document service on Spandrel and on other allocators, and compare
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Latency is measured in a closed loop: a connection sends its next request when the last answer is in.
CPU s, p50, p99 and p99.9 cover the measured requests; peak RSS the whole process; loaded RSS is taken at the
end of the load, final RSS one second after load and store are dropped."
)]
struct Cli {
    /// Seconds to measure in all, building not counted [default: 40, with --peers 120]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: Option<u64>,
    /// Threads of each kind: serving, worker pool, load [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_THREADS)))]
    threads: Option<u16>,
    /// Documents the service keeps
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = capacity_range())]
    capacity: u32,
    /// Compare with mimalloc, jemalloc, snmalloc and rpmalloc as well; needs C and C++ compilers and cmake
    #[arg(long)]
    peers: bool,
    /// Run Spandrel once more in each round, with its heap profile on, and say what that costs
    #[arg(long)]
    profile_cost: bool,
    /// The cargo profile to build the services with
    #[arg(long, value_enum, default_value_t = Profile::Fat)]
    profile: Profile,
    /// Fail when Spandrel is slower, or its peak memory higher, than the best other
    #[arg(long)]
    check: bool,
    /// By how many percent --check lets it be so, for the noise of the machine
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = percent, requires = "check")]
    tolerance: f64,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Serve on Spandrel without a load until a signal (Ctrl-C) ends it, at ADDR, or at a free port of the loopback
    /// interface; prints where it listens
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = ANYWHERE,
        conflicts_with_all = ["seconds", "peers", "profile_cost", "check", "json"],
        long_help = SERVE_HELP
    )]
    serve: Option<SocketAddr>,
    /// Run the service binaries in this directory instead of building them
    #[arg(long, value_name = "DIR", conflicts_with = "profile")]
    bin_dir: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=50.0).contains(&value) => Ok(value),
        _ => Err("not a number from 0 to 50".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the service.
fn serve(cli: &Cli, address: SocketAddr) -> Result<bool> {
    let spandrel = &[Allocator::Spandrel];
    let binaries = match &cli.bin_dir {
        Some(directory) => Binaries::in_directory(spandrel, directory)?,
        None => Binaries::build(spandrel, cli.profile)?,
    };
    let mut command = binaries.command(Allocator::Spandrel)?;
    command.arg("--serve").arg(address.to_string());
    command.arg("--threads").arg(threads(cli).to_string());
    command.arg("--capacity").arg(cli.capacity.to_string());
    // Returns only if it could not.
    Err(command.exec()).with_context(|| format!("cannot run {command:?}"))
}

/// Threads of each kind.
fn threads(cli: &Cli) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cli.threads.map_or(processors.min(MAX_THREADS.into()), usize::from)
}

/// Everything; whether what `--check` asks for holds.
fn run(cli: &Cli) -> Result<bool> {
    if let Some(address) = cli.serve {
        return serve(cli, address);
    }
    let mut allocators = if cli.peers { Allocator::ALL } else { Allocator::PAIR }.to_vec();
    if cli.profile_cost {
        allocators.insert(1, Allocator::Profiled);
    }
    let allocators = &allocators;
    let seconds = cli.seconds.unwrap_or(if cli.peers { SECONDS.1 } else { SECONDS.0 });
    let budget = Duration::from_secs(seconds);
    let rounds = rounds(budget, allocators.len())?;
    let threads = threads(cli);
    let json = cli.json.as_ref().map(create).transpose()?;

    let binaries = match &cli.bin_dir {
        Some(directory) => Binaries::in_directory(allocators, directory)?,
        None => Binaries::build(allocators, cli.profile)?,
    };
    let started = Instant::now();
    let runs = measure(cli, &binaries, allocators, budget, rounds, threads)?;
    // Long, so before what one looks for: the last lines on the screen are the comparison.
    if let Some(snapshot) = runs.snapshot() {
        println!("{snapshot}\n");
    }
    println!("{}", runs.setting);
    println!("{}", runs.table());
    let verdicts = runs.verdicts(cli.tolerance / 100.0);
    for verdict in &verdicts {
        println!("{verdict}");
    }
    if let Some(cost) = runs.profile_cost() {
        println!("{cost}");
    }
    println!("\nmeasured in {:.0} s", started.elapsed().as_secs_f64());
    if let Some((path, file)) = json {
        serde_json::to_writer_pretty(file, &Written { runs: &runs, verdicts: &verdicts })
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failed: Vec<_> =
        verdicts.iter().filter(|v| !v.holds && v.what != "processor time").collect();
    if cli.check && !failed.is_empty() {
        eprintln!("demo: --check: {} of the claims do not hold", failed.len());
        return Ok(false);
    }
    Ok(true)
}

#[derive(Serialize)]
struct Written<'a> {
    runs: &'a Runs,
    verdicts: &'a [Verdict],
}

/// Opened before anything is measured: a bad path is an error now, not a minute later.
fn create(path: &PathBuf) -> Result<(PathBuf, fs::File)> {
    let file = fs::File::create(path).with_context(|| format!("--json {}", path.display()))?;
    Ok((path.clone(), file))
}

/// As many rounds as the budget has room for.
fn rounds(budget: Duration, allocators: usize) -> Result<u32> {
    let allocators = u32::try_from(allocators)?;
    let least = SHORTEST_RUN * allocators + SETTLE;
    ensure!(
        budget >= least,
        "--seconds {} is too short for {allocators} allocators: at least {} are needed",
        budget.as_secs(),
        least.as_secs()
    );
    Ok((1..=ROUNDS).rev().find(|&n| GOOD_RUN * allocators * n + SETTLE <= budget).unwrap_or(1))
}

fn measure(
    cli: &Cli,
    binaries: &Binaries,
    allocators: &[Allocator],
    budget: Duration,
    rounds: u32,
    threads: usize,
) -> Result<Runs> {
    let started = Instant::now();
    let arguments = |requests: u64, settle: Duration, deadline: Duration| {
        [
            ("--requests", requests),
            ("--warm-up", requests / 10),
            ("--threads", threads as u64),
            ("--connections", (8 * threads as u64).clamp(16, 512)),
            ("--capacity", cli.capacity.into()),
            ("--settle-ms", u64::try_from(settle.as_millis()).unwrap_or(u64::MAX)),
            ("--deadline", deadline.as_secs().max(1)),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_string()])
        .collect::<Vec<_>>()
    };

    // One run on the system allocator says how many requests fill a round, and what starting costs.
    let generous = budget.max(Duration::from_secs(30));
    let trial_arguments = arguments(CALIBRATION_REQUESTS, Duration::ZERO, generous);
    let trial = binaries
        .run(Allocator::System, &trial_arguments, generous, |_| ())
        .context("the calibration run")?;
    let starting = started.elapsed().as_secs_f64() - trial.seconds * 1.1;
    let runs = rounds as usize * allocators.len();
    #[allow(clippy::cast_precision_loss)] // a count of runs
    let slot = (budget.saturating_sub(started.elapsed())).as_secs_f64() / runs as f64;
    let loading = (slot - starting - SETTLE.as_secs_f64()) * 0.9;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // positive and far below 2^64
    let requests = ((loading.max(0.2) * trial.throughput / 1.1) as u64 / 100).max(10) * 100;

    let bar = ProgressBar::new(requests * runs as u64).with_style(ProgressStyle::with_template(
        "{msg:22} [{wide_bar}] {human_pos}/{human_len} requests, {elapsed}/{duration}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let patience = Duration::from_secs_f64(slot.mul_add(5.0, 20.0));
    let arguments = arguments(requests, SETTLE, patience);
    let mut results: Vec<(String, Vec<RunResult>)> =
        allocators.iter().map(|a| (a.name().to_owned(), Vec::new())).collect();
    for round in 0..rounds {
        let order: Vec<usize> = if round % 2 == 0 {
            (0..allocators.len()).collect()
        } else {
            (0..allocators.len()).rev().collect()
        };
        for index in order {
            let allocator = allocators[index];
            let title = format!("round {}/{rounds} {}", round + 1, allocator.name());
            bar.set_message(title.clone());
            let from = bar.position();
            let result = binaries
                .run(allocator, &arguments, patience + SETTLE, |done| bar.set_position(from + done))
                .with_context(|| title.clone())
                .inspect_err(|_| bar.abandon())?;
            bar.set_position(from + requests);
            if bar.is_hidden() {
                eprintln!("{title}: {:.0} requests/s", result.throughput);
            }
            results[index].1.push(result);
        }
    }
    bar.finish_and_clear();
    let how = match &cli.bin_dir {
        Some(directory) => format!("binaries in {}", directory.display()),
        None => format!("profile {}", cli.profile),
    };
    Ok(Runs {
        setting: format!(
            "{how}; {threads} threads each to serve, to work and to load; {} documents kept; {rounds} rounds of {} requests, every answer verified",
            HumanCount(cli.capacity.into()),
            HumanCount(requests)
        ),
        allocators: results,
    })
}
