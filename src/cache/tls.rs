//! The one thread-local word: which cache is the running thread's.
//!
//! In an executable `std`'s thread-local is one instruction. In a shared library it would be a call of
//! the dynamic linker's resolver, which allocates on a thread's first touch of a library that was
//! opened late; so with the feature `initial-exec` the word lies in the static TLS block, as
//! `__attribute__((tls_model("initial-exec")))` puts it there in C. Stable Rust has no word for that,
//! hence the assembly. One pointer is all the static TLS that is used, so a library opened late finds
//! room for it.

use super::ThreadCache;

/// What a thread starts with: pinned, so that its first call goes the slow way.
pub(super) static NEW: ThreadCache = ThreadCache::new();

#[cfg(not(all(
    feature = "initial-exec",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod word {
    use super::{NEW, ThreadCache};
    use core::cell::Cell;

    std::thread_local! {
        static CURRENT: Cell<*const ThreadCache> = const { Cell::new(&raw const NEW) };
    }

    #[inline(always)]
    pub fn get() -> *const ThreadCache {
        CURRENT.get()
    }

    #[inline(always)]
    pub fn set(to: *const ThreadCache) {
        CURRENT.set(to);
    }
}

#[cfg(all(
    feature = "initial-exec",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod word {
    use super::{NEW, ThreadCache};
    use core::arch::{asm, global_asm};

    /// Its symbol; with the version in it, because two versions of this crate may be linked together.
    macro_rules! symbol {
        () => {
            concat!("spandrel_current_cache_", env!("CARGO_PKG_VERSION"))
        };
    }

    // Initialised data, not zeros: the system copies the word, relocated, into every new thread.
    global_asm!(
        concat!(".pushsection .tdata.", symbol!(), ", \"awT\", @progbits"),
        ".p2align 3",
        concat!(".globl ", symbol!()),
        concat!(".hidden ", symbol!()),
        concat!(".type ", symbol!(), ", @object"),
        concat!(".size ", symbol!(), ", 8"),
        concat!(symbol!(), ":"),
        ".quad {new}",
        ".popsection",
        new = sym NEW,
    );

    #[inline(always)]
    pub fn get() -> *const ThreadCache {
        let current;
        // SAFETY: reads the running thread's word, whose offset the linker or the loader filled in.
        // `readonly`, not `nomem`: `set` changes what it reads.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!(
                concat!("mov {at}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                "mov {at}, qword ptr fs:[{at}]",
                at = out(reg) current,
                options(pure, readonly, nostack, preserves_flags),
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                concat!("adrp {at}, :gottprel:", symbol!()),
                concat!("ldr {at}, [{at}, :gottprel_lo12:", symbol!(), "]"),
                "mrs {thread}, tpidr_el0",
                "ldr {at}, [{thread}, {at}]",
                at = out(reg) current,
                thread = out(reg) _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        current
    }

    #[inline(always)]
    pub fn set(to: *const ThreadCache) {
        // SAFETY: writes the running thread's word, as above.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!(
                concat!("mov {at}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                "mov qword ptr fs:[{at}], {to}",
                at = out(reg) _,
                to = in(reg) to,
                options(nostack, preserves_flags),
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                concat!("adrp {at}, :gottprel:", symbol!()),
                concat!("ldr {at}, [{at}, :gottprel_lo12:", symbol!(), "]"),
                "mrs {thread}, tpidr_el0",
                "str {to}, [{thread}, {at}]",
                at = out(reg) _,
                thread = out(reg) _,
                to = in(reg) to,
                options(nostack, preserves_flags),
            );
        }
    }
}

pub(super) use word::{get, set};
