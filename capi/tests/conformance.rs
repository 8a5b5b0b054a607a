//! C and C++, one program a function: on glibc, preloaded, linked.

mod common;

use common::{compile, link, passes, run_on, run_sized, run_with, sized};
use std::path::{Path, PathBuf};

/// A program that passes on glibc as it does here.
#[track_caller]
fn everywhere(source: &str) {
    preloaded(source);
    linked(source);
}

#[track_caller]
fn preloaded(source: &str) -> PathBuf {
    let program = compile(source, &source.replace(['/', '.'], "_"), &[]);
    passes("on glibc", &program, &[], false);
    passes("preloaded", &program, &[], true);
    program
}

/// A C++ program that passes whether or not the sized deletes are preloaded too, and whether or not what they say is
/// looked at.
#[track_caller]
fn sized_everywhere(source: &str) {
    with_sized(&preloaded(source), &[]);
    linked(source);
}

#[track_caller]
fn with_sized(program: &Path, arguments: &[&str]) {
    let good = |how: &str, output: std::process::Output| {
        assert!(output.status.success(), "{how}: {}: {output:?}", program.display());
    };
    for options in ["", "check=on", "check=stacks", "check=on,guard=2"] {
        good(options, run_sized(program, arguments, options));
    }
    good("alone", run_on(program, arguments, Some(&sized())));
}

/// A program for what glibc does not have (or not in every version that is about).
#[track_caller]
fn linked(source: &str) {
    let name = source.replace(['/', '.'], "_") + "_linked";
    let link = link();
    let link: Vec<&str> = link.iter().map(String::as_str).collect();
    let program = compile(source, &name, &link);
    passes("linked", &program, &[], false);
}

macro_rules! programs {
    ($($how:ident: $($name:ident $source:literal)*;)*) => {
        $($(#[test] fn $name() { $how($source); })*)*
    };
}

programs! {
    everywhere:
        malloc "api/malloc.c"
        free "api/free.c"
        calloc "api/calloc.c"
        realloc "api/realloc.c"
        reallocarray "api/reallocarray.c"
        posix_memalign "api/posix_memalign.c"
        aligned_alloc "api/aligned_alloc.c"
        memalign "api/memalign.c"
        valloc "api/valloc.c"
        pvalloc "api/pvalloc.c"
        malloc_usable_size "api/malloc_usable_size.c"
        malloc_trim "api/malloc_trim.c"
        mallinfo "api/mallinfo.c"
        mallinfo2 "api/mallinfo2.c"
        malloc_info "api/malloc_info.c"
        malloc_stats "api/malloc_stats.c"
        mallopt "api/mallopt.c";
    sized_everywhere:
        new_delete "cxx/new_delete.cc"
        new_replaced "cxx/replaced.cc"
        new_replaced_aligned "cxx/replaced_aligned.cc"
        new_nothrow "cxx/nothrow.cc"
        new_aligned "cxx/aligned.cc"
        delete_sized "cxx/sized.cc"
        new_out_of_memory "cxx/out_of_memory.cc"
        new_handler "cxx/new_handler.cc"
        exceptions "cxx/exceptions.cc";
    linked:
        free_sized "api/free_sized.c"
        free_aligned_sized "api/free_aligned_sized.c"
        cfree "api/cfree.c"
        nallocx "api/nallocx.c"
        sdallocx "api/sdallocx.c"
        header "cxx/header.cc";
}

/// Who asked is told that the soft limit was crossed, and only who.
#[test]
fn on_pressure() {
    let link = link();
    let link: Vec<&str> = link.iter().map(String::as_str).collect();
    let program = compile("api/on_pressure.c", "on_pressure", &link);
    let output = run_with(&program, &[], "soft=64MiB");
    assert!(output.status.success(), "{output:?}");
}

/// Nobody is blamed who says what is so. (Compiled once: the headers of half the standard library take long.)
#[test]
fn delete_sized_forms() {
    with_sized(&preloaded("cxx/sized_forms.cc"), &[]);
}

/// Replacements of the forms without a size are called by the sized ones, and what their blocks are is their business.
#[test]
fn delete_sized_replaced() {
    for (name, defined) in [
        ("longer", &[][..]),
        ("longer_aligned", &["-DALIGNED"]),
        ("inside", &["-DINSIDE"]),
        ("inside_aligned", &["-DINSIDE", "-DALIGNED"]),
    ] {
        let program = compile("cxx/sized_replaced.cc", &format!("sized_{name}"), defined);
        passes("on glibc", &program, &[], false);
        passes("preloaded", &program, &[], true);
        with_sized(&program, &[]);
    }
}

/// A program without C++ opens a library that brings the runtime, or operators of its own.
#[test]
fn delete_sized_in_opened_libraries() {
    let program = compile("cxx/opener.c", "opener", &[]);
    for (name, defined) in [("opened.so", "-DAS_EVER"), ("opened_replaced.so", "-DREPLACED")] {
        let opened = compile("cxx/opened.cc", name, &["-shared", "-fPIC", defined]);
        let opened = opened.to_str().expect("a path in UTF-8");
        passes("on glibc", &program, &[opened], false);
        passes("preloaded", &program, &[opened], true);
        with_sized(&program, &[opened]);
    }
}
