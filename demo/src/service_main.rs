//! `main` of the service binaries: serve, load, measure, report one line, end.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::serve::ListenerExt;
use clap::{Parser, builder::RangedI64ValueParser};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    corpus::Corpus,
    load::{self, Outcome, Plan, Progress},
    report::{Line, RunResult},
    rss::Usage,
    service::Service,
};

/// The most threads of a kind that a run may ask for.
pub const MAX_THREADS: u16 = 256;

/// How many documents a service may be told to keep: enough for what its clients ask for again, and not more than fits
/// a large machine.
#[must_use]
pub fn capacity_range() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(512..=10_000_000)
}

/// Of the documents asked for again, at most one in this many may have been pushed out: else the load tests little.
const GONE_AT_MOST_ONE_IN: u64 = 20;

/// A free port of the loopback interface.
pub const ANYWHERE: &str = "127.0.0.1:0";

/// What `--serve` is for.
pub const SERVE_HELP: &str = "\
Serve without a load until a signal (Ctrl-C) ends it: at ADDR, as 127.0.0.1:8080, or at a free port of the loopback \
interface. Prints where it listens. Besides the routes of the documents there are

  GET  /metrics            what the allocator holds; ?format=text, json, recorder
  POST /debug/pprof/heap   starts a heap profile, ?interval=BYTES; DELETE stops it
  GET  /debug/pprof/heap   the profile, for `go tool pprof`; ?format=svg: a picture
  POST /debug/leaks        begins to watch what is allocated; DELETE ends it
  GET  /debug/leaks        what of it is live, and what is lost";

const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// How one service process runs.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    about = "The demo's service and its load on one allocator; `demo` runs several of these in turn"
)]
pub struct Config {
    /// Requests to measure
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000))]
    pub requests: u64,
    /// Requests before them that are not measured
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    pub warm_up: u64,
    /// Threads of each kind: serving, worker pool, load
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_THREADS)))]
    pub threads: u16,
    /// Connections of the load
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// Documents the store keeps
    #[arg(long, default_value_t = 8192, value_parser = capacity_range())]
    pub capacity: u32,
    /// Milliseconds between the end of all work and the last look at memory
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub settle_ms: u64,
    /// Profile Spandrel's heap from the start, with a sample every so many bytes
    #[arg(long, value_name = "BYTES", num_args = 0..=1, default_missing_value = "524288", value_parser = clap::value_parser!(u32).range(1..))]
    pub heap_profile: Option<u32>,
    /// Serve without a load until a signal (Ctrl-C) ends it, at ADDR, or at a free port of the loopback interface;
    /// prints where it listens
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = ANYWHERE,
        conflicts_with_all = ["requests", "warm_up", "connections", "settle_ms", "deadline"],
        long_help = SERVE_HELP
    )]
    pub serve: Option<SocketAddr>,
    /// Seconds after which the load gives up
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: u64,
}

/// Parses the command line, runs, and prints [`Line`]s to standard output. `snapshot` is the allocator's own account
/// of its memory, where it has one.
#[must_use]
pub fn run(allocator: &str, snapshot: fn() -> Option<String>) -> ExitCode {
    let config = Config::parse();
    let outcome = match config.serve {
        Some(address) => serve(allocator, &config, address),
        None => serve_and_load(allocator, &config, snapshot, |line| line.print()).map(drop),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code says it as well.
            let _ = writeln!(io::stderr(), "svc-{allocator}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal ends the process, or the service fails.
fn serve(allocator: &str, config: &Config, address: SocketAddr) -> Result<()> {
    if let Some(interval) = config.heap_profile {
        spandrel::profile::start(interval as usize)?;
    }
    let (service, threads) = loaded(config, &Corpus::load()?)?;
    let server = Server::start(&service, threads, address)?;
    let mut out = io::stdout().lock();
    writeln!(out, "svc-{allocator} listens on http://{}", server.address)?;
    writeln!(out, "Ctrl-C ends it; what there is to ask is in --help, at --serve")?;
    out.flush()?;
    drop(out);
    server.wait()
}

/// The service with its store full, and how many threads of each kind there are.
fn loaded(config: &Config, corpus: &Corpus) -> Result<(Service, NonZeroUsize)> {
    let threads = NonZeroUsize::new(usize::from(config.threads)).context("0 threads")?;
    let service = Service::new(config.capacity as usize, threads)?;
    preload(&service, corpus, config.capacity as usize)?;
    Ok((service, threads))
}

/// One run, from an empty process to the result, which also goes to `say` together with progress.
///
/// # Errors
/// When anything fails, among it a single wrong answer.
pub fn serve_and_load(
    allocator: &str,
    config: &Config,
    snapshot: fn() -> Option<String>,
    say: impl Fn(&Line) -> Result<()> + Send + Sync + 'static,
) -> Result<RunResult> {
    if let Some(interval) = config.heap_profile {
        spandrel::profile::start(interval as usize)?;
    }
    let say = Arc::new(say);
    let corpus = Arc::new(Corpus::load()?);
    let (service, threads) = loaded(config, &corpus)?;
    let server = Server::start(&service, threads, (Ipv4Addr::LOCALHOST, 0).into())?;

    let generator = runtime("load", threads)?;
    let mut plan = Plan {
        requests: config.warm_up,
        connections: usize::from(config.connections),
        first: config.requests,
        deadline: Duration::from_secs(config.deadline),
    };
    let warm_up = generator.block_on(drive(server.address, &corpus, plan, None))?;
    check(&warm_up, config.warm_up).context("during the warm-up")?;
    drop(warm_up);

    plan.requests = config.requests;
    plan.first = 0;
    let before = Usage::now()?;
    let telling = Arc::clone(&say);
    let tell = Box::new(move |done| telling(&Line::Progress { done }));
    let outcome = generator.block_on(drive(server.address, &corpus, plan, Some(tell)))?;
    let after = Usage::now()?;
    check(&outcome, config.requests)?;
    let documents = service.store().len();
    let snapshot_loaded = snapshot();

    #[allow(clippy::cast_precision_loss)] // nanoseconds and request counts far below 2^52
    let mut result = RunResult {
        allocator: allocator.to_owned(),
        requests: outcome.verified,
        gone: outcome.gone,
        documents,
        seconds: outcome.elapsed.as_secs_f64(),
        throughput: outcome.verified as f64 / outcome.elapsed.as_secs_f64(),
        p50_us: outcome.latency.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: outcome.latency.value_at_quantile(0.99) as f64 / 1e3,
        p999_us: outcome.latency.value_at_quantile(0.999) as f64 / 1e3,
        max_us: outcome.latency.max() as f64 / 1e3,
        user_s: after.user_s - before.user_s,
        system_s: after.system_s - before.system_s,
        minor_faults: after.minor_faults - before.minor_faults,
        peak_rss_kib: after.peak_rss_kib,
        loaded_rss_kib: after.rss_kib,
        final_rss_kib: 0,
        snapshot_loaded,
        snapshot_final: None,
    };

    // The load goes, the store goes; the service's threads stay, as in a service that waits for its next client.
    drop(outcome);
    drop(generator);
    drop(corpus);
    let idle = server.stop()?;
    drop(service);
    std::thread::sleep(Duration::from_millis(config.settle_ms));
    result.final_rss_kib = Usage::now()?.rss_kib;
    result.snapshot_final = snapshot();
    drop(idle);
    say(&Line::Result(Box::new(result.clone())))?;
    Ok(result)
}

fn preload(service: &Service, corpus: &Corpus, capacity: usize) -> Result<()> {
    let documents: Vec<_> =
        corpus.posts.iter().cycle().take(capacity).map(|post| post.json.clone()).collect();
    service.preload(&documents).context("cannot preload the store")
}

fn runtime(name: &'static str, threads: NonZeroUsize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.get())
        .thread_name(name)
        // What a worker keeps free at hand is of no use to it while it sleeps.
        .on_thread_park(spandrel::flush_current_thread)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name} threads"))
}

type Tell = Box<dyn Fn(u64) -> Result<()> + Send>;

async fn drive(
    address: SocketAddr,
    corpus: &Arc<Corpus>,
    plan: Plan,
    tell: Option<Tell>,
) -> Result<Outcome> {
    let progress = Arc::new(Progress::default());
    let load = load::run(address, Arc::clone(corpus), plan, Arc::clone(&progress));
    let Some(tell) = tell else {
        return load.await;
    };
    tokio::pin!(load);
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            outcome = &mut load => return outcome,
            _ = tick.tick() => tell(progress.sent().min(plan.requests))?,
        }
    }
}

/// Every request sent must have been answered rightly.
fn check(outcome: &Outcome, requests: u64) -> Result<()> {
    ensure!(
        outcome.errors == 0,
        "{} of {requests} requests failed; the first: {}",
        outcome.errors,
        outcome.first_error.as_deref().unwrap_or("not kept")
    );
    ensure!(
        outcome.verified == requests,
        "{} of {requests} requests were answered",
        outcome.verified
    );
    ensure!(
        outcome.gone * GONE_AT_MOST_ONE_IN <= requests,
        "{} of {requests} documents were gone when asked for: the store is too small for this load",
        outcome.gone
    );
    Ok(())
}

/// The service at an address, on a runtime of its own.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start(service: &Service, threads: NonZeroUsize, address: SocketAddr) -> Result<Self> {
        let runtime = runtime("serve", threads)?;
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| {
            // Without it answers wait for acknowledgements; a stream that refuses is closing anyway.
            let _ = stream.set_nodelay(true);
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let router = service.router();
        let serving = runtime.spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(async {
                    // A dropped sender stops the service as well.
                    let _ = stopped.await;
                })
                .await
        });
        Ok(Self { runtime, address, stop, serving })
    }

    /// Serves for as long as it can.
    fn wait(self) -> Result<()> {
        let Self { runtime, serving, stop: _stop, .. } = self;
        runtime.block_on(serving).context("the service task died")??;
        Ok(())
    }

    /// Stops accepting, waits for the connections to end, and hands back the idle runtime.
    fn stop(self) -> Result<Runtime> {
        ensure!(self.stop.send(()).is_ok(), "the service had already stopped");
        self.runtime.block_on(self.serving).context("the service task died")??;
        Ok(self.runtime)
    }
}
