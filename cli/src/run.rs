//! `spandrel run`: becomes the program, with the library preloaded.

use crate::{CANNOT_RUN, Refusal, library, program};
use anyhow::Result;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Run a program on Spandrel.
///
/// The command becomes the program: its process id, its streams and its exit code are the program's.
/// Programs that it starts in turn run on Spandrel too.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print where every mapped byte is when the program exits: to stderr, or to the end of FILE. Every
    /// process that it starts prints its own; one that leaves by `_exit` or a signal prints nothing.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    stats: Option<Option<PathBuf>>,
    /// Use this library instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Does not return but for a failure.
pub fn run(arguments: &Arguments) -> Result<Infallible> {
    let program = program::find(&arguments.command[0])?;
    for note in &program.notes {
        eprintln!("spandrel: note: {note}");
    }
    let library = library::path(arguments.library.as_deref())?;

    let mut command = Command::new(&program.path);
    command.arg0(&arguments.command[0]).args(&arguments.command[1..]);
    command.env("LD_PRELOAD", preload(&library));
    if let Some(file) = &arguments.stats {
        command.env("SPANDREL", with_stats(std::env::var_os("SPANDREL"), file.as_deref())?);
    }
    let error = command.exec();
    Err(Refusal::new(CANNOT_RUN, format!("{}: {error}", program.path.display())).into())
}

/// The library, before what the environment preloads already.
pub fn preload(library: &Path) -> OsString {
    let mut list = library.as_os_str().to_owned();
    if let Some(before) = std::env::var_os("LD_PRELOAD").filter(|list| !list.is_empty()) {
        list.push(":");
        list.push(before);
    }
    list
}

/// The option list in the environment and, at its end, the wish for statistics.
fn with_stats(list: Option<OsString>, file: Option<&Path>) -> Result<OsString> {
    let mut list = list.unwrap_or_default();
    if !list.is_empty() {
        list.push(",");
    }
    list.push("stats=");
    let Some(file) = file else {
        list.push("exit");
        return Ok(list);
    };
    // The program may change its directory before it exits.
    let file = std::path::absolute(file)?;
    if file.as_os_str().as_encoded_bytes().contains(&b',') {
        let message = format!("--stats={}: the path may not contain a comma", file.display());
        return Err(Refusal::new(crate::FAILED, message).into());
    }
    list.push(file);
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_join_the_options_that_are_there() {
        assert_eq!(with_stats(None, None).unwrap(), "stats=exit");
        assert_eq!(with_stats(Some("decay=1s".into()), None).unwrap(), "decay=1s,stats=exit");
        assert_eq!(
            with_stats(None, Some(Path::new("/tmp/a b"))).unwrap(),
            OsString::from("stats=/tmp/a b")
        );
        assert_eq!(
            with_stats(None, Some(Path::new("/tmp/a,b"))).unwrap_err().to_string(),
            "--stats=/tmp/a,b: the path may not contain a comma"
        );
    }
}
