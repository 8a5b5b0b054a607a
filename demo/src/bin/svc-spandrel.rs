//! The demo's service on Spandrel.

#[global_allocator]
static ALLOCATOR: spandrel::Spandrel = spandrel::Spandrel;

fn main() -> std::process::ExitCode {
    demo::service_main::run("spandrel", || Some(spandrel::stats().to_string()))
}
