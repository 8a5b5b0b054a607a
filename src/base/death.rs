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
//! | [`told`] | checked mode and guard pages: these and the other causes, with what is known of the block |
//!
//! None of them is reached by a failure of the system: that is a null pointer.

/// Stops the process: an object was freed that is free already.
#[cold]
pub fn double_free(addr: usize) -> ! {
    die(DOUBLE, addr, b"", || {})
}

/// Stops the process: the address lies inside a block, not at its start.
#[cold]
pub fn invalid_free(addr: usize) -> ! {
    die(INVALID, addr, b"", || {})
}

/// Stops the process: the address is not in memory this allocator handed out.
#[cold]
pub fn foreign_free(addr: usize) -> ! {
    die(FOREIGN, addr, b"", || {})
}

/// Stops the process: the size or alignment given with the free is not the block's.
#[cold]
pub fn wrong_class(addr: usize) -> ! {
    die(WRONG, addr, b"", || {})
}

/// Stops the process: a block was to be resized or measured, and there is none.
#[cold]
pub fn no_block(addr: usize) -> ! {
    die(NO_BLOCK, addr, b"", || {})
}

/// A cause of which more is known in checked mode than the address: what the block is, where it was
/// allocated and freed. One line in any case, and then what `then` has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// As [`double_free`].
    DoubleFree,
    /// As [`invalid_free`].
    InvalidFree,
    /// As [`foreign_free`].
    ForeignFree,
    /// As [`wrong_class`].
    WrongLayout,
    /// As [`no_block`].
    NoBlock,
    /// A freed block was to be resized or measured.
    UseOfFreed,
    /// The bytes of a freed block have changed.
    WriteAfterFree,
    /// The bytes behind a block have changed.
    Overflow,
    /// A read or write of a freed block whose pages are closed.
    AccessAfterFree,
    /// A read or write of the closed page behind a block.
    AccessBehind,
    /// A read or write of the closed page before a block.
    AccessBefore,
}

impl Cause {
    const fn words(self) -> &'static str {
        match self {
            Cause::DoubleFree => DOUBLE,
            Cause::InvalidFree => INVALID,
            Cause::ForeignFree => FOREIGN,
            Cause::WrongLayout => WRONG,
            Cause::NoBlock => NO_BLOCK,
            Cause::UseOfFreed => "realloc or malloc_usable_size of a block that is freed",
            Cause::WriteAfterFree => "write after free",
            Cause::Overflow => "write past the end of a block",
            Cause::AccessAfterFree => "access to a block that is freed",
            Cause::AccessBehind => "access past the end of a block",
            Cause::AccessBefore => "access before the start of a block",
        }
    }
}

/// Stops the process: `cause` at `addr`, with `about` behind it on the same line.
#[cold]
pub fn told(cause: Cause, addr: usize, about: &[u8], then: impl FnOnce()) -> ! {
    die(cause.words(), addr, about, then)
}

const DOUBLE: &str = "double free";
const INVALID: &str = "free of an address that is not the start of a block";
const FOREIGN: &str = "free of an address this allocator does not own";
const WRONG: &str = "free with a size or alignment that is not the block's";
const NO_BLOCK: &str =
    "realloc or malloc_usable_size of an address that is not the start of a block";

#[cfg(spandrel_model)]
fn die(what: &str, addr: usize, _: &[u8], _: impl FnOnce()) -> ! {
    panic!("spandrel: {what}: {addr:#x}")
}

#[cfg(not(spandrel_model))]
fn die(what: &str, addr: usize, about: &[u8], then: impl FnOnce()) -> ! {
    let mut line = super::line::Line::new();
    line.push(b"spandrel: ");
    line.push(what.as_bytes());
    line.push(b": 0x");
    line.push_hex(addr);
    line.push(about);
    line.say();
    then();
    // SAFETY: abort(3) takes no arguments and does not allocate.
    unsafe { libc::abort() }
}
