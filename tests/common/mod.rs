//! What the test files share: random numbers from one seed, a ledger of held bytes, blocks that
//! check themselves, children that may die, and what the system says of this process.

// Every test file is a crate of its own and uses its own part of this.
#![allow(dead_code)]

pub mod block;
pub mod child;
pub mod ledger;
pub mod rng;
pub mod tower;

#[allow(unused_imports)]
pub use block::{Ask, Block};
#[allow(unused_imports)]
pub use rng::Rng;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;
pub const GIB: usize = 1 << 30;

/// Held by a test that looks at counts of the whole process, so that no other test of its file
/// changes them meanwhile.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed has let go; what it left behind is no reason to fail too.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of memory behind this process, as the system counts them.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: usize =
        statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("the second number");
    // SAFETY: sysconf reads a constant of the running kernel.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}
