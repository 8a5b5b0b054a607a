//! The soak: a load that drifts in cycles, on threads that live for seconds, for as long as is wanted.
//!
//! Each cycle goes through the same amounts, sizes and numbers of threads, so what one cycle needs of
//! memory and time the next must need too. Every block is stamped and checked. At the end: the chart, the
//! figures behind it, and the mean of each cycle; what grows from cycle to cycle is a leak, of memory or of
//! time.

mod chart;
mod load;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use load::{LATENCIES, Load};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

#[derive(Parser)]
#[command(about = "Drifting load for a long time; does anything drift with it?")]
struct Cli {
    /// How long, in minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Cycles of the load in that time, at least 4.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=1000))]
    cycles: u32,
    /// Live bytes at the peak of a cycle, in MiB.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=100_000))]
    peak: u64,
    /// Threads at the peak of a cycle.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
    threads: u64,
    /// Microseconds that a thread rests after every 200 calls.
    #[arg(long, default_value_t = 2000)]
    pause: u64,
    /// Where the chart goes (soak.svg) and the figures (soak.csv).
    #[arg(long, default_value = ".")]
    out: PathBuf,
}

/// One moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    seconds: f64,
    resident: usize,
    /// Bytes the program holds.
    live: usize,
    mapped: usize,
    threads: usize,
    operations: u64,
    /// Nanoseconds of an allocation or free: median, 99 %, 99.9 %.
    latency: [u64; 3],
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let length = Duration::from_secs_f64(cli.minutes * 60.0);
    let every = (length / 1800).max(Duration::from_millis(100));
    let before = resident();
    let begun = Instant::now();
    let mut samples = Vec::with_capacity(4000);
    let bar = ProgressBar::new(length.as_secs());
    bar.set_style(ProgressStyle::with_template("{elapsed} {wide_bar} {msg}")?);

    let load = Load::new(
        (cli.peak << 20) as usize,
        cli.threads as usize,
        Duration::from_micros(cli.pause),
    );
    load.run(length, length / cli.cycles, || {
        std::thread::sleep(every);
        let stats = spandrel::stats();
        let mut sample = Sample {
            seconds: begun.elapsed().as_secs_f64(),
            resident: resident(),
            live: stats.live,
            mapped: stats.mapped,
            threads: load.threads.load(Relaxed),
            operations: load.operations.load(Relaxed),
            latency: [0; 3],
        };
        sample.latency = LATENCIES.take();
        samples.push(sample);
        bar.set_position(sample.seconds as u64);
        bar.set_message(format!("{} MB, {} threads", sample.resident / 1_000_000, sample.threads));
    });
    bar.finish_and_clear();
    spandrel::purge();
    let after = resident();

    std::fs::create_dir_all(&cli.out).with_context(|| format!("{}", cli.out.display()))?;
    write_csv(&cli.out.join("soak.csv"), &samples)?;
    chart::draw(&cli.out.join("soak.svg"), &samples)?;
    report(&cli, &load, &samples, before, after)
}

/// The means of a cycle.
struct Cycle {
    number: u32,
    /// Million calls a second.
    rate: f64,
    /// MB.
    resident: f64,
    /// Nanoseconds: 99 % of calls.
    latency: f64,
}

/// A cycle with fewer than this part of the median cycle's calls was starved: the machine had no time for it, its load
/// never reached its peak, and its memory is no figure of the allocator's.
const STARVED: f64 = 0.6;

/// Takes the starved cycles out.
fn starved(cycles: &mut Vec<Cycle>) -> Vec<Cycle> {
    let mut rates: Vec<f64> = cycles.iter().map(|cycle| cycle.rate).collect();
    rates.sort_by(f64::total_cmp);
    let least = rates[rates.len() / 2] * STARVED;
    cycles.extract_if(.., |cycle| cycle.rate < least).collect()
}

/// Means of each cycle, and whether the last ones are above the first. The first cycle is left out: it
/// fills what the others find full; and so are those that were starved.
fn report(cli: &Cli, load: &Load, samples: &[Sample], before: usize, after: usize) -> Result<()> {
    let cycle = cli.minutes * 60.0 / f64::from(cli.cycles);
    let mut cycles = Vec::new();
    println!("cycle    RSS MB   live MB   Mop/s   median ns   99 % ns   99.9 % ns");
    for number in 0..cli.cycles {
        let (from, to) = (f64::from(number) * cycle, f64::from(number + 1) * cycle);
        let here: Vec<_> =
            samples.iter().filter(|s| (from..to).contains(&s.seconds)).copied().collect();
        ensure!(here.len() > 2, "cycle {number} has no samples: give it more time");
        let mean = |f: fn(&Sample) -> f64| here.iter().map(f).sum::<f64>() / here.len() as f64;
        let operations = here[here.len() - 1].operations - here[0].operations;
        let rate = operations as f64 / (here[here.len() - 1].seconds - here[0].seconds) / 1e6;
        let resident = mean(|s| s.resident as f64) / 1e6;
        println!(
            "{number:5} {resident:9.1} {:9.1} {rate:7.2} {:11.0} {:9.0} {:11.0}",
            mean(|s| s.live as f64) / 1e6,
            mean(|s| s.latency[0] as f64),
            mean(|s| s.latency[1] as f64),
            mean(|s| s.latency[2] as f64),
        );
        cycles.push(Cycle { number, rate, resident, latency: mean(|s| s.latency[1] as f64) });
    }
    for cycle in starved(&mut cycles) {
        println!(
            "cycle {} is left out below: {:.2} Mop/s, less than {STARVED} of the median cycle's",
            cycle.number, cycle.rate
        );
    }
    let half = cli.cycles.div_ceil(2);
    let (first, last): (Vec<_>, Vec<_>) =
        cycles.into_iter().filter(|cycle| cycle.number > 0).partition(|c| c.number < half);
    ensure!(!first.is_empty() && !last.is_empty(), "half of the run was starved: run it again");
    let mean =
        |part: &[Cycle], f: fn(&Cycle) -> f64| part.iter().map(f).sum::<f64>() / part.len() as f64;
    let (before_half, after_half) = (mean(&first, |c| c.resident), mean(&last, |c| c.resident));
    println!(
        "{} operations, {} threads came and went; nothing was lost or overwritten\n\
         RSS {:.1} MB in the first half after the first cycle, {:.1} MB in the second ({:+.1} %)\n\
         99 % of calls within {:.0} ns in the first half, {:.0} ns in the second\n\
         RSS {:.1} MB before, {:.1} MB after everything was dropped and purged",
        load.operations.load(Relaxed),
        load.came.load(Relaxed),
        before_half,
        after_half,
        (after_half / before_half - 1.0) * 100.0,
        mean(&first, |c| c.latency),
        mean(&last, |c| c.latency),
        before as f64 / 1e6,
        after as f64 / 1e6,
    );
    // Memory is not a matter of how busy the machine is; time is, and stands above for who reads it.
    ensure!(after_half < before_half * 1.1 + 5.0, "resident memory drifts by more than a tenth");
    Ok(())
}

fn write_csv(path: &std::path::Path, samples: &[Sample]) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("{}", path.display()))?;
    let mut out = std::io::BufWriter::new(file);
    writeln!(out, "seconds,resident,live,mapped,threads,operations,ns_50,ns_99,ns_999")?;
    for s in samples {
        let [half, most, nearly] = s.latency;
        writeln!(
            out,
            "{:.1},{},{},{},{},{},{half},{most},{nearly}",
            s.seconds, s.resident, s.live, s.mapped, s.threads, s.operations
        )?;
    }
    Ok(out.flush()?)
}

/// Bytes of memory behind this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    // SAFETY: sysconf reads a constant of the running kernel.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starved_cycle_is_named() {
        // The rates of the run that docs/RELIABILITY.md quotes.
        let rates = [0.58, 0.54, 0.53, 0.53, 0.52, 0.22, 0.50, 0.55, 0.55, 0.53];
        let cycle = |(number, &rate)| Cycle { number, rate, resident: 400.0, latency: 1000.0 };
        let mut cycles: Vec<_> = (0..).zip(&rates).map(cycle).collect();
        let out = starved(&mut cycles);
        assert_eq!(out.iter().map(|c| c.number).collect::<Vec<_>>(), [5]);
        assert_eq!(cycles.len(), 9);
    }
}
