//! Building the service binaries and running them, one process per run.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    ffi::OsString,
    fmt,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cargo_metadata::Message;

use crate::report::{Line, PROFILED, RunResult, SUBJECT};

/// An allocator the service can be linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Allocator {
    /// This repository's.
    Spandrel,
    /// The same with its heap profile on, at the default rate.
    Profiled,
    /// The C library's.
    System,
    /// The `mimalloc` crate.
    Mimalloc,
    /// The `tikv-jemallocator` crate.
    Jemalloc,
    /// The `snmalloc-rs` crate.
    Snmalloc,
    /// The `rpmalloc` crate.
    Rpmalloc,
}

impl Allocator {
    /// What a plain run compares.
    pub const PAIR: &[Self] = &[Self::Spandrel, Self::System];
    /// Those and the peers.
    pub const ALL: &[Self] = &[
        Self::Spandrel,
        Self::System,
        Self::Mimalloc,
        Self::Jemalloc,
        Self::Snmalloc,
        Self::Rpmalloc,
    ];

    /// As results name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spandrel => "spandrel",
            Self::Profiled => PROFILED,
            Self::System => "system",
            Self::Mimalloc => "mimalloc",
            Self::Jemalloc => "jemalloc",
            Self::Snmalloc => "snmalloc",
            Self::Rpmalloc => "rpmalloc",
        }
    }

    /// What its binary is linked with.
    const fn linked(self) -> &'static str {
        match self {
            Self::Profiled => SUBJECT,
            other => other.name(),
        }
    }

    fn binary(self) -> String {
        format!("svc-{}", self.linked())
    }

    /// What its binary is told besides.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Profiled => &["--heap-profile"],
            _ => &[],
        }
    }

    /// Whether its binary needs the cargo feature `peers`.
    fn is_peer(self) -> bool {
        !matches!(self, Self::Spandrel | Self::Profiled | Self::System)
    }
}

/// A cargo profile of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Optimised, without link-time optimisation across crates
    Release,
    /// With fat link-time optimisation: the allocator inlines into every caller
    Fat,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Release => "release",
            Self::Fat => "fat",
        })
    }
}

/// The service binaries, by allocator.
#[derive(Debug)]
pub struct Binaries(HashMap<Allocator, PathBuf>);

impl Binaries {
    /// Has cargo build them; it prints its own progress. Cargo says where it put them, so any target directory goes.
    ///
    /// # Errors
    /// When cargo cannot be run or the build fails.
    pub fn build(allocators: &[Allocator], profile: Profile) -> Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
            .join("Cargo.toml");
        let mut command = Command::new(&cargo);
        command
            .args(["build", "--package", "demo", "--message-format", "json-render-diagnostics"])
            .arg("--profile")
            .arg(profile.to_string())
            .arg("--manifest-path")
            .arg(&manifest);
        if allocators.iter().any(|a| a.is_peer()) {
            command.args(["--features", "peers"]);
        }
        let binaries: BTreeSet<_> = allocators.iter().map(|a| a.binary()).collect();
        for binary in binaries {
            command.arg("--bin").arg(binary);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", cargo.display()))?;
        let messages = child.stdout.take().context("cargo has no output")?;
        let mut built = HashMap::new();
        for message in Message::parse_stream(BufReader::new(messages)) {
            if let Message::CompilerArtifact(artifact) = message.context("cargo's messages")? {
                let Some(path) = artifact.executable else { continue };
                for &allocator in allocators.iter().filter(|a| artifact.target.name == a.binary()) {
                    built.insert(allocator, path.clone().into_std_path_buf());
                }
            }
        }
        let status = child.wait()?;
        ensure!(
            status.success(),
            "building the service binaries failed ({status}); see cargo's output above"
        );
        for allocator in allocators {
            ensure!(
                built.contains_key(allocator),
                "cargo did not say where it put {}",
                allocator.binary()
            );
        }
        Ok(Self(built))
    }

    /// Takes binaries that were built before.
    ///
    /// # Errors
    /// When one is not there.
    pub fn in_directory(allocators: &[Allocator], directory: &Path) -> Result<Self> {
        let found = allocators.iter().map(|&allocator| {
            let path = directory.join(allocator.binary());
            ensure!(
                path.is_file(),
                "--bin-dir {}: no {} there",
                directory.display(),
                allocator.binary()
            );
            Ok((allocator, path))
        });
        Ok(Self(found.collect::<Result<_>>()?))
    }

    /// Runs one of them to its end, at most until `deadline`. `progress` hears how many requests were sent.
    ///
    /// # Errors
    /// When it cannot be started, fails, says nothing sensible, or is not done in time.
    pub fn run(
        &self,
        allocator: Allocator,
        arguments: &[String],
        deadline: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<RunResult> {
        let path = self.0.get(&allocator).context("not built")?;
        let mut child = Running(
            Command::new(path)
                .args(arguments)
                .args(allocator.arguments())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot run {}", path.display()))?,
        );
        let output = child.0.stdout.take().context("no output")?;
        let mut errors = child.0.stderr.take().context("no error output")?;
        // Each pipe has its reader, so that neither can fill up and hold the child.
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });

        let until = Instant::now() + deadline;
        let mut result = None;
        loop {
            match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => match serde_json::from_str(&line?) {
                    Ok(Line::Progress { done }) => progress(done),
                    Ok(Line::Result(found)) => result = Some(*found),
                    Err(error) => bail!("{} says what it should not: {error}", allocator.binary()),
                },
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} was not done after {deadline:?} and was stopped", allocator.binary())
                }
            }
        }
        let status = child.0.wait()?;
        let errors = errors.join().map_err(|_| anyhow!("reading errors failed"))?;
        ensure!(status.success(), "{} failed ({status}): {errors}", allocator.binary());
        let result = result.with_context(|| format!("{} gave no result", allocator.binary()))?;
        ensure!(
            result.allocator == allocator.linked(),
            "{} is linked with {}",
            path.display(),
            result.allocator
        );
        Ok(result)
    }
}

/// A child process that does not outlive its run.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
