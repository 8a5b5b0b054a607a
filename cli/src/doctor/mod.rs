//! `spandrel doctor`: what this machine gives an allocator, and what Spandrel does with it.

mod limits;
mod memory;

use crate::allocators;
use crate::compare::{c_library, kernel};
use crate::library;
use crate::options::{self, InForce};
use crate::written::quietly;
use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what this machine gives an allocator, and what Spandrel does with it.
///
/// The exit code is 1 when a preloaded library does not get to serve programs here.
#[derive(clap::Args)]
pub struct Arguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Use this library instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

/// One fact of the machine.
#[derive(Debug, PartialEq, Serialize)]
pub struct Finding {
    name: &'static str,
    value: String,
    /// What follows for Spandrel.
    meaning: String,
    /// Whether it is in the way.
    bad: bool,
}

impl Finding {
    fn new(name: &'static str, value: impl Into<String>, meaning: impl Into<String>) -> Finding {
        Finding { name, value: value.into(), meaning: meaning.into(), bad: false }
    }

    fn bad(self) -> Finding {
        Finding { bad: true, ..self }
    }
}

/// Prints all findings.
pub fn doctor(arguments: &Arguments) -> Result<ExitCode> {
    let library = serving(arguments.library.as_deref());
    let works = !library.bad;
    let root = Path::new("/");
    let list = options::variable();
    let read = InForce::of(list.as_deref().unwrap_or_default());
    let mut findings = vec![
        library,
        Finding::new("kernel", kernel(), kernel_means(&kernel())),
        Finding::new("C library", c_library(), "where errno, fork and thread ends are its own"),
    ];
    findings.extend(memory::findings(root, &read.options));
    findings.extend(limits::findings(root, &read.options));
    findings.extend(surroundings());
    findings.extend(variable(list.as_deref(), &read));
    findings.extend(neighbours());

    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        quietly(writeln!(stdout, "{}", serde_json::to_string_pretty(&findings)?))?;
    } else {
        let mut table = Table::new();
        table.load_style(NOTHING);
        // A terminal folds the last column; a pipe gets a line for each finding.
        if table.is_tty() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        for finding in &findings {
            let mark = if finding.bad { "!" } else { "" };
            table.add_row([mark, finding.name, &finding.value, &finding.meaning]);
        }
        quietly(writeln!(stdout, "{}", table.trim_fmt()))?;
    }
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether programs here really get their memory from the library.
fn serving(named: Option<&Path>) -> Finding {
    let path = match library::path(named) {
        Ok(path) => path,
        Err(error) => return Finding::new("library", "none", format!("{error:#}")).bad(),
    };
    let value = path.display().to_string();
    match library::serves(&path) {
        Ok(()) => {
            Finding::new("library", value, "preloaded and serving, tried with a program just now")
        }
        Err(error) => Finding::new("library", value, format!("does not serve: {error:#}")).bad(),
    }
}

fn kernel_means(kernel: &str) -> String {
    let release = kernel.split_whitespace().nth(1).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (3, 2) => {
            "mmap, munmap, mremap and madvise are all that is needed".to_owned()
        }
        (Some(_), Some(_)) => "older than the Rust standard library supports (3.2)".to_owned(),
        _ => "of unknown version".to_owned(),
    }
}

/// What is preloaded already.
fn surroundings() -> Vec<Finding> {
    let list = std::env::var_os("LD_PRELOAD").filter(|list| !list.is_empty());
    vec![match list {
        Some(list) => Finding::new(
            "LD_PRELOAD",
            list.to_string_lossy(),
            "stays, behind the library: `run` puts it first, and the first malloc serves",
        ),
        None => Finding::new("LD_PRELOAD", "not set", "`run` sets it"),
    }]
}

/// What the library reads in its environment variable, and what it does not understand of it.
fn variable(list: Option<&OsStr>, read: &InForce) -> Vec<Finding> {
    let Some(list) = list else {
        return vec![Finding::new("SPANDREL", "not set", "the defaults hold")];
    };
    let mut meaning = match &read.items[..] {
        [] => "nothing of it is an option: the defaults hold".to_owned(),
        items => format!("in force when a program starts: {}", items.join(",")),
    };
    if list.to_str().is_none() {
        meaning.push_str("; some of its bytes are no text (UTF-8)");
    }
    let mut findings = vec![Finding::new("SPANDREL", list.to_string_lossy(), meaning)];
    for complaint in &read.complaints {
        let complaint = complaint.strip_prefix("spandrel: SPANDREL: ").unwrap_or(complaint);
        findings.push(Finding::new("SPANDREL", "not understood", complaint).bad());
    }
    findings
}

/// The other allocators.
fn neighbours() -> Vec<Finding> {
    let mut findings = Vec::new();
    let found = allocators::installed(&allocators::directories());
    if found.is_empty() {
        let meaning = "`compare` has the system's malloc beside Spandrel; --with adds others";
        findings.push(Finding::new("allocators", "none found", meaning));
    }
    for allocator in found {
        let path = allocator.library.unwrap_or_default();
        findings.push(Finding::new(
            "allocator",
            allocator.name,
            format!("{}; in `compare`", path.display()),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn kernels_are_told_by_their_numbers() {
        assert!(kernel_means("Linux 6.1.0-13-amd64").starts_with("mmap"));
        assert!(kernel_means("Linux 2.6.32").starts_with("older"));
        assert!(kernel_means("odd").starts_with("of unknown"));
    }

    #[test]
    fn a_library_that_does_not_serve_is_said() {
        let finding = serving(Some(Path::new("/no/such.so")));
        assert_eq!(finding, Finding::new("library", "none", "/no/such.so: no such library").bad());
    }

    #[test]
    fn the_variable_is_read_as_the_library_reads_it() {
        let of = |list: &[u8]| {
            let list = OsStr::from_bytes(list);
            variable(Some(list), &InForce::of(list))
        };
        let findings = of(b"decay=soon,hugepages=never,colour=blue");
        assert_eq!(findings.len(), 3);
        assert_eq!(findings[0].meaning, "in force when a program starts: hugepages=never");
        assert!(
            findings[1].meaning.starts_with("bad value `soon` of decay, which stays as it was")
        );
        assert!(findings[2].meaning.starts_with("unknown option `colour`; there are: decay"));
        assert!(!findings[0].bad && findings[1].bad && findings[2].bad);
        let findings = of(b"decay=1s,x\xff");
        assert_eq!(findings[0].value, "decay=1s,x\u{fffd}");
        assert!(findings[0].meaning.ends_with("decay=1s; some of its bytes are no text (UTF-8)"));
        assert!(findings[1].bad);
    }
}
