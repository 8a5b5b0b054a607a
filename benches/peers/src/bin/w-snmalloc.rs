//! The workloads on snmalloc, as `snmalloc-rs`.

#[global_allocator]
static A: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() -> std::process::ExitCode {
    peers::worker::main(|| ())
}
