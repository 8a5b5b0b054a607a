//! `spandrel run`: what it becomes, and what it refuses to.

mod common;

use common::*;
use predicates::prelude::*;
use predicates::str::{contains, is_match};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[test]
fn the_program_gets_its_arguments_and_its_exit_code() {
    let script = r#"printf '<%s>' "$@"; exit 7"#;
    spandrel()
        .args(["run", "--", "sh", "-c", script, "sh", "a b", "", "--stats"])
        .assert()
        .code(7)
        .stdout("<a b><><--stats>")
        .stderr("");
}

#[test]
fn input_passes_through() {
    spandrel().args(["run", "--", "tr", "a-z", "A-Z"]).write_stdin("abc").assert().stdout("ABC");
}

#[test]
fn the_library_serves_and_goes_before_others() {
    spandrel()
        .args(["run", "--", "cat", "/proc/self/maps"])
        .assert()
        .success()
        .stdout(is_match(r"(?m)/cache/spandrel/libspandrel-[0-9a-f]{16}\.so$").unwrap());
    spandrel()
        .env("LD_PRELOAD", "libm.so.6")
        .args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"])
        .assert()
        .stdout(is_match(r"^/\S+/libspandrel-[0-9a-f]{16}\.so:libm\.so\.6\n$").unwrap());
}

/// C++'s sized deletes go with the library when it looks at what they say, and only then.
#[test]
fn sized_deletes_are_preloaded_in_checked_mode() {
    let list = |options: &str, list: &str| {
        let list = is_match(format!("^{list}\n$")).unwrap();
        let print = ["run", "--", "sh", "-c", "echo $LD_PRELOAD"];
        spandrel().env("SPANDREL", options).args(print).assert().success().stdout(list).stderr("");
    };
    let both = r"\S+/libspandrel-[0-9a-f]{16}\.so:\S+/libspandrel_sized-[0-9a-f]{16}\.so";
    list("check=on", both);
    list("guard=1,check=stacks", both);
    list("check=off", r"\S+/libspandrel-[0-9a-f]{16}\.so");
    list("guard=1", r"\S+/libspandrel-[0-9a-f]{16}\.so");
}

/// A C++ program that deletes an object as if it were smaller ends by name; one that does not, well.
#[test]
fn wrong_sizes_of_deletes_are_named() {
    let directory = directory();
    let (source, program) = (directory.path().join("delete.cc"), directory.path().join("delete"));
    let text = "#include <string>
        struct Base { int number; };
        struct Derived : Base { char more[96]; };
        int main(int argc, char **) {
            delete new std::string(100, 'x');
            Base *base = argc > 1 ? new Derived : new Base;
            asm volatile(\"\" : \"+r\"(base));
            delete base;
        }";
    std::fs::write(&source, text).unwrap();
    // By another process, as in `file`.
    let compile = ["-std=c++17", "-fsized-deallocation", "-w", "-o"];
    let mut compiler = std::process::Command::new("c++");
    assert!(compiler.args(compile).arg(&program).arg(&source).status().unwrap().success());
    let run = |options: &str, arguments: &[&str]| {
        let mut command = spandrel();
        command.env("SPANDREL", options).args(["run", "--"]).arg(&program).args(arguments);
        command.assert()
    };
    run("check=on", &[]).success().stderr("");
    run("", &["derived"]).success().stderr("");
    run("check=on", &["derived"]).failure().stderr(
        is_match(
            r"^spandrel: free with a size or alignment that is not the block's: (0x[0-9a-f]+): a block of 100 bytes at 0x[0-9a-f]+, live, aligned to 16, given back as 4 bytes\n$",
        )
        .unwrap(),
    );
}

#[test]
fn death_by_a_signal_is_the_programs() {
    use std::os::unix::process::ExitStatusExt;
    let output = spandrel().args(["run", "--", "sh", "-c", "kill -TERM $$"]).output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "as shells see it: 143");
}

// Bash, for dash leaves by `_exit`.
#[test]
fn statistics_follow_the_programs_own_output() {
    let head =
        is_match(r"^before\nspandrel: \d+ bash\nspandrel: where 1\.\d GiB of address space are\n");
    spandrel()
        .args(["run", "--stats", "--", "bash", "-c", "echo before >&2; :"])
        .assert()
        .success()
        .stdout("")
        .stderr(head.unwrap().and(contains("off by 0 B\n")));
}

#[test]
fn statistics_reach_the_terminal_although_the_program_closed_it() {
    spandrel()
        .args(["run", "--stats", "--", "bash", "-c", "exec 2>&-; echo out"])
        .assert()
        .stdout("out\n")
        .stderr(is_match(r"^spandrel: \d+ bash\n").unwrap());
}

#[test]
fn statistics_of_every_process_go_to_a_file() {
    let directory = directory();
    spandrel()
        .current_dir(directory.path())
        .args([
            "run",
            "--stats=log",
            "--",
            "bash",
            "-c",
            "cd /; bash -c 'exit 0'; ls / >/dev/null; exit 5",
        ])
        .assert()
        .code(5)
        .stderr("");
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let mut names: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("spandrel: ")?.split_once(' '))
        .filter(|(id, _)| id.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(_, name)| name)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["bash", "bash", "ls"]);
}

#[test]
fn options_that_are_there_stay() {
    spandrel()
        .env("SPANDREL", "decay=1s")
        .args(["run", "--stats", "--", "sh", "-c", "echo $SPANDREL"])
        .assert()
        .stdout("decay=1s,stats=exit\n");
}

/// `run FILE` ends with a code and a line on standard error.
fn refused(path: &Path, code: i32, why: &str) {
    let line = format!("spandrel: {}: {why}\n", path.display());
    spandrel().args(["run", "--"]).arg(path).assert().code(code).stdout("").stderr(line);
}

#[test]
fn what_is_not_there_is_127() {
    spandrel()
        .env("PATH", "/usr/bin:/bin")
        .args(["run", "--", "no-such-program"])
        .assert()
        .code(127)
        .stderr("spandrel: no-such-program: not found in the 2 directories of PATH\n");
    refused(Path::new("/no/such/program"), 127, "no such file");
}

#[test]
fn what_cannot_be_run_is_126() {
    let directory = directory();
    let directory = directory.path();
    refused(directory, 126, "is a directory");
    refused(Path::new("/dev/null"), 126, "is not a regular file");
    refused(&file(directory, "plain", b"#!/bin/sh\n", 0o644), 126, "is not executable (mode 0644)");
    refused(
        &file(directory, "binary", b"\x00\x01\x02", 0o755),
        126,
        "neither an ELF program nor a script",
    );
}

#[test]
fn a_file_on_the_path_that_may_not_be_executed_is_named() {
    let directory = directory();
    let path = file(directory.path(), "tool", b"#!/bin/sh\n", 0o600);
    spandrel()
        .env("PATH", directory.path())
        .args(["run", "--", "tool"])
        .assert()
        .code(126)
        .stderr(format!("spandrel: {}: is not executable (mode 0600)\n", path.display()));
}

#[test]
fn programs_that_no_library_reaches_are_told() {
    let directory = directory();
    let directory = directory.path();
    refused(
        &file(directory, "static", &static_program(), 0o755),
        126,
        "statically linked, so nothing can be preloaded into it; link it with libspandrel.a",
    );
    if cfg!(target_arch = "x86_64") {
        refused(
            &file(directory, "narrow", &narrow_program(), 0o755),
            126,
            "a 32-bit i386 program; the library is 64-bit x86-64",
        );
        refused(
            &file(directory, "musl", &with_loader("/lib/ld-musl-x86_64.so.1"), 0o755),
            126,
            "linked to musl; the library is for glibc",
        );
        refused(
            &file(directory, "lost", &with_loader("/lib64/ld-linux-x86-64.so.9"), 0o755),
            126,
            "its loader /lib64/ld-linux-x86-64.so.9 is not on this machine",
        );
    }
    let mut broken = dynamic_program();
    broken.truncate(100);
    let broken = file(directory, "broken", &broken, 0o755);
    spandrel()
        .args(["run", "--"])
        .arg(&broken)
        .assert()
        .code(126)
        .stderr(contains("broken: a damaged ELF file: "));
}

#[test]
fn privileged_programs_are_told() {
    // SAFETY: no arguments, never fails.
    if unsafe { libc::geteuid() } != 0 {
        // Somebody else's setuid program cannot be made here; `su` is one everywhere.
        let su = Path::new("/usr/bin/su");
        return refused(su, 126, "setuid, so the loader ignores LD_PRELOAD for this user");
    }
    let directory = directory();
    let make = |name, user, group, mode| {
        let path = file(directory.path(), name, &dynamic_program(), 0o755);
        std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        // The kernel clears the bits when the owner changes.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        path
    };
    let setuid = make("setuid", 65534, 0, 0o4755);
    refused(&setuid, 126, "setuid, so the loader ignores LD_PRELOAD for this user");
    let setgid = make("setgid", 0, 65534, 0o2755);
    refused(&setgid, 126, "setgid, so the loader ignores LD_PRELOAD for this user");
    // Its own user's bit changes nothing.
    let own = make("own", 0, 0, 0o6755);
    spandrel().args(["run", "--"]).arg(own).arg("--version").assert().success();
}

#[test]
fn scripts_run_when_their_interpreters_do() {
    let directory = directory();
    let directory = directory.path();
    for (name, text) in [
        ("direct", "#!/bin/sh\necho $LD_PRELOAD $0\n"),
        ("spaced", "#! /bin/sh -e\necho $LD_PRELOAD $0\n"),
        ("through-env", "#!/usr/bin/env sh\necho $LD_PRELOAD $0\n"),
        ("split", "#!/usr/bin/env -S A=1 sh -e\necho $LD_PRELOAD $0\n"),
        ("bare", "echo $LD_PRELOAD $0\n"),
    ] {
        let path = file(directory, name, text.as_bytes(), 0o755);
        let output = spandrel().args(["run", "--"]).arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let end = format!(".so {}\n", path.display());
        assert!(text.contains("libspandrel-") && text.ends_with(&end), "{name}: {text}");
    }
}

#[test]
fn scripts_fail_where_their_interpreters_do() {
    let directory = directory();
    let directory = directory.path();
    let script = |name, text: String| file(directory, name, text.as_bytes(), 0o755);
    refused(
        &script("lost", "#!/no/such/sh\n".into()),
        126,
        "its interpreter /no/such/sh is not on this machine",
    );
    refused(&script("empty", "#!\n".into()), 126, "a script that names no interpreter after #!");
    let alone = file(directory, "alone", &static_program(), 0o755);
    let by_static = script("by-static", format!("#!{}\n", alone.display()));
    spandrel().args(["run", "--"]).arg(&by_static).assert().code(126).stderr(format!(
        "spandrel: {}: statically linked, so nothing can be preloaded into it; link it with \
         libspandrel.a\n",
        alone.display()
    ));
    let round = directory.join("round");
    let round = script("round", format!("#!{}\n", round.display()));
    refused(&round, 126, "more than four interpreters in a row");
    let env = script("env", "#!/usr/bin/env no-such-tool\n".into());
    spandrel().env("PATH", "/usr/bin").args(["run", "--"]).arg(&env).assert().code(126).stderr(
        format!(
            "spandrel: {}: its interpreter no-such-tool: not found in the 1 directory of PATH\n",
            env.display()
        ),
    );
}

#[test]
fn another_library_must_be_one() {
    spandrel()
        .args(["run", "--library", "/etc/passwd", "--", "true"])
        .assert()
        .code(125)
        .stderr("spandrel: /etc/passwd: not an ELF library\n");
    spandrel()
        .args(["run", "--library", "/no/lib.so", "--", "true"])
        .assert()
        .code(125)
        .stderr("spandrel: /no/lib.so: no such library\n");
}

#[test]
fn wrong_usage_is_2() {
    spandrel().args(["run"]).assert().code(2).stderr(contains("required"));
    spandrel().args(["run", "--no-such", "--", "true"]).assert().code(2);
    let refused = |flags: &[&str]| {
        let run = spandrel().arg("run").args(flags).args(["--", "echo", "started"]).assert();
        run.code(2).stdout("").stderr(contains("allowed: "));
    };
    for every in ["64kb", "0.5B", "off", "some"] {
        refused(&["--profile", "/tmp/none", "--profile-every", every]);
    }
    for every in ["1e1s", "99999h", "soon"] {
        refused(&["--map", "/tmp/none", "--map-every", every]);
    }
}

#[test]
fn without_a_home_the_library_lies_in_the_temporary_directory() {
    let directory = directory();
    let output = spandrel()
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HOME")
        .env("TMPDIR", directory.path())
        .args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"])
        .output()
        .unwrap();
    let path = String::from_utf8(output.stdout).unwrap();
    assert!(path.as_bytes().starts_with(directory.path().as_os_str().as_bytes()), "{path}");
}

#[test]
fn statistics_take_no_path_with_a_comma() {
    spandrel()
        .args(["run", "--stats=/tmp/a,b", "--", "true"])
        .assert()
        .code(2)
        .stderr("spandrel: --stats=/tmp/a,b: the path may not contain a comma\n");
}

/// The C program that loses blocks in known places, from the tests of the library.
fn leaky(directory: &Path) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capi/tests/programs/watch/leaky.c");
    let to = directory.join("leaky");
    let mut compiler = std::process::Command::new("cc");
    let status = compiler.args(["-g", "-O1", "-pthread", "-o"]).args([&to, &source]).status();
    assert!(status.expect("there is a C compiler").success());
    to
}

#[test]
fn leaks_are_told_and_change_the_exit_code() {
    let directory = directory();
    let program = leaky(directory.path());
    let lost =
        is_match(r"spandrel: leaks of \d+ leaky: 12 blocks of 3,154,176 bytes lost").unwrap();
    spandrel()
        .args(["run", "--leaks", "--leaks-exit", "23", "--"])
        .arg(&program)
        .assert()
        .code(23)
        .stderr(lost.and(contains("lose_large")));
    spandrel()
        .args(["run", "--leaks", "--leaks-exit", "23", "--"])
        .args([program.as_os_str(), "clean".as_ref()])
        .assert()
        .success()
        .stderr(contains(" leaky: nothing is lost; "));
}

#[test]
fn a_profile_is_written_at_the_end() {
    let directory = directory();
    let program = leaky(directory.path());
    let file = directory.path().join("heap.pb.gz");
    spandrel()
        .args(["run", "--profile"])
        .arg(&file)
        .args(["--profile-every", "1KiB", "--"])
        .arg(&program)
        .assert()
        .success();
    assert_eq!(std::fs::read(&file).unwrap()[..2], [0x1f, 0x8b], "gzip");
}

#[test]
fn files_that_cannot_be_are_refused_before_the_program_starts() {
    let directory = directory();
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let fifo = fifo.to_str().unwrap();
    for (file, why) in [
        ("/dev/full", "not a file"),
        ("/tmp", "not a file"),
        (fifo, "not a file"),
        ("/no/such/x", "there is no such directory"),
        ("/proc/self/x", "the directory cannot be written to: "),
    ] {
        for flag in ["--stats", "--profile", "--map", "--trace"] {
            spandrel()
                .args(["run", &format!("{flag}={file}"), "--", "echo", "started"])
                .assert()
                .code(125)
                .stdout("")
                .stderr(contains(format!("spandrel: {flag} {file}: {why}")));
        }
    }
}

#[test]
fn help_lists_the_options() {
    spandrel().args(["run", "--help"]).assert().success().stdout(
        contains("hugepages     auto, always or never")
            .and(contains("map-every     a time with its unit")),
    );
}
