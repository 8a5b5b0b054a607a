//! Builds the programs in `programs/` and runs them: on the C library's own malloc first, so that what
//! they ask for is known to be what C programs get; then preloaded; then linked.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The library under test, in the profile of this test, and beside it that of the sized deletes. Cargo builds no
/// shared library for a test, so this does.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = profile_folder();
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("no profile in {}", folder.display()),
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "capi", "-p", "capi-sized"])
            .args(["--profile", profile, "--target-dir"])
            .arg(folder.parent().expect("cargo's folders"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the library does not build");
        folder.join("libspandrel.so")
    })
}

/// The library of the sized deletes.
#[allow(dead_code)] // Not every test needs it.
pub fn sized() -> PathBuf {
    library().with_file_name("libspandrel_sized.so")
}

/// target/PROFILE of target/PROFILE/deps/TEST.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    test.ancestors().nth(2).expect("cargo's folders").to_owned()
}

/// For files of the tests of this profile: those of another may run beside them.
#[allow(dead_code)] // Not every test has files.
pub fn temporary() -> PathBuf {
    let profile = profile_folder();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(profile.file_name().expect("named"));
    std::fs::create_dir_all(&folder).expect("cargo's folder can be written to");
    folder
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

/// Compiles `source` (below `programs/`) with more arguments; answers the binary.
pub fn compile(source: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let binary = temporary().join(name);
    let cxx = source.ends_with(".cc");
    let mut command = Command::new(if cxx { "c++" } else { "cc" });
    // No built-ins: the calls are to be made, not to be reasoned away.
    command.args(["-O1", "-g", "-w", "-fno-builtin", "-pthread", "-Werror=implicit"]);
    if cxx {
        command.arg("-std=c++20");
    }
    command.arg("-o").arg(&binary).arg(programs().join(source)).args(arguments);
    let output = command.output().expect("a C compiler is needed: cc and c++");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    binary
}

/// The arguments that link the shared library under test.
#[allow(dead_code)] // Not every test links.
pub fn link() -> Vec<String> {
    let so = library();
    let folder = so.parent().expect("it is in a folder").display();
    vec![format!("-L{folder}"), "-lspandrel".into(), format!("-Wl,-rpath,{folder}")]
}

/// Runs a program for at most five minutes and without a core file.
#[allow(dead_code)] // Not every test runs with the library or without.
pub fn run(binary: &Path, arguments: &[&str], preload: bool) -> Output {
    run_on(binary, arguments, preload.then(library))
}

/// As [`run`], on any library.
#[allow(dead_code)] // Not every test does.
pub fn run_on(binary: &Path, arguments: &[&str], preload: Option<&Path>) -> Output {
    run_for(300, binary, arguments, preload.map(Path::as_os_str), "")
}

/// Preloaded, for at most so many seconds, and it must end with 0.
#[track_caller]
#[allow(dead_code)] // Few tests are long.
pub fn passes_in(seconds: u32, binary: &Path, arguments: &[&str]) {
    let output = run_for(seconds, binary, arguments, Some(library().as_os_str()), "");
    assert!(output.status.success(), "{}: {output:?}", binary.display());
}

/// As [`run`], preloaded, with these options in its environment.
#[allow(dead_code)] // Not every test sets any.
pub fn run_with(binary: &Path, arguments: &[&str], options: &str) -> Output {
    run_for(300, binary, arguments, Some(library().as_os_str()), options)
}

/// As [`run_with`], and the sized deletes preloaded as well.
#[allow(dead_code)] // Not every test does.
pub fn run_sized(binary: &Path, arguments: &[&str], options: &str) -> Output {
    let both: OsString =
        [library().as_os_str(), OsStr::new(":"), sized().as_os_str()].into_iter().collect();
    run_for(300, binary, arguments, Some(&both), options)
}

fn run_for(
    seconds: u32,
    binary: &Path,
    arguments: &[&str],
    preload: Option<&OsStr>,
    options: &str,
) -> Output {
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("LD_PRELOAD").env_remove("SPANDREL");
    if let Some(list) = preload {
        command.env("LD_PRELOAD", list).env("SPANDREL", options);
    }
    // SAFETY: the hook only calls setrlimit and alarm, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &none);
            libc::alarm(seconds);
            Ok(())
        });
    }
    command.output().expect("the program runs")
}

/// As [`run`], and it must end with 0.
#[track_caller]
#[allow(dead_code)] // Not every test has programs that pass.
pub fn passes(how: &str, binary: &Path, arguments: &[&str], preload: bool) -> Output {
    let output = run(binary, arguments, preload);
    assert!(
        output.status.success(),
        "{how}: {}: {}\n{}{}",
        binary.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
