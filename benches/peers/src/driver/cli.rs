//! The command line, and the plan it amounts to.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};
use clap::{
    Parser, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use peers::workloads::{self, WORKLOADS, Workload};

use crate::{
    allocators::{ALLOCATORS, Allocator},
    profile::Profile,
};

/// The same work on Spandrel and on the mimalloc, tikv-jemallocator, snmalloc-rs and rpmalloc
/// crates and the system allocator, side by side.
#[derive(Debug, Parser)]
#[command(version, after_help = workloads_help())]
pub struct Arguments {
    /// Allocators and workloads to run; of a kind that is not named, all
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = names())]
    only: Vec<Choice>,

    /// Which builds to measure [default: both; with --check: fat]
    #[arg(long, value_enum)]
    profile: Option<Profiles>,

    /// Rounds, in each of which every allocator runs once [default: 9, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,

    /// Milliseconds per run [default: 100, with --quick 20]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    millis: Option<u64>,

    /// Fewer and shorter runs
    #[arg(long)]
    quick: bool,

    /// Count instructions per pair under callgrind instead of taking times
    #[arg(long)]
    instructions: bool,

    /// Fail if Spandrel takes more instructions per pair than its bars allow. Alone, counts nobody
    /// else and builds no C++
    #[arg(long)]
    check: bool,

    /// Write the figures to FILE as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write the figures to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profiles {
    /// The whole program in one module
    Fat,
    /// Without LTO
    Release,
    Both,
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Allocator(&'static Allocator),
    Workload(&'static Workload),
}

fn names() -> impl TypedValueParser<Value = Choice> {
    let names = ALLOCATORS.iter().map(|a| a.name).chain(WORKLOADS.iter().map(|w| w.name));
    PossibleValuesParser::new(names).map(|name| {
        let allocator = ALLOCATORS.iter().find(|a| a.name == name);
        let workload = || workloads::find(&name).expect("every possible value is one or the other");
        allocator.map_or_else(|| Choice::Workload(workload()), Choice::Allocator)
    })
}

fn workloads_help() -> String {
    let lines = WORKLOADS.iter().map(|w| format!("  {:<18}{}\n", w.name, w.about));
    format!("Workloads:\n{}", lines.collect::<String>())
}

/// What to build, run and report.
#[derive(Debug)]
pub struct Plan {
    /// In the order of the tables.
    pub allocators: Vec<&'static Allocator>,
    /// In the order of the tables.
    pub workloads: Vec<&'static Workload>,
    /// The builds.
    pub profiles: Vec<Profile>,
    /// Rounds of timing.
    pub repeat: u32,
    /// Milliseconds per timed run.
    pub millis: u64,
    /// Take times.
    pub times: bool,
    /// Count instructions.
    pub instructions: bool,
    /// Hold the counts against the bars.
    pub check: bool,
    /// Where the CSV goes.
    pub csv: Option<PathBuf>,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
}

impl Arguments {
    /// Fills in what was left to us, and refuses what makes no sense together.
    pub fn plan(self) -> Plan {
        let mut allocators: Vec<&Allocator> = ALLOCATORS.iter().collect();
        let mut workloads: Vec<&Workload> = WORKLOADS.iter().collect();
        let named = |a: &Allocator| {
            let is = |c: &Choice| matches!(c, Choice::Allocator(b) if *b == a);
            self.only.iter().any(is)
        };
        if self.only.iter().any(|c| matches!(c, Choice::Allocator(_))) {
            allocators.retain(|a| named(a));
        } else if self.check && !self.instructions {
            allocators.retain(|a| a.is_ours());
        }
        if self.only.iter().any(|c| matches!(c, Choice::Workload(_))) {
            workloads.retain(|w| {
                let is = |c: &Choice| matches!(c, Choice::Workload(v) if v.name == w.name);
                self.only.iter().any(is)
            });
        }
        let profiles = match self.profile {
            Some(Profiles::Fat) => vec![Profile::Fat],
            Some(Profiles::Release) => vec![Profile::Release],
            None if self.check => vec![Profile::Fat],
            Some(Profiles::Both) | None => vec![Profile::Fat, Profile::Release],
        };
        if self.check {
            if !allocators.iter().any(|a| a.is_ours()) {
                refuse("--check is about spandrel, which --only leaves out");
            }
            if !profiles.contains(&Profile::Fat) {
                refuse("--check holds for fat LTO, which --profile leaves out");
            }
            if workloads.iter().all(|w| w.instruction_bar.is_none()) {
                refuse("--check has no bar for the workloads that --only names");
            }
        }
        let instructions = self.instructions || self.check;
        if instructions && workloads.iter().all(|w| !w.countable) {
            refuse("none of the workloads that --only names can be counted: they have threads");
        }
        if instructions && (self.repeat.is_some() || self.millis.is_some()) {
            refuse("--repeat and --millis are about times; instructions are exact");
        }
        Plan {
            allocators,
            workloads,
            profiles,
            repeat: self.repeat.unwrap_or(if self.quick { 3 } else { 9 }),
            millis: self.millis.unwrap_or(if self.quick { 20 } else { 100 }),
            times: !instructions,
            instructions,
            check: self.check,
            csv: self.csv,
            json: self.json,
        }
    }
}

/// Ends the process as clap does for a bad value.
fn refuse(message: &str) -> ! {
    use clap::CommandFactory;
    Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit()
}

impl Plan {
    /// Whether Spandrel and another are among the allocators.
    pub fn compares(&self) -> bool {
        self.allocators.len() > 1 && self.allocators.iter().any(|a| a.is_ours())
    }

    /// Whether a bar holds for any of the workloads.
    pub fn has_bars(&self, profile: Profile) -> bool {
        profile == Profile::Fat && self.workloads.iter().any(|w| w.instruction_bar.is_some())
    }

    /// Says what to install before anything is built.
    pub fn check_tools(&self) -> Result<()> {
        for allocator in &self.allocators {
            if let Some(tool) = allocator.build_tool
                && !runs(tool)
            {
                bail!(
                    "{name} is built with {tool}, which is not here: install it \
                     (Debian: `apt-get install {tool}`) \
                     or name the other allocators with --only",
                    name = allocator.name,
                );
            }
        }
        if self.instructions && !runs("valgrind") {
            bail!(
                "instructions are counted by valgrind, which is not here: install it (Debian: \
                 `apt-get install valgrind`)"
            );
        }
        Ok(())
    }
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &str) -> Plan {
        Arguments::try_parse_from(std::iter::once("peers").chain(words.split_whitespace()))
            .unwrap()
            .plan()
    }

    fn allocators(plan: &Plan) -> Vec<&str> {
        plan.allocators.iter().map(|a| a.name).collect()
    }

    #[test]
    fn everything_by_default() {
        let plan = plan("");
        assert_eq!(plan.allocators.len(), ALLOCATORS.len());
        assert_eq!(plan.workloads.len(), WORKLOADS.len());
        assert_eq!(plan.profiles, [Profile::Fat, Profile::Release]);
        assert!(plan.times && !plan.instructions);
    }

    #[test]
    fn only_narrows_each_kind_by_itself() {
        let plan = plan("--only same system spandrel");
        assert_eq!(allocators(&plan), ["spandrel", "system"]);
        assert_eq!(plan.workloads.len(), 1);
        let plan = super::tests::plan("--only fifo1000");
        assert_eq!(plan.allocators.len(), ALLOCATORS.len());
    }

    #[test]
    fn check_alone_needs_no_other_allocator() {
        let plan = plan("--check");
        assert_eq!(allocators(&plan), ["spandrel"]);
        assert_eq!(plan.profiles, [Profile::Fat]);
        assert!(plan.instructions && !plan.times);
        let all = super::tests::plan("--check --instructions");
        assert_eq!(all.allocators.len(), ALLOCATORS.len());
    }

    #[test]
    fn bad_values_are_refused() {
        for words in ["--only nobody", "--repeat 0", "--millis x", "--profile dev"] {
            let words = std::iter::once("peers").chain(words.split_whitespace());
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }
}
