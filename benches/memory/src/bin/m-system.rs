//! The programs on the system allocator.

#[global_allocator]
static A: std::alloc::System = std::alloc::System;

fn main() -> std::process::ExitCode {
    memory::worker::main()
}
