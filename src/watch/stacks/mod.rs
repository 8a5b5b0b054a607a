//! Stacks: who called, as a number.
//!
//! [`capture`] walks the running thread's stack ([`walk`]) by the modules' call frame information
//! ([`cfi`], [`modules`]), leaves out the allocator's own frames, and interns what remains ([`depot`]).
//! It allocates nothing, takes no lock, keeps `errno`, and touches no page that is not there: it may be
//! called from any thread at any time, in static and in stripped programs. Names are found later, by
//! whoever reports ([`frames`]).

#[cfg(not(spandrel_model))]
pub mod cfi;
pub mod depot;
#[cfg(not(spandrel_model))]
pub mod modules;
#[cfg(not(spandrel_model))]
pub mod walk;

#[cfg(not(spandrel_model))]
pub use running::{DEPTH, capture, fill, frames, holdings, trim};

#[cfg(not(spandrel_model))]
mod running {
    use super::depot::{Depot, Holdings, StackId};
    use super::{cfi, modules, walk};
    use crate::base::sync::AtomicUsize;
    use crate::base::sync::Ordering::Relaxed;
    use crate::os::linux::Linux;

    /// Frames of a stack that are kept, the innermost ones.
    pub const DEPTH: usize = 96;

    /// Frames that may lie between two of the allocator's own doors.
    const BETWEEN: usize = 8;

    /// Its own, so that what the floors account for stays what they mapped.
    static SYSTEM: Linux = Linux::new();

    /// 128 MiB of records for about 800,000 stacks of 20 frames, and 8 MiB of slots; touched as needed.
    static DEPOT: Depot<{ 1 << 20 }, { 1 << 24 }> = Depot::new();

    /// The number of the running thread's stack, without the allocator's own frames; 0 if it cannot be
    /// told.
    #[inline(never)]
    pub fn capture() -> StackId {
        let mut frames = [0; DEPTH];
        let count = fill(&mut frames);
        DEPOT.insert(&SYSTEM, &frames[..count])
    }

    /// The addresses of a stack, innermost first, as far as there is room; answers how many it has. Each is
    /// where its function goes on, so the call is before it.
    pub fn frames(id: StackId, out: &mut [usize]) -> usize {
        DEPOT.frames(id, out)
    }

    /// What is kept.
    pub fn holdings() -> Holdings {
        DEPOT.holdings()
    }

    /// Writes the running thread's stack, innermost first and without the allocator's own frames, as far
    /// as there is room; answers how many it wrote.
    #[inline(never)]
    pub fn fill(out: &mut [usize]) -> usize {
        // SAFETY: errno is this thread's own.
        let saved = unsafe { *libc::__errno_location() };
        learn_own();
        // Frames written, and frames since the last one of the allocator's.
        let (mut count, mut since) = (0, 0);
        walk::walk(walk::here(), |pc| {
            since += 1;
            if since <= BETWEEN && is_own(pc) {
                (count, since) = (0, 0);
            } else if let Some(slot) = out.get_mut(count) {
                *slot = pc;
                count += 1;
            } else {
                // Full, and nothing more can turn out to be the allocator's.
                return since <= BETWEEN;
            }
            true
        });
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = saved };
        count
    }

    /// The functions that are the allocator's doors: first address, and last plus one. Written once each
    /// before the count; any thread.
    static DOORS: [[AtomicUsize; 2]; MOST_DOORS] =
        [const { [const { AtomicUsize::new(0) }; 2] }; MOST_DOORS];
    const MOST_DOORS: usize = 48;

    /// Says that the functions at these addresses are the allocator's own: stacks begin behind the
    /// outermost of them. Those that no module knows, and those beyond 48, are ignored.
    pub fn trim(functions: &[usize]) {
        for &function in functions {
            let Some(module) = modules::find(function) else { continue };
            let Some((start, end)) = cfi::function(&module, function) else { continue };
            for door in &DOORS {
                if door[0].load(Relaxed) == start {
                    break;
                }
                if door[0].compare_exchange(0, start, Relaxed, Relaxed).is_ok() {
                    door[1].store(end, Relaxed);
                    break;
                }
            }
        }
    }

    /// This module's own frames are no caller's.
    fn learn_own() {
        if DOORS[0][0].load(Relaxed) == 0 {
            let capture: fn() -> StackId = capture;
            let fill: fn(&mut [usize]) -> usize = fill;
            trim(&[capture as usize, fill as usize]);
        }
    }

    fn is_own(pc: usize) -> bool {
        for door in &DOORS {
            let start = door[0].load(Relaxed);
            if start == 0 {
                return false;
            }
            // Behind a call, which may be the last instruction.
            if (start..door[1].load(Relaxed)).contains(&(pc - 1)) {
                return true;
            }
        }
        false
    }
}
