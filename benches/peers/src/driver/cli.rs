//! The command line, and the plan it amounts to.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use peers::workloads::{Row, workloads};

use crate::{
    allocators::{ALLOCATORS, Allocator},
    count,
    profile::Profile,
};

/// The same work on Spandrel and on the mimalloc, tikv-jemallocator, snmalloc-rs and rpmalloc
/// crates and the system allocator, side by side.
#[derive(Debug, Parser)]
#[command(version, after_help = workloads_help())]
pub struct Arguments {
    /// Allocators, rows (`mixed/t2`), workloads (`mixed`) and beginnings of names (`heap-`) to run;
    /// of a kind that is not named, all
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = choice)]
    only: Vec<Choice>,

    /// Groups of workloads to run
    #[arg(long, value_name = "GROUP", num_args = 1.., value_parser = group())]
    groups: Vec<u8>,

    /// Which builds to measure [default: both; with --check: fat]
    #[arg(long, value_enum)]
    profile: Option<Profiles>,

    /// Rounds, in each of which every allocator runs once [default: 5, with --quick 2];
    /// rows that take seconds run in at most three of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,

    /// Milliseconds per run of the loops of group 1 [default: 100, with --quick 20]
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

    /// Run nothing: report again what a former run left in the directory of --out
    #[arg(long, conflicts_with_all = RUNNING)]
    render: bool,

    /// Write the figures to this directory
    #[arg(long, value_name = "DIR", default_value = OUT)]
    out: PathBuf,
}

/// What makes no sense where nothing runs.
const RUNNING: [&str; 7] = ["instructions", "check", "quick", "repeat", "millis", "only", "groups"];
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers");

fn group() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=10)
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profiles {
    /// The whole program in one module
    Fat,
    /// Without LTO
    Release,
    Both,
}

#[derive(Clone, Debug)]
enum Choice {
    Allocator(&'static Allocator),
    Rows(Vec<Row>),
}

/// An allocator's name, a row's, a workload's, or else the beginning of some of the latter.
fn choice(name: &str) -> Result<Choice, String> {
    if let Some(allocator) = ALLOCATORS.iter().find(|a| a.name == name) {
        return Ok(Choice::Allocator(allocator));
    }
    let rows = |is: &dyn Fn(&Row) -> bool| Row::all().filter(is).collect::<Vec<_>>();
    let mut named = rows(&|row| row.name() == name || row.workload.name == name);
    if named.is_empty() {
        named = rows(&|row| row.name().starts_with(name));
    }
    if named.is_empty() {
        let allocators: Vec<_> = ALLOCATORS.iter().map(|a| a.name).collect();
        let workloads: Vec<_> = workloads().map(|w| w.name).collect();
        return Err(format!(
            "neither an allocator ({}) nor a workload or a row of one ({})",
            allocators.join(", "),
            workloads.join(", "),
        ));
    }
    Ok(Choice::Rows(named))
}

fn workloads_help() -> String {
    let lines = workloads().map(|w| {
        let threads: Vec<_> = w.threads.iter().map(|t| format!("t{t}")).collect();
        format!("{:>4}  {:<18}{} ({})\n", w.group, w.name, w.about, threads.join(", "))
    });
    format!("Workloads, by group (group 0 is charted only):\n{}", lines.collect::<String>())
}

/// What to build, run and report.
#[derive(Debug)]
pub struct Plan {
    /// In the order of the tables.
    pub allocators: Vec<&'static Allocator>,
    /// In the order of the tables.
    pub rows: Vec<Row>,
    /// The builds.
    pub profiles: Vec<Profile>,
    /// Rounds of timing.
    pub repeat: u32,
    /// Rounds at most for rows that take seconds.
    pub heavy_repeat: u32,
    /// Smaller amounts.
    pub quick: bool,
    /// Milliseconds per timed run.
    pub millis: u64,
    /// Run nothing, report what is there.
    pub render: bool,
    /// Take times.
    pub times: bool,
    /// Count instructions.
    pub instructions: bool,
    /// Hold the counts against the bars.
    pub check: bool,
    /// Where the files go.
    pub out: PathBuf,
}

impl Arguments {
    /// Fills in what was left to us, and refuses what makes no sense together.
    pub fn plan(self) -> Plan {
        let mut allocators: Vec<&Allocator> = ALLOCATORS.iter().collect();
        let mut rows: Vec<Row> = Row::all().collect();
        let named = |a: &Allocator| {
            let is = |c: &Choice| matches!(c, Choice::Allocator(b) if *b == a);
            self.only.iter().any(is)
        };
        if self.only.iter().any(|c| matches!(c, Choice::Allocator(_))) {
            allocators.retain(|a| named(a));
        } else if self.check && !self.instructions {
            allocators.retain(|a| a.is_ours());
        }
        if self.only.iter().any(|c| matches!(c, Choice::Rows(_))) {
            let named = |row: &Row| {
                self.only.iter().any(|c| match c {
                    Choice::Rows(rows) => rows.iter().any(|r| r.name() == row.name()),
                    Choice::Allocator(_) => false,
                })
            };
            rows.retain(named);
        }
        if self.quick && self.only.is_empty() && self.groups.is_empty() {
            rows.retain(|row| !row.is_charted_only());
        }
        if !self.groups.is_empty() {
            rows.retain(|row| self.groups.contains(&row.workload.group));
        }
        if rows.is_empty() {
            refuse("none of the rows that --only names is in one of the --groups");
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
            if rows.iter().all(|r| r.workload.instruction_bar.is_none()) {
                refuse("--check has no bar for the workloads that --only names");
            }
        }
        let instructions = self.instructions || self.check;
        if self.check && !self.instructions {
            rows.retain(|r| r.workload.instruction_bar.is_some());
        }
        if instructions && !rows.iter().any(|&row| count::is_countable(row)) {
            refuse("none of the workloads that --only names can be counted: they have threads");
        }
        if instructions && (self.repeat.is_some() || self.millis.is_some()) {
            refuse("--repeat and --millis are about times; instructions are exact");
        }
        Plan {
            allocators,
            rows,
            profiles,
            repeat: self.repeat.unwrap_or(if self.quick { 2 } else { 5 }),
            heavy_repeat: if self.quick { 1 } else { 3 },
            quick: self.quick,
            millis: self.millis.unwrap_or(if self.quick { 20 } else { 100 }),
            render: self.render,
            times: !instructions && !self.render,
            instructions,
            check: self.check,
            out: self.out,
        }
    }
}

/// Ends the process as clap does for a bad value.
fn refuse(message: &str) -> ! {
    use clap::CommandFactory;
    Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit()
}

impl Plan {
    /// Whether a bar holds for any of the workloads.
    pub fn has_bars(&self, profile: Profile) -> bool {
        profile == Profile::Fat && self.rows.iter().any(|r| r.workload.instruction_bar.is_some())
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
        assert!(plan("--quick").rows.len() < Row::all().count());
        let plan = plan("");
        assert_eq!(plan.allocators.len(), ALLOCATORS.len());
        assert_eq!(plan.rows.len(), Row::all().count());
        assert_eq!(plan.profiles, [Profile::Fat, Profile::Release]);
        assert!(plan.times && !plan.instructions);
    }

    #[test]
    fn only_narrows_each_kind_by_itself() {
        let rows = |words| -> Vec<String> { plan(words).rows.iter().map(Row::name).collect() };
        let both = plan("--only same/t1 system spandrel");
        assert_eq!(allocators(&both), ["spandrel", "system"]);
        assert_eq!(both.rows.len(), 1);
        assert_eq!(plan("--only fifo1000").allocators.len(), ALLOCATORS.len());
        assert_eq!(rows("--only tree"), ["tree/t1", "tree/t2", "tree/t16"]);
        assert_eq!(rows("--only mixed/t16 tree-"), ["mixed/t16", "tree-handoff/t2"]);
        assert_eq!(
            rows("--groups 3"),
            ["larson/t1", "larson/t2", "larson/t16", "larson/t4", "larson/t8"]
        );
        assert_eq!(rows("--groups 3 4 --only mixed/t2"), ["mixed/t2"]);
    }

    #[test]
    fn check_alone_needs_no_other_allocator() {
        let plan = plan("--check");
        assert_eq!(allocators(&plan), ["spandrel"]);
        assert_eq!(plan.profiles, [Profile::Fat]);
        assert!(plan.instructions && !plan.times);
        assert!(plan.rows.iter().all(|row| row.workload.instruction_bar.is_some()));
        let all = super::tests::plan("--check --instructions");
        assert_eq!(all.allocators.len(), ALLOCATORS.len());
    }

    #[test]
    fn bad_values_are_refused() {
        for words in ["--only nobody", "--groups 11", "--repeat 0", "--millis x", "--profile dev"] {
            let words = std::iter::once("peers").chain(words.split_whitespace());
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }
}
