//! The workloads on jemalloc, as `tikv-jemallocator`.

#[global_allocator]
static A: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    peers::worker::main(|| ())
}
