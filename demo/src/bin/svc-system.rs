//! The demo's service on the C library's allocator.

#[global_allocator]
static ALLOCATOR: std::alloc::System = std::alloc::System;

fn main() -> std::process::ExitCode {
    demo::service_main::run("system", || None)
}
