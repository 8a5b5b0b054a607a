//! `spandrel run`: becomes the program, with the library preloaded.

use crate::options::{Check, InForce};
use crate::{CANNOT_RUN, FAILED, Refusal, USAGE, library, options, program};
use anyhow::Result;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Run a program on Spandrel.
///
/// The command becomes the program: its process id, its streams and its exit code are the program's.
/// Programs that it starts in turn run on Spandrel too.
#[derive(clap::Args)]
#[command(after_help = options::help())]
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
    #[arg(long, value_name = "TIME", requires = "map", value_parser = options::value("map-every"))]
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
    #[arg(long, value_name = "SIZE", requires = "profile", default_value = "512KiB",
          value_parser = options::value("profile"))]
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
    // No flag says anything of it.
    let sized = if checks(options::variable()) { Some(library::sized()?) } else { None };

    let mut command = Command::new(&program.path);
    command.arg0(&arguments.command[0]).args(&arguments.command[1..]);
    command.env("LD_PRELOAD", preload([&*library].into_iter().chain(sized.as_deref())));
    if let Some(options) = wishes(arguments, options::variable())? {
        command.env("SPANDREL", options);
    }
    let error = command.exec();
    Err(Refusal::new(CANNOT_RUN, format!("{}: {error}", program.path.display())).into())
}

/// Libraries, before what the environment preloads already.
pub fn preload<'a>(libraries: impl IntoIterator<Item = &'a Path>) -> OsString {
    let before = std::env::var_os("LD_PRELOAD").filter(|list| !list.is_empty());
    let libraries = libraries.into_iter().map(|library| library.as_os_str().to_owned());
    libraries.chain(before).collect::<Vec<_>>().join(OsStr::new(":"))
}

/// Whether a program with these options starts in checked mode.
fn checks(list: Option<OsString>) -> bool {
    let options = list.map(|list| InForce::of(&list).options);
    options.and_then(|options| options.check).is_some_and(|check| check != Check::Off)
}

/// The option list in the environment and, at its end, what the flags wish for; none if there are no
/// wishes.
fn wishes(arguments: &Arguments, list: Option<OsString>) -> Result<Option<OsString>> {
    let mut wishes: Vec<OsString> = Vec::new();
    match &arguments.stats {
        None => {}
        Some(None) => wishes.push("stats=exit".into()),
        Some(Some(file)) => wishes.push(named("stats", file)?),
    }
    if let Some(file) = &arguments.map {
        wishes.push(named("map", file)?);
        wishes.push(format!("map-sites={}", arguments.sites).into());
    }
    if let Some(every) = &arguments.map_every {
        wishes.push(format!("map-every={every}").into());
    }
    if let Some(file) = &arguments.trace {
        wishes.push(named("trace", file)?);
    }
    if let Some(all) = arguments.leaks {
        wishes.push(if all.is_some() { "leaks=all" } else { "leaks=on" }.into());
    }
    if let Some(code) = arguments.leaks_exit {
        wishes.push(format!("leaks-exit={code}").into());
    }
    if let Some(file) = &arguments.profile {
        wishes.push(format!("profile={}", arguments.profile_every).into());
        wishes.push(named("profile-file", file)?);
    }
    files(arguments)?;
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
        let flag = key.strip_suffix("-file").unwrap_or(key);
        let message = format!("--{flag}={}: the path may not contain a comma", path.display());
        return Err(Refusal::new(USAGE, message).into());
    }
    let mut option = OsString::from(format!("{key}="));
    option.push(path);
    Ok(option)
}

/// Refuses files that the library could not write, while there is somebody to tell: when the program ends it may have
/// run for hours. What an earlier run left of a map or a trace goes, or the library would leave it alone; only when
/// nothing is refused any more.
fn files(arguments: &Arguments) -> Result<()> {
    let stats = arguments.stats.as_ref().and_then(Option::as_ref);
    if let Some(file) = stats {
        place("stats", file, Written::Appended)?;
    }
    if let Some(file) = &arguments.profile {
        // `%p` is the process's number, which the program keeps.
        let file = file.as_os_str().as_bytes();
        let number = std::process::id().to_string();
        let mut path = Vec::new();
        let mut rest = file;
        while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
            path.extend_from_slice(&rest[..at]);
            path.extend_from_slice(number.as_bytes());
            rest = &rest[at + 2..];
        }
        path.extend_from_slice(rest);
        place("profile", Path::new(OsStr::from_bytes(&path)), Written::Renamed)?;
    }
    let fresh = [("map", &arguments.map), ("trace", &arguments.trace)];
    let fresh = || fresh.iter().filter_map(|(key, file)| Some((*key, file.as_ref()?)));
    for (key, file) in fresh() {
        place(key, file, Written::Created)?;
    }
    for (key, file) in fresh() {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("--{key} {}: {error}", file.display());
                return Err(Refusal::new(FAILED, message).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// How the library writes a file.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    /// At the end of what is there.
    Appended,
    /// By another name first, which then takes this one's place.
    Renamed,
    /// As a new file.
    Created,
}

/// Whether a file can be written.
fn place(key: &str, file: &Path, written: Written) -> Result<(), Refusal> {
    let refuse =
        |why: String| Err(Refusal::new(FAILED, format!("--{key} {}: {why}", file.display())));
    // A link leads to what is written, but where a new file is made nothing may stand.
    let there = match written {
        Written::Appended | Written::Renamed => std::fs::metadata(file),
        Written::Created => std::fs::symlink_metadata(file),
    };
    if there.as_ref().is_ok_and(|about| !about.is_file()) {
        return refuse("not a file".to_owned());
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return refuse("there is no such directory".to_owned());
    }
    // Tried, not asked: permissions are not all that a write may fail for.
    let (what, tried) = match there {
        Ok(_) if written == Written::Appended => {
            ("file", std::fs::File::options().append(true).open(file).map(drop))
        }
        _ => ("directory", tempfile::tempfile_in(directory).map(drop)),
    };
    match tried {
        Ok(()) => Ok(()),
        Err(error) => refuse(format!("the {what} cannot be written to: {error}")),
    }
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
        wishes(&Line::parse_from(words).run, list.map(OsString::from))
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
            text(&["--profile", "/tmp/a.svg", "--profile-every", "64KiB"], None).unwrap(),
            "profile=64KiB,profile-file=/tmp/a.svg"
        );
        assert_eq!(
            text(&["--profile", "/tmp/a"], Some("decay=1s")).unwrap(),
            "decay=1s,profile=512KiB,profile-file=/tmp/a"
        );
    }

    #[test]
    fn checked_mode_is_what_the_library_makes_of_the_options() {
        let checks = |list: &str| super::checks(Some(list.into()));
        assert!(
            checks("check=on") && checks("decay=1s, check=stacks") && checks("check=off,check=on")
        );
        assert!(!checks("") && !checks("check=off") && !checks("check=on,check=off"));
        assert!(!checks("check=perhaps") && !checks("guard=1") && !super::checks(None));
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
            says(&["--profile", "/no/such/x"]),
            "--profile /no/such/x: there is no such directory"
        );
        assert_eq!(says(&["--profile", "/dev/null"]), "--profile /dev/null: not a file");
        assert_eq!(
            says(&["--profile", "/tmp/a,b"]),
            "--profile=/tmp/a,b: the path may not contain a comma"
        );
        assert_eq!(says(&["--stats=/dev/full"]), "--stats /dev/full: not a file");
        assert_eq!(says(&["--stats=/no/such/x"]), "--stats /no/such/x: there is no such directory");
    }

    #[test]
    fn nothing_is_removed_before_all_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let map = directory.path().join("map");
        std::fs::write(&map, "of an earlier run").unwrap();
        let name = map.to_str().unwrap();
        of(&["--map", name, "--trace", "/no/such/x"], None).unwrap_err();
        assert!(map.exists());
        // The directory has the process's number in its name, as the library would make it.
        let numbered = directory.path().join(std::process::id().to_string());
        std::fs::create_dir(numbered).unwrap();
        let profile = directory.path().join("%p/heap.%p");
        of(&["--map", name, "--profile", profile.to_str().unwrap()], None).unwrap();
        assert!(!map.exists());
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        for flags in [
            &["--profile", "/a", "--profile-every", "64kb"][..],
            &["--profile", "/a", "--profile-every", "0.5B"],
            &["--map", "/a", "--map-every", "1e1s"],
            &["--map", "/a", "--map-every", "99999h"],
        ] {
            let words = ["run"].iter().chain(flags).chain(&["--", "true"]);
            let error = Line::try_parse_from(words).map(|_| ()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(": allowed: "), "{error}");
        }
    }
}
