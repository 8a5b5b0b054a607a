//! The functions through which programs come in: stacks begin behind them.

use super::{bare, building, c, observed, realloc};
use crate::watch::stacks;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Before the first stack is kept. Finding a function takes a look into its module's tables.
pub fn trim() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Relaxed) {
        return;
    }
    macro_rules! addresses {
        ($($function:expr),* $(,)?) => { [$($function as *const () as usize),*] };
    }
    stacks::trim(&addresses![
        building::take_slow,
        building::take_long,
        building::take_large,
        building::take_large_zeroed,
        building::give_slow,
        building::give_slow_bare,
        observed::take,
        observed::give,
        observed::resize,
        realloc::change,
        bare::alloc_slow,
        bare::resize,
        bare::alloc_aligned,
        c::malloc_slow,
    ]);
    // Whoever serves these: if it is this allocator, stacks begin behind them too; if not, they are in none.
    stacks::trim(&addresses![
        libc::malloc,
        libc::calloc,
        libc::realloc,
        libc::free,
        libc::posix_memalign,
        libc::aligned_alloc,
        libc::memalign,
    ]);
}
