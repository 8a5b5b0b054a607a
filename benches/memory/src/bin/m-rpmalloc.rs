//! The programs on rpmalloc.

#[global_allocator]
static A: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> std::process::ExitCode {
    memory::worker::main()
}
