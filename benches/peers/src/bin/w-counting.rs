//! The workloads on the system allocator, with every call counted.

use peers::floors::Counting;

#[global_allocator]
static A: Counting = Counting;

fn main() -> std::process::ExitCode {
    peers::worker::main(|| println!("{}", Counting::calls()))
}
