//! The workloads on the system allocator; with `empty`, the harness alone.

#[global_allocator]
static A: std::alloc::System = std::alloc::System;

fn main() -> std::process::ExitCode {
    peers::worker::main(|| ())
}
