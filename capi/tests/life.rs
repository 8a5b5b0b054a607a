//! The lives of processes and threads: constructors, libraries opened late, thread exit, small stacks,
//! no memory, fork.

mod common;

use common::{compile, library, link, passes, temporary};

fn linked(source: &str, name: &str) -> std::path::PathBuf {
    let link = link();
    compile(source, name, &link.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A program that passes on glibc as it does here.
#[track_caller]
fn everywhere(name: &str) {
    let source = format!("life/{name}.c");
    passes("on glibc", &compile(&source, name, &[]), &[], false);
    here(name);
}

/// A program for what glibc does not promise, or does not do.
#[track_caller]
fn here(name: &str) {
    let source = format!("life/{name}.c");
    passes("preloaded", &compile(&source, name, &[]), &[], true);
    passes("linked", &linked(&source, &format!("{name}_linked")), &[], false);
}

#[test]
fn every_name_is_taken() {
    here("symbols");
}

#[test]
fn before_constructors_and_after_destructors() {
    let name = "constructors";
    everywhere(name);
    let output = passes("preloaded", &compile("life/constructors.c", name, &[]), &[], true);
    assert_eq!(output.stdout, b"the end\n");
}

#[test]
fn threads_that_come_and_go() {
    everywhere("threads");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "16 KiB hold the frames of an optimised library only")]
fn threads_with_the_smallest_stack() {
    everywhere("small_stack");
}

/// A recorded call needs more: its stack is walked and its chunk of the file mapped.
#[test]
#[cfg_attr(debug_assertions, ignore = "24 KiB hold the frames of an optimised library only")]
fn threads_with_small_stacks_while_calls_are_recorded() {
    let program = compile("life/small_stack.c", "small_stack_recorded", &[]);
    let file = temporary().join("small_stack.trace");
    let options = format!("trace={}", file.display());
    let output = common::run_with(&program, &["24576"], &options);
    assert!(output.status.success(), "{output:?}");
    std::fs::remove_file(&file).expect("it was written");
}

#[test]
fn first_call_without_memory() {
    everywhere("no_memory");
}

#[test]
fn what_is_noted_of_objects_goes_back_with_them() {
    here("shadow");
}

#[test]
fn free_keeps_errno() {
    everywhere("errno_of_free");
}

#[test]
fn fork_while_others_allocate() {
    // A few rounds: glibc takes every lock there is before each, and sixteen threads have them.
    let program = compile("life/fork.c", "fork", &[]);
    passes("on glibc", &program, &["3"], false);
    // Without optimisation this is most of what all tests here take; the release build makes as many rounds as ever.
    let rounds = if cfg!(debug_assertions) { "15" } else { "60" };
    passes("preloaded", &program, &[rounds], true);
    passes("linked", &linked("life/fork.c", "fork_linked"), &[rounds], false);
}

/// glibc hangs here: the handler's malloc waits for a lock that the interrupted one holds.
#[test]
fn fork_in_a_handler_that_interrupted_malloc() {
    here("fork_in_handler");
}

#[test]
fn fork_while_stdio_is_locked() {
    everywhere("fork_stdio");
}

#[test]
fn inside_dlopen_and_dlclose() {
    let plugin = compile("life/plugin.c", "plugin.so", &["-DPLUGIN", "-shared", "-fPIC"]);
    let plugin = plugin.to_str().expect("a path in UTF-8");
    let program = compile("life/plugin.c", "plugin", &[]);
    passes("on glibc", &program, &[plugin], false);
    passes("preloaded", &program, &[plugin], true);
    passes("linked", &linked("life/plugin.c", "plugin_linked"), &[plugin], false);
}

#[test]
fn inside_dlopen_with_thread_local_objects() {
    let plugin = compile("life/plugin_tls.cc", "plugin_tls.so", &["-DPLUGIN", "-shared", "-fPIC"]);
    let plugin = plugin.to_str().expect("a path in UTF-8");
    let program = compile("life/plugin_tls.cc", "plugin_tls", &[]);
    passes("on glibc", &program, &[plugin], false);
    passes("preloaded", &program, &[plugin], true);
    passes("linked", &linked("life/plugin_tls.cc", "plugin_tls_linked"), &[plugin], false);
}

#[test]
fn vfork_and_posix_spawn_from_sixteen_threads() {
    everywhere("spawn");
}

#[test]
fn fork_inside_a_purge() {
    let program = compile("life/fork_in_purge.c", "fork_in_purge", &["-rdynamic"]);
    passes("on glibc", &program, &[], false);
    passes("preloaded", &program, &[], true);
}

#[test]
fn fork_inside_a_thread_s_end() {
    everywhere("fork_at_exit");
}

#[test]
fn cancelled_and_detached_threads() {
    everywhere("cancel");
}

/// A program that passes under these options.
#[track_caller]
fn under(options: &str, name: &str) {
    let output = common::run_with(&compile(&format!("life/{name}.c"), name, &[]), &[], options);
    assert!(output.status.success() && output.stderr.is_empty(), "{options}: {output:?}");
}

#[test]
fn a_limit_is_kept() {
    under("limit=64MiB", "limit");
}

#[test]
fn memory_goes_back_while_the_program_sleeps() {
    under("background=on,decay=400ms", "background");
}

/// Nor while it writes a file: what the thread has at hand would be lost.
#[test]
fn no_allocation_is_a_place_to_be_cancelled() {
    everywhere("cancel_pending");
    let program = compile("life/cancel_pending.c", "cancel_recorded", &[]);
    for (option, besides) in [("trace", ""), ("map", ",map-every=20ms")] {
        let file = temporary().join(format!("cancel.{option}"));
        let options = format!("{option}={}{besides}", file.display());
        let output = common::run_with(&program, &[], &options);
        assert!(output.status.success(), "{options}: {output:?}");
        std::fs::remove_file(&file).expect("it was written");
    }
}

#[test]
fn signals_at_10_khz() {
    everywhere("signals");
}

/// Hours of it: `ci/long.sh lives`.
#[test]
#[ignore = "long"]
fn many_lives() {
    for (name, argument) in
        [("fork", "1000"), ("spawn", "60"), ("cancel", "100000"), ("signals", "200000")]
    {
        let program = compile(&format!("life/{name}.c"), &format!("{name}_long"), &[]);
        let begun = std::time::Instant::now();
        common::passes_in(1800, &program, &[argument]);
        println!("{name} {argument}: {:.0} s", begun.elapsed().as_secs_f64());
    }
}

/// The library itself is opened late: its thread-local word finds room, in old threads and new ones.
#[test]
fn opened_late() {
    let program = compile("life/opened.c", "opened", &[]);
    passes("opened", &program, &[library().to_str().expect("a path in UTF-8")], false);
}

/// Programs without any shared library, at a fixed address and at any.
#[test]
fn static_programs() {
    let archive = library().with_extension("a");
    let archive = archive.to_str().expect("a path in UTF-8");
    for (how, flag) in [("static", "-static"), ("static-pie", "-static-pie")] {
        for source in ["api/realloc", "life/constructors", "life/threads", "life/fork_at_exit"] {
            let name = format!("{}_{how}", source.replace('/', "_"));
            let program = compile(&format!("{source}.c"), &name, &[flag, archive, "-lm"]);
            passes(how, &program, &[], false);
        }
    }
}

/// `libspandrel.a`, linked into the program itself.
#[test]
fn linked_statically() {
    let archive = library().with_extension("a");
    let program = compile(
        "api/realloc.c",
        "realloc_archive",
        &[archive.to_str().expect("a path in UTF-8"), "-lm"],
    );
    passes("linked statically", &program, &[], false);
    let needed = std::process::Command::new("nm").arg(&program).output().expect("nm is there");
    let symbols = String::from_utf8_lossy(&needed.stdout).into_owned();
    assert!(
        symbols.lines().any(|line| line.ends_with(" T malloc")),
        "malloc is not in the program"
    );
}
