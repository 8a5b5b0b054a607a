//! With the feature `override` the C code of a Rust program lives in the heap of its global allocator:
//! blocks that the C library makes are known to it, and either side frees what the other made.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::hint::black_box;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

fn main() {
    let before = spandrel::stats().live;
    // SAFETY: every block is freed once, and looked at while it is held.
    unsafe {
        // The C library allocates inside strdup.
        let text = libc::strdup(c"made by the C library".as_ptr());
        assert_eq!(CStr::from_ptr(text), c"made by the C library");
        let huge = black_box(libc::malloc(200 << 20));
        assert!(!text.is_null() && !huge.is_null());
        let held = spandrel::stats().live - before;
        assert!(held >= 200 << 20, "the C library's block is in another heap: {held} bytes");
        // A block of the same size from the Rust door.
        let ours = Box::into_raw(Box::new([0u8; 48]));
        libc::free(ours.cast());
        libc::free(text.cast());
        libc::free(huge);
        // What Rust calls the system's allocator is C's, and so the same.
        let layout = Layout::new::<[u64; 100]>();
        let through_c = System.alloc(layout);
        A.dealloc(through_c, layout);
    }
    println!("one heap: {} bytes held before, {} after", before, spandrel::stats().live);
}
