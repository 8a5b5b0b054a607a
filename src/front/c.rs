//! The C library's allocation functions: its rules on arguments and `errno` over the calls of
//! [`bare`](super::bare).
//!
//! Nothing here has a C symbol. `export_c!` gives them out: in the crate `capi`, whose shared library
//! is preloaded or linked, and here under the feature `override`. `operator new` and `delete` are not
//! among them: the C++ runtime's call `malloc` and `free`, forward to a program's replacements,
//! throw, and run the new-handler; what cannot throw must not stand in for them.

use super::bare;
use super::building::pages;
use super::{purge, stats};
use crate::base::options::Check;
use crate::os::Os;
use crate::page::Extent;
use crate::watch::claim::Claim;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

/// Sets `errno` where the answer is null.
#[inline(always)]
fn or_enomem(at: *mut u8) -> *mut c_void {
    if at.is_null() {
        fail(libc::ENOMEM);
    }
    at.cast()
}

#[cold]
#[inline(never)]
fn fail(errno: c_int) -> *mut c_void {
    // SAFETY: this thread's errno outlives the call.
    unsafe { *libc::__errno_location() = errno };
    ptr::null_mut()
}

/// See malloc(3). `size` 0 is a block of its own.
#[inline(always)]
pub unsafe fn malloc(size: usize) -> *mut c_void {
    match bare::alloc_fast(size) {
        Some(at) => at.cast(),
        None => malloc_slow(size),
    }
}

#[cold]
#[inline(never)]
pub(super) fn malloc_slow(size: usize) -> *mut c_void {
    or_enomem(bare::alloc_slow(size))
}

/// See malloc(3).
///
/// # Safety
/// As in C.
#[inline(always)]
pub unsafe fn free(at: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { bare::free(at.cast()) }
}

/// See malloc(3).
#[inline(always)]
pub unsafe fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_enomem(bare::alloc_zeroed(bytes)),
        None => fail(libc::ENOMEM),
    }
}

/// See malloc(3). As in glibc, a size of 0 frees the block and answers null.
///
/// # Safety
/// As in C.
pub unsafe fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
    let Some(block) = NonNull::new(at.cast::<u8>()) else {
        return or_enomem(bare::alloc(size));
    };
    if size == 0 {
        // SAFETY: the caller's promise.
        unsafe { bare::free(block.as_ptr()) };
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    or_enomem(unsafe { bare::resize(block, size) })
}

/// See malloc(3).
///
/// # Safety
/// As in C.
pub unsafe fn reallocarray(at: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(at, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// See posix_memalign(3): answers the error and leaves `errno`.
///
/// # Safety
/// `out` may be written to.
pub unsafe fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let at = bare::alloc_aligned(size, align);
    if at.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { *out = at.cast() };
    0
}

/// See aligned_alloc(3): an alignment that is not a power of two is `EINVAL`, as the standard and
/// glibc since 2.38 have it.
pub unsafe fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    or_enomem(bare::alloc_aligned(size, align))
}

/// See memalign(3). As in glibc, an alignment that is not a power of two is rounded up to one.
pub unsafe fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => or_enomem(bare::alloc_aligned(size, align)),
        None => fail(libc::EINVAL),
    }
}

/// See valloc(3).
pub unsafe fn valloc(size: usize) -> *mut c_void {
    or_enomem(bare::alloc_aligned(size, pages().os().page_size()))
}

/// See pvalloc(3): whole pages, one at least.
pub unsafe fn pvalloc(size: usize) -> *mut c_void {
    let page = pages().os().page_size();
    match size.max(1).checked_next_multiple_of(page) {
        Some(bytes) => or_enomem(bare::alloc_aligned(bytes, page)),
        None => fail(libc::ENOMEM),
    }
}

/// See malloc_usable_size(3).
///
/// # Safety
/// As in C.
pub unsafe fn malloc_usable_size(at: *mut c_void) -> usize {
    bare::usable_size(at.cast())
}

/// C23: as `free`. The size is not needed, but in checked mode.
///
/// # Safety
/// As in C.
#[inline(always)]
pub unsafe fn free_sized(at: *mut c_void, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { bare::free_said(at.cast(), Claim::asked(size, 0)) }
}

/// C23: as `free`. Alignment and size are not needed, but in checked mode.
///
/// # Safety
/// As in C.
#[inline(always)]
pub unsafe fn free_aligned_sized(at: *mut c_void, align: usize, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { bare::free_said(at.cast(), Claim::asked(size, align)) }
}

/// As `free`; gone from glibc since 2.26, and still called by old programs.
///
/// # Safety
/// As in C.
#[inline(always)]
pub unsafe fn cfree(at: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { free(at) }
}

/// jemalloc's: the bytes a block for `size` would have; 0 where there can be none. Of `flags` the
/// alignment counts.
pub unsafe fn nallocx(size: usize, flags: c_int) -> usize {
    let align = 1usize << (flags & 63);
    if size == 0 {
        return 0;
    }
    if let Some(class) = bare::class_of(size, align) {
        return class.size();
    }
    match Extent::of(size, align, pages().os().page_size()) {
        Some(extent) => extent.bytes(),
        None => 0,
    }
}

/// jemalloc's: as `free`. The low six bits of `flags` are the logarithm of the alignment, 0 for any.
///
/// # Safety
/// As in C.
#[inline(always)]
pub unsafe fn sdallocx(at: *mut c_void, size: usize, flags: c_int) {
    let align = match flags & 63 {
        0 => 0,
        logarithm => 1 << logarithm,
    };
    // SAFETY: the caller's promise.
    unsafe { bare::free_said(at.cast(), Claim::usable(size, align)) }
}

/// See malloc_trim(3). `pad` has no meaning here; answers whether memory went back.
pub unsafe fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(purge() != 0)
}

/// See mallopt(3): takes the parameters that glibc knows and has no use for them.
pub unsafe fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    // M_MXFAST, and from M_TRIM_THRESHOLD down to M_ARENA_MAX.
    c_int::from(matches!(parameter, 1 | -8..=-1))
}

/// See mallinfo(3).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Mallinfo<T> {
    /// Bytes mapped, but for blocks with a mapping of their own.
    pub arena: T,
    /// Free objects and runs.
    pub ordblks: T,
    /// Free objects in the thread caches.
    pub smblks: T,
    /// Blocks with a mapping of their own.
    pub hblks: T,
    /// Their bytes.
    pub hblkhd: T,
    /// Always 0.
    pub usmblks: T,
    /// Bytes in the thread caches.
    pub fsmblks: T,
    /// Bytes the program holds.
    pub uordblks: T,
    /// Bytes that are free and have memory behind them.
    pub fordblks: T,
    /// Bytes of whole free granules, which `malloc_trim` may return.
    pub keepcost: T,
}

/// See mallinfo2(3).
pub unsafe fn mallinfo2() -> Mallinfo<usize> {
    let s = stats();
    let free = |class: &crate::ClassStats| class.cached + class.in_transfer + class.free_in_spans;
    Mallinfo {
        arena: s.mapped - s.floors.page.huge.min(s.mapped),
        ordblks: s.classes.iter().map(free).sum(),
        smblks: s.classes.iter().map(|class| class.cached).sum(),
        hblks: s.floors.page.huge_blocks,
        hblkhd: s.floors.page.huge,
        usmblks: 0,
        fsmblks: s.cached,
        uordblks: s.live - s.floors.page.huge.min(s.live),
        fordblks: s.cached + s.in_transfer + s.free_in_spans + s.free_granules,
        keepcost: s.free_granules,
    }
}

/// See mallinfo(3): what does not fit is the largest number that does.
pub unsafe fn mallinfo() -> Mallinfo<c_int> {
    // SAFETY: it has no conditions.
    let all = unsafe { mallinfo2() };
    let fit = |n: usize| c_int::try_from(n).unwrap_or(c_int::MAX);
    Mallinfo {
        arena: fit(all.arena),
        ordblks: fit(all.ordblks),
        smblks: fit(all.smblks),
        hblks: fit(all.hblks),
        hblkhd: fit(all.hblkhd),
        usmblks: fit(all.usmblks),
        fsmblks: fit(all.fsmblks),
        uordblks: fit(all.uordblks),
        fordblks: fit(all.fordblks),
        keepcost: fit(all.keepcost),
    }
}

/// Text for a C stream, or for a descriptor.
enum Sink {
    Stream(*mut libc::FILE),
    Descriptor(c_int),
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let written = match *self {
            // SAFETY: the caller of `malloc_info` vouches for the stream; the text is as long as said.
            Sink::Stream(stream) => unsafe {
                libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream)
            },
            // SAFETY: the text is as long as said.
            Sink::Descriptor(to) => unsafe {
                libc::write(to, text.as_ptr().cast(), text.len()).cast_unsigned()
            },
        };
        if written == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// See malloc_info(3).
///
/// # Safety
/// `stream` is an open C stream.
pub unsafe fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let s = stats();
    let mut out = Sink::Stream(stream);
    let mut write = || -> fmt::Result {
        writeln!(
            out,
            "<malloc version=\"1\" allocator=\"spandrel {}\">",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(out, "<sizes>")?;
        for class in s.classes.iter().filter(|class| class.spans != 0) {
            writeln!(
                out,
                "  <size class=\"{}\" live=\"{}\" cached=\"{}\" transfer=\"{}\" free=\"{}\" spans=\"{}\"/>",
                class.size,
                class.live,
                class.cached,
                class.in_transfer,
                class.free_in_spans,
                class.spans
            )?;
        }
        writeln!(out, "</sizes>")?;
        let parts = [
            ("live", s.live),
            ("cached", s.cached),
            ("transfer", s.in_transfer),
            ("spans", s.free_in_spans),
            ("granules", s.free_granules),
            ("returned", s.returned),
            ("metadata", s.metadata),
            ("stranded", s.stranded),
        ];
        for (name, bytes) in parts {
            writeln!(out, "<total type=\"{name}\" size=\"{bytes}\"/>")?;
        }
        writeln!(
            out,
            "<total type=\"mmap\" count=\"{}\" size=\"{}\"/>",
            s.floors.page.huge_blocks, s.floors.page.huge
        )?;
        writeln!(out, "<system type=\"current\" size=\"{}\"/>\n</malloc>", s.mapped)
    };
    if write().is_ok() { 0 } else { libc::EIO }
}

/// See malloc_stats(3): the snapshot, to standard error.
pub unsafe fn malloc_stats() {
    // A closed descriptor is no reason to fail.
    let _ = write!(Sink::Descriptor(libc::STDERR_FILENO), "{}", stats());
}

/// Appends a map of the heap to the file at `path`; answers 0 or an error number.
///
/// # Safety
/// `path` is a string.
pub unsafe fn spandrel_write_map(path: *const c_char) -> c_int {
    if path.is_null() {
        return libc::EFAULT;
    }
    // SAFETY: the caller's promise.
    super::map::append(unsafe { CStr::from_ptr(path) }.to_bytes()).err().unwrap_or(0)
}

/// As [`crate::check()`]: 0 off, 1 on, 2 with stacks; anything else is `EINVAL`, and 0 is success.
pub unsafe fn spandrel_check(mode: c_int) -> c_int {
    super::config::check(match mode {
        0 => Check::Off,
        1 => Check::On,
        2 => Check::Stacks,
        _ => return libc::EINVAL,
    });
    0
}

/// As [`crate::guard()`]: 0, or `ENOMEM`.
pub unsafe fn spandrel_guard(every: c_uint) -> c_int {
    if super::config::guard(every) { 0 } else { libc::ENOMEM }
}

/// C++'s sized `delete`, whose runtime keeps the size to itself: what it was given, before the block is freed.
/// Looked at in checked mode, and only for a block that the runtime's own `new` asked for; the alignment is 0 in the
/// forms without one.
pub unsafe fn spandrel_sized_delete(at: *mut c_void, size: usize, align: usize) {
    bare::look_at_said(at.cast(), size, align);
}

/// Keeps the names of C's types within reach of `export_c!`.
#[doc(hidden)]
pub mod types {
    pub use super::Mallinfo;
    pub use core::ffi::{c_char, c_int, c_uint, c_void};
    pub use libc::FILE;
}

/// Gives the functions of this module out under their C names.
#[doc(hidden)]
#[macro_export]
macro_rules! export_c {
    () => {
        $crate::export_c! {
            malloc(size: usize) -> *mut c_void;
            free(at: *mut c_void) -> ();
            calloc(count: usize, size: usize) -> *mut c_void;
            realloc(at: *mut c_void, size: usize) -> *mut c_void;
            reallocarray(at: *mut c_void, count: usize, size: usize) -> *mut c_void;
            posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int;
            aligned_alloc(align: usize, size: usize) -> *mut c_void;
            memalign(align: usize, size: usize) -> *mut c_void;
            valloc(size: usize) -> *mut c_void;
            pvalloc(size: usize) -> *mut c_void;
            malloc_usable_size(at: *mut c_void) -> usize;
            free_sized(at: *mut c_void, size: usize) -> ();
            free_aligned_sized(at: *mut c_void, align: usize, size: usize) -> ();
            cfree(at: *mut c_void) -> ();
            nallocx(size: usize, flags: c_int) -> usize;
            sdallocx(at: *mut c_void, size: usize, flags: c_int) -> ();
            malloc_trim(pad: usize) -> c_int;
            mallopt(parameter: c_int, value: c_int) -> c_int;
            spandrel_write_map(path: *const c_char) -> c_int;
            spandrel_check(mode: c_int) -> c_int;
            spandrel_guard(every: c_uint) -> c_int;
            spandrel_sized_delete(at: *mut c_void, size: usize, align: usize) -> ();
            mallinfo() -> Mallinfo<c_int>;
            mallinfo2() -> Mallinfo<usize>;
            malloc_info(options: c_int, stream: *mut FILE) -> c_int;
            malloc_stats() -> ();
        }
    };
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        mod exported {
            #[allow(unused_imports)]
            use $crate::front::c::types::*;
            $(
                #[doc = concat!("C's `", stringify!($name), "`.")]
                ///
                /// # Safety
                /// As in C.
                // Nothing unwinds. "C-unwind" says that nothing has to be done if it did, so that the
                // slow paths are jumps and the fast ones need no frame.
                #[unsafe(no_mangle)]
                pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> $answer {
                    // SAFETY: the caller's promise is C's.
                    unsafe { $crate::front::c::$name($($arg),*) }
                }
            )*
        }
    };
}

#[cfg(feature = "override")]
crate::export_c!();
