//! `spandrel run`: becomes the program, with the library preloaded.

use crate::{CANNOT_RUN, Refusal, library, program};
use anyhow::Result;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
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
    /// Write maps of the heap to FILE, for `spandrel map`: when the program exits, whenever it gets SIGUSR2,
    /// and with --map-every in between. Processes that it starts write to FILE.PID.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Add a snapshot to the map this often, as in `500ms`, `10s`; at the first slow call after that.
    #[arg(long, value_name = "TIME", requires = "map")]
    map_every: Option<String>,
    /// Whose call sites are in the map: of blocks sampled every 16 KiB on average, of all blocks (every
    /// call then costs about a microsecond), or of none (then the map costs nothing until it is written).
    #[arg(long, value_name = "WHOSE", requires = "map", value_parser = ["sampled", "all", "off"],
          default_value = "sampled")]
    sites: String,
    /// Record every allocation and every free in FILE, for `spandrel trace`: thread, time, size, address and
    /// stack. Processes that it starts record in FILE.PID.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// When the program exits, print to stderr every block that is still live, by the stack that allocated it,
    /// and whether anything still leads to it; with =all, all places and not only the largest.
    #[arg(long, value_name = "all", num_args = 0..=1, require_equals = true)]
    leaks: Option<Option<All>>,
    /// The exit code of a program that would end with 0 and has lost memory.
    #[arg(long, value_name = "CODE", requires = "leaks", value_parser = clap::value_parser!(u8).range(1..))]
    leaks_exit: Option<u8>,
    /// Write a sampled heap profile to FILE when the program exits: for pprof, or, if it ends with .svg, a flame
    /// graph of the heap at its peak. %p in it is the process id; without it FILE holds what the last of the
    /// program's processes wrote.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Bytes between two samples of the profile, on average, as in 64KiB; 1B samples every block.
    #[arg(long, value_name = "SIZE", requires = "profile", default_value = "512KiB")]
    profile_every: String,
    /// Use this library instead of the one inside the command.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Says that all is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum All {
    All,
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
    if let Some(options) = options(arguments, std::env::var_os("SPANDREL"))? {
        command.env("SPANDREL", options);
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

/// The option list in the environment and, at its end, what the flags wish for; none if there are no
/// wishes.
fn options(arguments: &Arguments, list: Option<OsString>) -> Result<Option<OsString>> {
    let mut wishes: Vec<OsString> = Vec::new();
    match &arguments.stats {
        None => {}
        Some(None) => wishes.push("stats=exit".into()),
        Some(Some(file)) => wishes.push(named("stats", file)?),
    }
    if let Some(file) = &arguments.map {
        wishes.push(named("map", fresh("map", file)?)?);
        wishes.push(format!("map-sites={}", arguments.sites).into());
    }
    if let Some(every) = &arguments.map_every {
        let known = every.contains(|digit: char| digit.is_ascii_digit() && digit != '0')
            && ["ms", "s", "min", "h"].iter().any(|unit| {
                every.strip_suffix(unit).is_some_and(|number| number.trim().parse::<f64>().is_ok())
            });
        if !known {
            let message =
                format!("--map-every {every}: wanted a time with its unit, as 500ms, 10s, 2min");
            return Err(Refusal::new(crate::FAILED, message).into());
        }
        wishes.push(format!("map-every={every}").into());
    }
    if let Some(file) = &arguments.trace {
        wishes.push(named("trace", fresh("trace", file)?)?);
    }
    if let Some(all) = arguments.leaks {
        wishes.push(if all.is_some() { "leaks=all" } else { "leaks=on" }.into());
    }
    if let Some(code) = arguments.leaks_exit {
        wishes.push(format!("leaks-exit={code}").into());
    }
    if let Some(file) = &arguments.profile {
        let every = &arguments.profile_every;
        let number = every.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = every[number.len()..].to_ascii_lowercase();
        let units = ["b", "k", "kb", "kib", "m", "mb", "mib", "g", "gb", "gib"];
        let known = units.contains(&unit.as_str())
            && number.trim().parse::<f64>().is_ok_and(|number| number > 0.0);
        if !known {
            let message = format!(
                "--profile-every {every}: wanted a size with its unit, as 64KiB, 1MiB; 1B samples all"
            );
            return Err(Refusal::new(crate::FAILED, message).into());
        }
        wishes.push(format!("profile={every}").into());
        wishes.push(named("profile-file", file)?);
    }
    if wishes.is_empty() {
        return Ok(None);
    }
    let all = list.into_iter().filter(|list| !list.is_empty()).chain(wishes);
    Ok(Some(all.collect::<Vec<_>>().join(OsStr::new(","))))
}

/// `KEY=FILE`, by its absolute path: the program may change its directory.
fn named(key: &str, file: &Path) -> Result<OsString> {
    let path = std::path::absolute(file)?;
    if path.as_os_str().as_encoded_bytes().contains(&b',') {
        let message = format!("--{key}={}: the path may not contain a comma", path.display());
        return Err(Refusal::new(crate::FAILED, message).into());
    }
    let mut option = OsString::from(format!("{key}="));
    option.push(path);
    Ok(option)
}

/// A file that is written anew: what an earlier run left there goes, or the program would leave it alone.
fn fresh<'a>(key: &str, file: &'a Path) -> Result<&'a Path> {
    let refuse =
        |why: String| Refusal::new(crate::FAILED, format!("--{key} {}: {why}", file.display()));
    match std::fs::symlink_metadata(file) {
        Ok(about) if !about.is_file() => return Err(refuse("not a file".to_owned()).into()),
        Ok(_) => std::fs::remove_file(file).map_err(|error| refuse(error.to_string()))?,
        Err(_) => {}
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    if !directory.unwrap_or(Path::new(".")).is_dir() {
        return Err(refuse("there is no such directory".to_owned()).into());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Arguments,
    }

    fn of(flags: &[&str], list: Option<&str>) -> Result<Option<OsString>> {
        let words = ["run"].iter().chain(flags).chain(&["--", "true"]);
        options(&Line::parse_from(words).run, list.map(OsString::from))
    }

    #[test]
    fn wishes_join_the_options_that_are_there() {
        let text =
            |flags: &[&str], list| of(flags, list).unwrap().map(|list| list.into_string().unwrap());
        assert_eq!(text(&[], Some("decay=1s")), None);
        assert_eq!(text(&["--stats"], None).unwrap(), "stats=exit");
        assert_eq!(text(&["--stats"], Some("decay=1s")).unwrap(), "decay=1s,stats=exit");
        assert_eq!(text(&["--stats=/tmp/a b"], Some("")).unwrap(), "stats=/tmp/a b");
        assert_eq!(
            text(&["--map", "/tmp/none.map", "--map-every", "0.5s"], None).unwrap(),
            "map=/tmp/none.map,map-sites=sampled,map-every=0.5s"
        );
        assert_eq!(text(&["--leaks", "--leaks-exit=23"], None).unwrap(), "leaks=on,leaks-exit=23");
        assert_eq!(text(&["--leaks=all"], None).unwrap(), "leaks=all");
        assert_eq!(
            text(&["--profile", "/a.svg", "--profile-every", "64KiB"], None).unwrap(),
            "profile=64KiB,profile-file=/a.svg"
        );
        assert_eq!(
            text(&["--profile", "/a"], Some("decay=1s")).unwrap(),
            "decay=1s,profile=512KiB,profile-file=/a"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let says = |flags: &[&str]| of(flags, None).unwrap_err().to_string();
        assert_eq!(
            says(&["--stats=/tmp/a,b"]),
            "--stats=/tmp/a,b: the path may not contain a comma"
        );
        assert_eq!(says(&["--map", "/no/such/x"]), "--map /no/such/x: there is no such directory");
        assert_eq!(says(&["--map", "/dev/null"]), "--map /dev/null: not a file");
        assert_eq!(
            says(&["--map", "/tmp/none.map", "--map-every", "soon"]),
            "--map-every soon: wanted a time with its unit, as 500ms, 10s, 2min"
        );
        assert_eq!(
            says(&["--profile=/a", "--profile-every=some"]),
            "--profile-every some: wanted a size with its unit, as 64KiB, 1MiB; 1B samples all"
        );
    }
}
