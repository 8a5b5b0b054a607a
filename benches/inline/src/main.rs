//! What `Box::new(u64)` and its drop compile to. `ci/disassemble.sh` builds this with fat
//! link-time optimisation and prints the two functions.

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

#[unsafe(no_mangle)]
#[inline(never)]
fn box_new(value: u64) -> Box<u64> {
    Box::new(value)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn box_drop(boxed: Box<u64>) {
    drop(boxed);
}

fn main() {
    let boxed = box_new(std::env::args().count() as u64);
    println!("{boxed}");
    box_drop(boxed);
}
