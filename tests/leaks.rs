//! `spandrel::leaks`: what is lost is lost, and what is not is not.

use spandrel::observe::leaks::{Leaks, NoLeaks, Reach};
use spandrel::{leaks, watch_leaks};
use std::hint::black_box;
use std::sync::{Barrier, Mutex, MutexGuard};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// One test at a time: there is one switch.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    watch_leaks(true);
    alone
}

/// What dead frames may have left below this one.
#[inline(never)]
fn wipe() {
    black_box([0u8; 32 << 10]);
}

/// Blocks and bytes of one reach, among those of a size that nothing else has.
fn of(leaks: &Leaks, reach: Reach, size: usize) -> usize {
    leaks
        .groups
        .iter()
        .filter(|group| group.reach == reach && group.bytes == size * group.blocks)
        .map(|group| group.blocks)
        .sum()
}

/// The address of a block, in a form that no scan takes for one.
fn hidden<T: ?Sized>(block: Box<T>) -> usize {
    !Box::into_raw(block).addr()
}

#[inline(never)]
fn lose(size: usize, count: usize) -> Vec<usize> {
    (0..count).map(|_| hidden(black_box(vec![1u8; size]).into_boxed_slice())).collect()
}

/// # Safety
/// From [`lose`] with this size.
unsafe fn find_again(lost: Vec<usize>, size: usize) {
    for at in lost {
        let slice = std::ptr::slice_from_raw_parts_mut(
            std::ptr::with_exposed_provenance_mut::<u8>(!at),
            size,
        );
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(slice) });
    }
}

#[test]
fn lost_until_found_again() {
    let _alone = alone();
    let size = 10_007;
    let lost = lose(size, 5);
    wipe();
    let found = leaks().unwrap();
    assert!(found.complete && found.unheld == 0);
    assert_eq!(of(&found, Reach::Lost, size), 5, "{found:?}");
    let group = found.groups.iter().find(|group| group.bytes == 5 * size).unwrap();
    assert!(group.stack != 0 && group.through == (0, 0) && !found.is_clean());
    // SAFETY: lost above.
    unsafe { find_again(lost, size) };
    let found = leaks().unwrap();
    assert_eq!(of(&found, Reach::Lost, size) + of(&found, Reach::Reachable, size), 0);
    watch_leaks(false);
    assert_eq!(leaks(), Err(NoLeaks::NotWatched));
}

#[test]
fn what_something_leads_to_is_not_lost() {
    static VARIABLE: Mutex<Option<Box<[u8; 20_011]>>> = Mutex::new(None);
    std::thread_local! {
        static OWN: std::cell::RefCell<Option<Box<[u8; 20_021]>>> = const { std::cell::RefCell::new(None) };
    }
    let _alone = alone();
    *VARIABLE.lock().unwrap() = Some(Box::new([1; _]));
    OWN.set(Some(Box::new([1; _])));
    let on_stack = black_box(Box::new([1u8; 20_023]));
    // Only an address inside it is kept.
    let inside = Box::leak(Box::new([1u8; 20_029])).as_mut_ptr().wrapping_add(777);
    let inside = black_box(inside);
    // A block that leads to another, which leads to the next.
    let chain = black_box(Box::new(Box::new((Box::new([1u8; 20_047]), 0usize))));
    wipe();
    let found = leaks().unwrap();
    for size in [20_011, 20_021, 20_023, 20_029, 20_047] {
        assert_eq!(of(&found, Reach::Reachable, size), 1, "{size} {found:?}");
    }
    black_box((&on_stack, &chain));
    // SAFETY: leaked above.
    drop(unsafe { Box::from_raw(inside.wrapping_sub(777).cast::<[u8; 20_029]>()) });
    *VARIABLE.lock().unwrap() = None;
    OWN.set(None);
    watch_leaks(false);
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "optimised code leaves copies of the pointer behind")]
fn lost_through_another() {
    struct Node {
        _next: Option<Box<Node>>,
        _room: [u8; 30_011],
    }
    #[inline(never)]
    fn chain() -> usize {
        let chain =
            (0..6).fold(None, |next, _| Some(Box::new(Node { _next: next, _room: [0; _] })));
        hidden(chain.unwrap())
    }
    let _alone = alone();
    let lost = chain();
    wipe();
    let found = leaks().unwrap();
    let size = size_of::<Node>();
    assert_eq!(of(&found, Reach::Lost, size), 1, "{found:?}");
    assert_eq!(of(&found, Reach::LostThrough, size), 5);
    let head = found.groups.iter().find(|g| g.reach == Reach::Lost && g.bytes == size).unwrap();
    assert_eq!(head.through, (5, 5 * size));
    // SAFETY: hidden above.
    drop(unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<Node>(!lost)) });
    watch_leaks(false);
}

#[test]
fn other_threads_stacks_and_registers_count() {
    let _alone = alone();
    let (ready, done) = (Barrier::new(4), Barrier::new(4));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mine = black_box(Box::new([1u8; 40_009]));
                ready.wait();
                done.wait();
                black_box(&mine);
            });
        }
        ready.wait();
        wipe();
        let found = leaks();
        done.wait();
        let found = found.unwrap();
        assert_eq!(found.unheld, 0);
        assert_eq!(of(&found, Reach::Reachable, 40_009), 3, "{found:?}");
    });
    // A register is all that leads to it, and its thread never rests.
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let at = Box::into_raw(Box::new([1u8; 40_013]));
                let mut kept = at.addr();
                let (ready, stop) = (ready.as_ptr(), stop.as_ptr());
                // SAFETY: writes and reads two flags that outlive the thread.
                unsafe {
                    std::arch::asm!(
                        "mov byte ptr [{ready}], 1",
                        "2:",
                        "cmp byte ptr [{stop}], 0",
                        "je 2b",
                        ready = in(reg) ready,
                        stop = in(reg) stop,
                        inout("r12") kept,
                    );
                }
                // SAFETY: leaked above.
                drop(unsafe {
                    Box::from_raw(std::ptr::with_exposed_provenance_mut::<[u8; 40_013]>(kept))
                });
            });
            while !ready.load(Relaxed) {
                std::thread::yield_now();
            }
            let found = leaks();
            stop.store(true, Relaxed);
            let found = found.unwrap();
            assert_eq!(of(&found, Reach::Lost, 40_013), 0, "{found:?}");
            assert_eq!(of(&found, Reach::Reachable, 40_013), 1, "{found:?}");
        });
    }
    watch_leaks(false);
}

#[test]
fn blocks_from_before_lead_to_blocks() {
    let guard = alone();
    watch_leaks(false);
    let mut early: Vec<Option<Box<[u8; 50_021]>>> = vec![None; 10];
    let early = black_box(&mut early);
    watch_leaks(true);
    early[3] = Some(Box::new([1; _]));
    wipe();
    let found = leaks().unwrap();
    assert_eq!(of(&found, Reach::Reachable, 50_021), 1, "{found:?}");
    early[3] = None;
    watch_leaks(false);
    drop(guard);
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "optimised code leaves copies of the pointer behind")]
fn a_block_with_a_mapping_of_its_own() {
    const SIZE: usize = (200 << 20) + 40_961;
    /// The block, hidden, which leads to another behind pages that were never touched.
    #[inline(never)]
    fn make() -> usize {
        let mut block: Vec<u8> = Vec::with_capacity(SIZE);
        block.resize(8, 1);
        let at = std::mem::ManuallyDrop::new(block).as_mut_ptr();
        // SAFETY: within the block.
        unsafe { inner(at).write(Box::new([1u8; 60_013])) };
        !at.addr()
    }
    fn inner(at: *mut u8) -> *mut Box<[u8; 60_013]> {
        at.wrapping_add(128 << 20).cast()
    }
    let _alone = alone();
    let lost = make();
    wipe();
    let found = leaks().unwrap();
    assert_eq!(of(&found, Reach::Lost, SIZE), 1, "{found:?}");
    assert_eq!(of(&found, Reach::LostThrough, 60_013), 1, "{found:?}");
    let kept = black_box(std::ptr::with_exposed_provenance_mut::<u8>(!lost));
    let found = leaks().unwrap();
    assert_eq!(of(&found, Reach::Reachable, SIZE), 1, "{found:?}");
    assert_eq!(of(&found, Reach::Reachable, 60_013), 1, "{found:?}");
    // SAFETY: as they were made.
    unsafe {
        inner(kept).drop_in_place();
        drop(Vec::from_raw_parts(kept, 8, SIZE));
    }
    watch_leaks(false);
}
