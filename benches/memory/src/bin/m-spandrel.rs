//! The programs on Spandrel.

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

fn main() -> std::process::ExitCode {
    memory::worker::main()
}
