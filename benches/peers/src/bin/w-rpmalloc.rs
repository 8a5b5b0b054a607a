//! The workloads on rpmalloc.

#[global_allocator]
static A: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> std::process::ExitCode {
    peers::worker::main(|| ())
}
