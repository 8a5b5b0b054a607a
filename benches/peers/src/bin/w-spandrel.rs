//! The workloads on Spandrel, and what its floors cost.

use peers::{costs::Costs, floors::Floors};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "costs") {
        println!("{}", Costs::measure());
        return std::process::ExitCode::SUCCESS;
    }
    peers::worker::main(|| println!("{}", Floors::of_this_process()))
}
