//! `libspandrel.so` and `libspandrel.a`: Spandrel behind C's names. See `include/spandrel.h`.
//!
//! All there is lies in `spandrel::front::c`; this crate gives it its symbols, and has the standard
//! library's own allocations served by the same heap.

mod at_exit;
mod pressure;
mod reports;

#[global_allocator]
static A: ::spandrel::Spandrel = ::spandrel::Spandrel;

::spandrel::export_c!();
