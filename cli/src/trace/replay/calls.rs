//! One thread, every call timed by itself, and now and then the allocator is asked what it holds.

use super::plan::{ALLOC, FREE, Step};
use crate::trace::simulate::clock_cost;
use std::ffi::c_void;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32};
use std::time::Instant;

/// Looks at what the allocator holds, in all.
const LOOKS: usize = 1000;

/// What mallinfo2(3) says.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Info {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

fn info() -> Option<Info> {
    // SAFETY: a name that ends in a zero byte, looked up in all loaded objects.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: the function of that name has no arguments and answers this struct.
    Some(unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> Info>(function)() })
}

/// Plays the plan and prints what came of it, numbers on one line.
pub fn play(lists: &[&[Step]], blocks: &[(AtomicPtr<c_void>, AtomicU32)]) -> ExitCode {
    let clock = clock_cost();
    let total: usize = lists.iter().map(|list| list.len()).sum();
    let every = (total / LOOKS).max(1);
    let (mut live, mut peak_live, mut seen) = (0u64, 0, 0);
    let (mut footprint, mut internal, mut external) = (0, 0, 0);
    let mut costs = [(0u64, 0f64); 2];
    let mut sizes: Vec<u64> = vec![0; blocks.len()];
    let Some(before) = info() else { return ExitCode::FAILURE };
    let held = |info: &Info| (info.uordblks + info.hblkhd) as u64;
    let base = held(&before);
    for (index, step) in lists.iter().copied().flatten().enumerate() {
        let (slot, size) = (&blocks[step.block as usize].0, step.size as usize);
        let old = slot.load(Relaxed);
        let start = Instant::now();
        // SAFETY: what the slot holds is a live block.
        let new = unsafe {
            match step.kind {
                FREE => {
                    libc::free(old);
                    std::ptr::null_mut()
                }
                ALLOC if step.align != 0 => libc::aligned_alloc(1 << step.align, size),
                ALLOC => libc::malloc(size),
                _ => libc::realloc(old, size.max(1)),
            }
        };
        let nanos = (start.elapsed().as_nanos() as f64 - clock).max(0.0);
        let cost = &mut costs[usize::from(step.kind == FREE)];
        *cost = (cost.0 + 1, cost.1 + nanos);
        slot.store(new, Relaxed);
        let known = &mut sizes[step.block as usize];
        live = live - *known + step.size;
        *known = step.size;
        peak_live = peak_live.max(live);
        // Often enough, and whenever more is alive than at any look before.
        if index % every == 0 || live > seen + seen / 64 || index + 1 == total {
            seen = seen.max(live);
            let now = info().unwrap_or_default();
            let taken = held(&now).saturating_sub(base);
            let whole = taken + now.fordblks as u64;
            if whole > footprint {
                footprint = whole;
                internal = taken.saturating_sub(live);
                external = now.fordblks as u64;
            }
        }
    }
    let [(allocs, alloc_nanos), (frees, free_nanos)] = costs;
    println!(
        "{peak_live} {footprint} {internal} {external} {allocs} {alloc_nanos:.0} {frees} {free_nanos:.0}"
    );
    ExitCode::SUCCESS
}
