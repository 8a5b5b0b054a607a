//! Every way the allocator stops the process. One function per cause; each writes one line with the
//! address to standard error, without allocating, and aborts.
//!
//! | death | who calls it |
//! |---|---|
//! | [`double_free`] | spans (a bit that is already free), page heap (a granule that is already free) |
//! | [`invalid_free`] | spans: an address inside an object; page heap: not the start of a large block |
//! | [`foreign_free`] | spans, page heap: an address that no window of ours holds |
//! | [`wrong_class`] | spans, page heap: the block is of another class or length than the `Layout` says |
//! | [`no_block`] | front: C asks for the size of what is no block |
//!
//! None of them is reached by a failure of the system: that is a null pointer.

/// Stops the process: an object was freed that is free already.
#[cold]
pub fn double_free(addr: usize) -> ! {
    die("double free", addr)
}

/// Stops the process: the address lies inside a block, not at its start.
#[cold]
pub fn invalid_free(addr: usize) -> ! {
    die("free of an address that is not the start of a block", addr)
}

/// Stops the process: the address is not in memory this allocator handed out.
#[cold]
pub fn foreign_free(addr: usize) -> ! {
    die("free of an address this allocator does not own", addr)
}

/// Stops the process: the size or alignment given with the free is not the block's.
#[cold]
pub fn wrong_class(addr: usize) -> ! {
    die("free with a size or alignment that is not the block's", addr)
}

/// Stops the process: a block was to be resized or measured, and there is none.
#[cold]
pub fn no_block(addr: usize) -> ! {
    die("realloc or malloc_usable_size of an address that is not the start of a block", addr)
}

#[cfg(spandrel_model)]
fn die(what: &str, addr: usize) -> ! {
    panic!("spandrel: {what}: {addr:#x}")
}

#[cfg(not(spandrel_model))]
fn die(what: &str, addr: usize) -> ! {
    let mut line = super::line::Line::new();
    line.push(b"spandrel: ");
    line.push(what.as_bytes());
    line.push(b": 0x");
    line.push_hex(addr);
    line.say();
    // SAFETY: abort(3) takes no arguments and does not allocate.
    unsafe { libc::abort() }
}
