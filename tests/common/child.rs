//! A test that runs a part of itself in a process of its own: one that dies, or that lives under
//! limits.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

const VARIABLE: &str = "SPANDREL_CHILD";

/// Whether this process is the child of the test `name`.
pub fn is(name: &str) -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == name)
}

/// Runs the test `name` of this very program again, as a child, with these limits.
pub fn run(name: &str, limits: &'static [(u32, u64)]) -> Output {
    command(name, limits).output().expect("the child runs")
}

/// As [`run`], with these options in its environment.
pub fn run_with(name: &str, options: &str) -> Output {
    command(name, &[]).env("SPANDREL", options).output().expect("the child runs")
}

fn command(name: &str, limits: &'static [(u32, u64)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(VARIABLE, name);
    // The C library would reserve 64 MiB for every thread that calls its malloc.
    command.env("MALLOC_ARENA_MAX", "1");
    // SAFETY: the hook only calls setrlimit, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // No core files from those who are meant to die.
            for &(resource, most) in limits.iter().chain(&[(libc::RLIMIT_CORE, 0)]) {
                let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                if libc::setrlimit(resource, &limit) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command
}

/// As [`run`], and the child must pass.
#[track_caller]
pub fn passes(name: &str, limits: &'static [(u32, u64)]) -> String {
    passed(name, &run(name, limits)).0
}

/// As [`passes`], with these options in its environment: what it printed, and what it complained of.
#[track_caller]
pub fn passes_with(name: &str, options: &str) -> (String, String) {
    passed(name, &run_with(name, options))
}

#[track_caller]
fn passed(name: &str, output: &Output) -> (String, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {}\n{text}\n{errors}", output.status);
    assert!(text.contains("1 passed"), "{name} ran no test:\n{text}");
    (text, errors)
}

/// For children whose threads wait for each other: one that panics would leave the others waiting.
pub fn ends_with_the_first_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::exit(101);
    }));
}
