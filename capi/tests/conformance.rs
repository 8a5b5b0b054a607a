//! C and C++, one program a function: on glibc, preloaded, linked.

mod common;

use common::{compile, link, passes, run_with};

/// A program that passes on glibc as it does here.
#[track_caller]
fn everywhere(source: &str) {
    let name = source.replace(['/', '.'], "_");
    let program = compile(source, &name, &[]);
    passes("on glibc", &program, &[], false);
    passes("preloaded", &program, &[], true);
    linked(source);
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
        mallopt "api/mallopt.c"
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
