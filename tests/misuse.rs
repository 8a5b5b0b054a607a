//! What comes of each misuse in Rust, by default and in checked mode. Each program runs as a child: by
//! default it dies with the line that tests/faults.rs has, or goes on; in checked mode it dies with exactly
//! the line here, switched on by the environment and by the program.

mod common;

use common::{KIB, child};
use spandrel::{Check, Spandrel};
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;

#[global_allocator]
static A: Spandrel = Spandrel;

/// `misuse! { name: default, "the line"; program }`: `default` is whether the program may survive by default.
macro_rules! misuse {
    ($($name:ident: $survives:expr, $message:literal; $program:block)*) => {
        $(#[test]
        // Some end the process themselves.
        #[allow(unreachable_code)]
        fn $name() {
            const NAME: &str = stringify!($name);
            if child::is(NAME) {
                if std::env::var("SPANDREL").is_ok_and(|options| options == "stats=off") {
                    spandrel::check(Check::On);
                }
                // SAFETY: none; these programs break the rules, which is the point of them.
                unsafe { $program }
                println!("\nstill alive");
                // What is kept back is looked at.
                spandrel::check(Check::Off);
                return;
            }
            survives_or_dies(NAME, $survives);
            dies(NAME, "check=on", $message);
            // By the program itself; the environment has no say in that.
            dies(NAME, "stats=off", $message);
        })*
    };
}

/// By default a program may go on, as far as nothing of what it did wrong reaches a span meanwhile; if it
/// does, or must, it dies by name.
#[track_caller]
fn survives_or_dies(name: &str, may_survive: bool) {
    let output = child::run_with(name, "");
    let said = String::from_utf8_lossy(&output.stdout);
    // With a shadow a second free is seen at the call.
    let twice = cfg!(feature = "shadow") && name.starts_with("twice");
    if may_survive && !twice && said.contains("still alive") {
        return;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("spandrel: ") && errors.lines().count() == 1, "{name}: {errors}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name} by default: {said}");
}

#[track_caller]
fn dies(name: &str, options: &str, message: &str) {
    let output = child::run_with(name, options);
    let said = String::from_utf8_lossy(&output.stdout);
    let address = |key: &str| {
        let found = said.lines().find_map(|line| line.split_once(key));
        found.map_or("(nothing)", |(_, address)| address.trim())
    };
    let expected = format!("spandrel: {message}\n")
        .replace("{blame}", address("blame "))
        .replace("{block}", address("block "))
        .replace("{program}", &std::env::current_exe().expect("a path").display().to_string());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, expected, "{name} {options}: {}\n{said}", output.status);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name} {options}");
}

fn blame(at: *mut u8) -> *mut u8 {
    println!("\nblame {:#x}", at.addr());
    at
}

fn block(at: *mut u8) -> *mut u8 {
    assert!(!at.is_null());
    println!("\nblock {:#x}", at.addr());
    at
}

const fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => panic!(),
    }
}

const SMALL: Layout = layout(64, 8);
const LARGE: Layout = layout(100 * KIB, 8);
const HUGE: Layout = layout(200 << 20, 8);

/// An address in the main thread's stack.
fn main_stack() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let line = maps.lines().find(|line| line.ends_with("[stack]")).expect("a main thread");
    let end = line.split([' ', '-']).nth(1).expect("two addresses");
    usize::from_str_radix(end, 16).expect("in hexadecimal digits") - 1024
}

misuse! {
    twice: true, "double free: {blame}: a block of 64 bytes at {block}, freed by this thread"; {
        let at = blame(block(A.alloc(SMALL)));
        A.dealloc(at, SMALL);
        A.dealloc(at, SMALL);
    }
    twice_by_two_threads: true,
        "double free: {blame}: a block of 64 bytes at {block}, freed by another thread"; {
        let at = blame(block(A.alloc(SMALL))).expose_provenance();
        std::thread::spawn(move || A.dealloc(std::ptr::with_exposed_provenance_mut(at), SMALL))
            .join()
            .expect("no panic");
        A.dealloc(std::ptr::with_exposed_provenance_mut(at), SMALL);
    }
    twice_after_work: true,
        "double free: {blame}: a block of 64 bytes at {block}, freed by this thread"; {
        let all: Vec<_> = (0..100).map(|_| A.alloc(SMALL)).collect();
        let at = blame(block(all[50]));
        all.iter().for_each(|&at| A.dealloc(at, SMALL));
        let more: Vec<_> = (0..50).map(|_| A.alloc(SMALL)).collect();
        more.iter().for_each(|&at| A.dealloc(at, SMALL));
        A.dealloc(at, SMALL);
    }
    twice_large: false,
        "double free: {blame}: a block of 102400 bytes at {block}, freed by this thread"; {
        let at = blame(block(A.alloc(LARGE)));
        A.dealloc(at, LARGE);
        A.dealloc(at, LARGE);
    }
    wrong_size: true,
        "free with a size or alignment that is not the block's: {blame}: a block of 64 bytes at {block}, live, aligned to 8, given back as 48 bytes aligned to 8"; {
        A.dealloc(blame(block(A.alloc(SMALL))), layout(48, 8));
    }
    wrong_alignment: true,
        "free with a size or alignment that is not the block's: {blame}: a block of 64 bytes at {block}, live, aligned to 8, given back as 64 bytes aligned to 4"; {
        // Of the same class: by default nobody can tell.
        A.dealloc(blame(block(A.alloc(SMALL))), layout(64, 4));
    }
    large_as_small: true,
        "free with a size or alignment that is not the block's: {blame}: a block of 102400 bytes at {block}, live, aligned to 8, given back as 64 bytes aligned to 8"; {
        A.dealloc(blame(block(A.alloc(LARGE))), SMALL);
    }
    resized_with_a_wrong_size: true,
        "free with a size or alignment that is not the block's: {blame}: a block of 64 bytes at {block}, live, aligned to 8, given back as 128 bytes aligned to 8"; {
        A.realloc(blame(block(A.alloc(SMALL))), layout(128, 8), 1000);
    }
    resized_after_its_free: true,
        "realloc or malloc_usable_size of a block that is freed: {blame}: a block of 64 bytes at {block}, freed by this thread"; {
        let at = blame(block(A.alloc(SMALL)));
        A.dealloc(at, SMALL);
        A.realloc(at, SMALL, 1000);
    }
    inside: true,
        "free of an address that is not the start of a block: {blame}: 8 bytes into a block of 64 bytes at {block}, live"; {
        A.dealloc(blame(block(A.alloc(SMALL)).add(8)), SMALL);
    }
    on_no_page: true,
        "free of an address this allocator does not own: {blame}: not mapped"; {
        A.dealloc(blame(std::ptr::without_provenance_mut(64)), SMALL);
    }
    written_after_its_free: true,
        "write after free: {blame}: 20 bytes into a block of 64 bytes at {block}, freed by this thread"; {
        let at = block(A.alloc(SMALL));
        A.dealloc(at, SMALL);
        blame(at.add(20)).write_volatile(1);
    }
    written_long_after_its_free: true,
        "write after free: {blame}: 20 bytes into a block of 64 bytes at {block}, freed by this thread"; {
        let at = block(A.alloc(SMALL));
        A.dealloc(at, SMALL);
        // It leaves the quarantine, is back in the heap, and is seen when it is handed out again.
        for _ in 0..9000 {
            A.dealloc(A.alloc(layout(200, 8)), layout(200, 8));
        }
        blame(at.add(20)).write_volatile(1);
        (0..20_000).for_each(|_| assert!(!A.alloc(SMALL).is_null()));
    }
    written_behind: true,
        "write past the end of a block: {blame}: 0 bytes past a block of 64 bytes at {block}, live"; {
        // Its class has no byte to spare.
        let at = block(A.alloc(SMALL));
        blame(at.add(64)).write_volatile(0);
        A.dealloc(at, SMALL);
    }
    written_behind_and_never_freed: true,
        "write past the end of a block: {blame}: 3 bytes past a block of 61 bytes at {block}, live"; {
        // Found when the process ends.
        let at = block(A.alloc(layout(61, 1)));
        blame(at.add(64)).write_volatile(0);
        println!("still alive");
        std::process::exit(0);
    }
    twice_huge: false,
        "double free: {blame}: a block of 209715200 bytes at {block}, freed by this thread"; {
        let at = blame(block(A.alloc(HUGE)));
        A.dealloc(at, HUGE);
        A.dealloc(at, HUGE);
    }
    at_an_odd_address: true,
        "free of an address that is not the start of a block: {blame}: 1 byte into a block of 64 bytes at {block}, live"; {
        A.dealloc(blame(block(A.alloc(SMALL)).add(1)), SMALL);
    }
    inside_a_large_one: true,
        "free of an address that is not the start of a block: {blame}: 4096 bytes into a block of 102400 bytes at {block}, live"; {
        A.dealloc(blame(block(A.alloc(LARGE)).add(4096)), LARGE);
    }
    on_the_stack: true,
        "free of an address this allocator does not own: {blame}: in [stack]"; {
        // The main thread's: the test's own has its stack in a mapping without a name.
        A.dealloc(blame(std::ptr::without_provenance_mut(main_stack())), SMALL);
    }
    in_static_data: true,
        "free of an address this allocator does not own: {blame}: in {program}"; {
        static DATA: [u64; 16] = [1; 16];
        A.dealloc(blame((&raw const DATA).cast_mut().cast()), SMALL);
    }
    a_large_one_with_a_wrong_size: true,
        "free with a size or alignment that is not the block's: {blame}: a block of 102400 bytes at {block}, live, aligned to 8, given back as 204800 bytes aligned to 8"; {
        A.dealloc(blame(block(A.alloc(LARGE))), layout(200 * KIB, 8));
    }
    resized_inside: true,
        "realloc or malloc_usable_size of an address that is not the start of a block: {blame}: 8 bytes into a block of 64 bytes at {block}, live"; {
        A.realloc(blame(block(A.alloc(SMALL)).add(8)), SMALL, 1000);
    }
    written_behind_a_large_one: true,
        "write past the end of a block: {blame}: 0 bytes past a block of 102400 bytes at {block}, live"; {
        let at = block(A.alloc(LARGE));
        // No byte of a canary.
        blame(at.add(LARGE.size())).write_volatile(0);
        A.dealloc(at, LARGE);
    }
    written_far_behind_a_large_one: true,
        "access past the end of a block: {blame}: 4096 bytes past a block of 102400 bytes at {block}, live"; {
        let at = block(A.alloc(LARGE));
        blame(at.add(LARGE.size() + 4096)).write_volatile(1);
    }
    written_after_a_large_free: true,
        "access to a block that is freed: {blame}: 5000 bytes into a block of 102400 bytes at {block}, freed by this thread"; {
        let at = block(A.alloc(LARGE));
        A.dealloc(at, LARGE);
        blame(at.add(5000)).write_volatile(1);
    }
    touched_after_its_free: true,
        "access to a block that is freed: {blame}: 5000 bytes into a block of 102400 bytes at {block}, freed by this thread"; {
        let at = block(A.alloc(LARGE));
        A.dealloc(at, LARGE);
        blame(at.add(5000)).read_volatile();
    }
}

/// With the stacks of the allocation and of both frees, in checked mode and between guard pages, by name where symbols
/// are.
#[test]
fn with_stacks() {
    for options in ["check=stacks", "guard=1"] {
        let output = child::run_with("twice", options);
        let errors = String::from_utf8_lossy(&output.stderr);
        let mut parts = errors.split("\n  ").filter(|line| !line.starts_with(' '));
        let head = parts.next().expect("a line");
        assert!(head.starts_with("spandrel: double free: 0x"), "{options}: {errors}");
        assert_eq!(
            parts.collect::<Vec<_>>(),
            ["allocated", "freed", "here"],
            "{options}: {errors}"
        );
        let frames = errors.lines().filter(|line| line.starts_with("    0x")).count();
        assert!(frames >= 6, "{options}: {errors}");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{options}");
    }
}

/// The program ends its process before checked mode ends: what is kept back is looked at then.
#[test]
fn written_after_its_free_at_exit() {
    const NAME: &str = "written_after_its_free_at_exit";
    if child::is(NAME) {
        // SAFETY: none, as above.
        unsafe {
            let at = block(A.alloc(SMALL));
            A.dealloc(at, SMALL);
            blame(at.add(20)).write_volatile(1);
        }
        std::process::exit(0);
    }
    dies(
        NAME,
        "check=on",
        "write after free: {blame}: 20 bytes into a block of 64 bytes at {block}, freed by this thread",
    );
}

/// Ordinary work by four threads, with checked mode and guard pages switched on and off meanwhile: nobody
/// dies, and when all is freed every call is fast again.
#[test]
fn the_innocent_live() {
    const NAME: &str = "the_innocent_live";
    if !child::is(NAME) {
        for options in ["", "check=on", "check=stacks", "guard=3"] {
            let (_, errors) = child::passes_with(NAME, options);
            assert_eq!(errors, "", "{options}");
        }
        return;
    }
    use common::{Block, Rng};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    static STOP: AtomicBool = AtomicBool::new(false);
    child::ends_with_the_first_panic();
    let threads: Vec<_> = (0..4u64)
        .map(|me| {
            std::thread::spawn(move || {
                let mut rng = Rng::new(me);
                let mut held: Vec<Block> = Vec::new();
                while !STOP.load(Relaxed) {
                    match rng.below(10) {
                        0 if !held.is_empty() => {
                            let at = rng.below(held.len());
                            held[at].resize(rng.size(70 * KIB));
                        }
                        1 => held.push(Block::must(rng.size(200 * KIB), 1 << rng.below(14), me)),
                        _ => held.push(Block::must(rng.size(KIB), 1 << rng.below(7), me)),
                    }
                    if held.len() > 100 {
                        (0..60).for_each(|_| drop(held.swap_remove(rng.below(held.len()))));
                    }
                }
            })
        })
        .collect();
    for round in 0..60 {
        match round % 6 {
            0 => spandrel::check(Check::On),
            1 => assert!(spandrel::guard(5)),
            2 => spandrel::check(Check::Stacks),
            3 => spandrel::check(Check::Off),
            4 => assert!(spandrel::guard(0)),
            _ => {}
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    spandrel::check(Check::Off);
    assert!(spandrel::guard(0));
    STOP.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    // What threads that were freeing at that moment have put there since.
    spandrel::check(Check::Off);
    spandrel::purge();
    spandrel::front::building::spans().check().expect("the books balance");
}
