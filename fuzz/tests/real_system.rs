//! The allocator as it ships, on the real system, with the real system's refusals: every call in turn, by
//! chance, and at limits that are really reached.
//!
//! This program has the names `mmap`, `munmap`, `madvise` and `mremap`, so the allocator's calls come here
//! and fail when the plan says so; the C library's own do not. Every run is a forked child in which nothing
//! was allocated before, so that the first use of the allocator is a part of it.

use fuzz::doors::{self, C, Case, Door, Rust};
use libc::{c_int, c_void, off_t, size_t};
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

#[path = "../../tests/common/rng.rs"]
#[allow(dead_code)]
mod rng;

use rng::Rng;

/// The calls that can fail.
const NAMES: [&str; 4] = ["mmap", "munmap", "madvise", "mremap"];

/// Which calls fail (a bit each), how, and when.
static KINDS: AtomicU32 = AtomicU32::new(0);
static ERRNO: AtomicI32 = AtomicI32::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
static FROM: AtomicU64 = AtomicU64::new(0);
static UNTIL: AtomicU64 = AtomicU64::new(0);
/// One in so many, by chance; 0 is none.
static ONE_IN: AtomicU64 = AtomicU64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
/// All advice about hugepages is refused.
static NO_HUGEPAGES: AtomicBool = AtomicBool::new(false);
/// A system that does not overcommit: whether it is one, and the bytes that it has promised to ours.
static STRICT: AtomicBool = AtomicBool::new(false);
static PROMISED: AtomicUsize = AtomicUsize::new(0);
static COMMIT: AtomicUsize = AtomicUsize::new(0);

/// Promises `bytes`, unless that is too much.
fn promise(bytes: usize) -> bool {
    let promised = PROMISED.fetch_add(bytes, Relaxed) + bytes;
    let too_much = STRICT.load(Relaxed) && promised > COMMIT.load(Relaxed);
    if too_much {
        PROMISED.fetch_sub(bytes, Relaxed);
        FAILED.fetch_add(1, Relaxed);
        refuse(libc::ENOMEM);
    }
    !too_much
}

fn fails(call: usize) -> bool {
    if KINDS.load(Relaxed) & (1 << call) == 0 {
        return false;
    }
    let one_in = ONE_IN.load(Relaxed);
    let fails = if one_in != 0 {
        rng::mix(RANDOM.fetch_add(1, Relaxed)).is_multiple_of(one_in)
    } else {
        let number = CALLS.fetch_add(1, Relaxed);
        (FROM.load(Relaxed)..UNTIL.load(Relaxed)).contains(&number)
    };
    if fails {
        FAILED.fetch_add(1, Relaxed);
        refuse(ERRNO.load(Relaxed));
    }
    fails
}

fn refuse(errno: c_int) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = errno };
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    at: *mut c_void,
    bytes: size_t,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // The standard library maps stacks for signals, and not like this.
    let ours = flags & libc::MAP_NORESERVE != 0;
    if ours && fails(0) {
        return libc::MAP_FAILED;
    }
    if ours && !promise(bytes) {
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's promise.
    let mapped = unsafe { libc::syscall(libc::SYS_mmap, at, bytes, access, flags, file, offset) };
    if ours && mapped == -1 {
        PROMISED.fetch_sub(bytes, Relaxed);
    }
    mapped as *mut c_void
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(at: *mut c_void, bytes: size_t) -> c_int {
    if fails(1) {
        return -1;
    }
    // SAFETY: the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_munmap, at, bytes) } as c_int;
    if done == 0 {
        // A few of the standard library's are among them: then a little more is promised.
        let _ = PROMISED.fetch_update(Relaxed, Relaxed, |p| Some(p.saturating_sub(bytes)));
    }
    done
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn madvise(at: *mut c_void, bytes: size_t, advice: c_int) -> c_int {
    if fails(2) {
        return -1;
    }
    if NO_HUGEPAGES.load(Relaxed) && advice != libc::MADV_DONTNEED {
        FAILED.fetch_add(1, Relaxed);
        refuse(libc::EINVAL);
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_madvise, at, bytes, advice) as c_int }
}

/// # Safety
/// As in C; without `MREMAP_FIXED` the last argument is not looked at.
#[unsafe(no_mangle)]
unsafe extern "C" fn mremap(
    at: *mut c_void,
    old: size_t,
    new: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    if fails(3) {
        return libc::MAP_FAILED;
    }
    if !promise(new.saturating_sub(old)) {
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_mremap, at, old, new, flags, to) as *mut c_void }
}

fn well_again() {
    KINDS.store(0, Relaxed);
    NO_HUGEPAGES.store(false, Relaxed);
    STRICT.store(false, Relaxed);
}

/// A case from a seed, with steps of every kind; `threads` as [`Case::decode`] reads its first byte.
fn case(seed: u64, threads: u8, bytes: usize) -> Case {
    let mut rng = Rng::new(seed);
    let mut data: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
    data[0] = threads;
    Case::decode(&data)
}

/// The work of one run: both doors, ill and well.
fn work(seed: u64, threads: u8) {
    const BYTES: usize = 300;
    let cases = [case(seed, threads, BYTES), case(seed + 1, threads, BYTES)];
    let served =
        |door: &dyn Fn(&Case, bool), may_fail| cases.iter().for_each(|c| door(c, may_fail));
    served(&|case, may_fail| case.run(&Rust, may_fail), true);
    served(&|case, may_fail| case.run(&C, may_fail), true);
    moves(true);
    spandrel::purge();
    well_again();
    doors::books();
    moves(false);
    served(&|case, may_fail| case.run(&C, may_fail), false);
    served(&|case, may_fail| case.run(&Rust, may_fail), false);
    let stats = doors::books();
    assert_eq!(stats.live, 0, "{stats}");
}

/// Blocks that grow where they are, with their pages to other addresses, and shrink; their contents stay.
fn moves(may_fail: bool) {
    use std::alloc::{GlobalAlloc, Layout};
    let layout = |mib: usize| Layout::from_size_align(mib << 20, 8).expect("a valid layout");
    // Two of five mebibytes, of which the first cannot grow where it is; one with a mapping of its own.
    let mut held = [5, 5, 130].map(|mib| {
        // SAFETY: a valid layout; the block is freed below.
        (unsafe { spandrel::Spandrel.alloc(layout(mib)) }, mib)
    });
    for (at, mib) in &mut held {
        if at.is_null() {
            assert!(may_fail, "{mib} MiB were refused");
            continue;
        }
        // SAFETY: used within its size, resized and freed with the layout it has.
        unsafe {
            at.write(7);
            at.add((*mib << 20) - 1).write(8);
            let mut end = (*mib << 20) - 1;
            for wanted in [*mib + 7, *mib + 70, *mib - 1] {
                let moved = spandrel::Spandrel.realloc(*at, layout(*mib), wanted << 20);
                assert!(may_fail || !moved.is_null(), "{mib} MiB to {wanted} were refused");
                if !moved.is_null() {
                    (*at, *mib) = (moved, wanted);
                }
                assert_eq!(at.read(), 7);
                assert!(end >= *mib << 20 || at.add(end).read() == 8, "{mib} MiB");
                end = end.min((*mib << 20) - 1);
                at.add(end).write(8);
            }
            spandrel::Spandrel.dealloc(*at, layout(*mib));
        }
    }
}

/// Runs `f` in a child; its answer, at most 63.
#[track_caller]
fn child(what: &str, f: impl FnOnce() -> u8) -> u8 {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // SAFETY: no conditions. No child lives longer than this, whatever happens in it.
        unsafe { libc::alarm(300) };
        // The shadow's memory comes from a heap that needs no more mappings.
        // SAFETY: these are parameters of glibc.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
        drop(vec![1u8; 1 << 20]);
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101);
        // SAFETY: ends the child.
        unsafe { libc::_exit(answer.into()) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    let fine = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) < 64;
    assert!(fine, "{what}: wait status {status:#x}");
    libc::WEXITSTATUS(status) as u8
}

const MET: u8 = 1;

fn met() -> u8 {
    if FAILED.load(Relaxed) > 0 { MET } else { 0 }
}

fn every_call_in_turn() {
    // `SPANDREL_CALL=NAME` is that one alone.
    let wanted = std::env::var("SPANDREL_CALL").ok();
    let chosen = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    for (call, name) in NAMES.iter().enumerate().filter(|(_, name)| chosen(name)) {
        for (errno, error) in [(libc::ENOMEM, "ENOMEM"), (libc::EAGAIN, "EAGAIN")] {
            for (count, times) in [(1, "once"), (u64::MAX, "for ever")] {
                let (mut number, mut runs) = (0, 0);
                // One by one. Only what fails for ever from a late call on is taken wider.
                while runs < 300 {
                    let what = format!("{name} number {number} fails with {error} {times}");
                    let answer = child(&what, || {
                        ERRNO.store(errno, Relaxed);
                        FROM.store(number, Relaxed);
                        UNTIL.store(number.saturating_add(count), Relaxed);
                        KINDS.store(1 << call, Relaxed);
                        work(rng::seed() + 7 * number, 0);
                        met()
                    });
                    runs += 1;
                    if answer != MET {
                        break;
                    }
                    number += if count == 1 { 1 } else { 1 + number / 8 };
                }
                assert!(runs > 3, "{name}: no fault was met");
                assert!(runs < 300, "{name}: not all calls were reached");
                println!("{name}, {error}, {times}: {runs} runs, up to call {number}");
            }
        }
    }
}

fn any_call_by_chance() {
    let mut faults = 0;
    let runs = 60 * rng::factor() as u64;
    for run in 0..runs {
        faults += u64::from(child(&format!("by chance, run {run}"), || {
            ERRNO.store(if run % 2 == 0 { libc::ENOMEM } else { libc::EAGAIN }, Relaxed);
            RANDOM.store(run << 32, Relaxed);
            ONE_IN.store(1 + run % 7, Relaxed);
            KINDS.store(if run % 3 == 0 { 0xf } else { 1 << (run % 4) }, Relaxed);
            // One thread, two, four.
            work(rng::seed() + 1000 * run, [0, 2, 3][run as usize % 3]);
            met()
        }));
    }
    println!("by chance: {runs} runs, {faults} of them met faults");
    assert!(faults > runs / 2);
}

fn no_hugepages() {
    for threads in [0, 3] {
        child("hugepage advice refused", || {
            NO_HUGEPAGES.store(true, Relaxed);
            spandrel::configure(
                &spandrel::Options::new().hugepages(spandrel::HugepagePolicy::Always),
            );
            work(rng::seed(), threads);
            assert_eq!(met(), MET, "advice was asked for");
            MET
        });
    }
    println!("hugepage advice refused: 2 runs");
}

fn without_overcommit() {
    let (mut runs, mut refused) = (0, 0);
    for mib in (1..40).step_by(3).chain((40..1400).step_by(150)) {
        refused += u32::from(child(&format!("{mib} MiB may be committed"), || {
            COMMIT.store(mib << 20, Relaxed);
            STRICT.store(true, Relaxed);
            work(rng::seed() + mib as u64, [0, 3][mib % 2]);
            met()
        }));
        runs += 1;
    }
    println!("overcommit 2, simulated: {runs} runs, {refused} of them met the limit");
    assert!(refused * 2 > runs, "hardly a limit was met");
}

/// The real limit of address space; the child's own memory was touched before.
fn address_space() {
    let mut runs = 0;
    for mib in [200, 300, 500, 900, 1500, 2500] {
        let met = child(&format!("RLIMIT_AS {mib} MiB"), || {
            let most = libc::rlim_t::from(mib as u64) << 20;
            let (limit, none) = (
                libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY },
                libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY },
            );
            // SAFETY: two valid limits.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            case(rng::seed() + mib as u64, 0, 500).run(&Rust, true);
            case(rng::seed() + mib as u64, 0, 500).run(&C, true);
            let refused = fill_and_free();
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &none) }, 0);
            work(rng::seed(), 3);
            u8::from(refused)
        });
        assert_eq!(met, 1, "the limit was reached");
        runs += 1;
    }
    println!("RLIMIT_AS: {runs} runs");
}

/// Takes blocks of a mebibyte until one is refused (or 8 GiB are there), and gives them back; the chain of
/// them lies in the blocks, so that no other memory is needed. Whether one was refused.
fn fill_and_free() -> bool {
    let layout = std::alloc::Layout::from_size_align(1 << 20, 8).expect("a valid layout");
    let (mut chain, mut count) = (std::ptr::null_mut::<*mut u8>(), 0u64);
    let mut refused = false;
    while count < 8 << 10 {
        let mut asked = layout;
        let (at, _) = Rust.take(&mut asked, 1);
        if at.is_null() {
            refused = true;
            break;
        }
        let link = at.cast::<*mut u8>();
        // SAFETY: a fresh block, aligned for a pointer.
        unsafe { link.write(chain.cast()) };
        chain = link;
        count += 1;
    }
    while !chain.is_null() {
        // SAFETY: the links were written above and each block is freed once.
        unsafe {
            let next = chain.read();
            std::alloc::GlobalAlloc::dealloc(&spandrel::Spandrel, chain.cast(), layout);
            chain = next.cast();
        }
    }
    refused
}

/// The kernel's limit of mappings, reached: every second page of a region gets another protection.
fn mappings() {
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .expect("Linux has it")
        .trim()
        .parse()
        .expect("a number");
    if most > 1 << 20 {
        println!("the limit of mappings is {most} here: not reached");
        return;
    }
    for (when, spare) in [("before the first use", 0), ("after it", 0), ("after it, a few left", 9)]
    {
        child(&format!("no more mappings, {when}"), || {
            if when != "before the first use" {
                case(rng::seed(), 0, 2000).run(&Rust, false);
            }
            let pages = 2 * most + 64;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: fresh mappings at addresses of the kernel's choice.
            let region = unsafe { mmap(std::ptr::null_mut(), pages * 4096, access, kind, -1, 0) };
            assert_ne!(region, libc::MAP_FAILED);
            let mut split = 0;
            // SAFETY: pages of the region, which nobody uses.
            while unsafe {
                libc::mprotect(region.byte_add((2 * split + 1) * 4096), 4096, libc::PROT_NONE)
            } == 0
            {
                split += 1;
                assert!(2 * split < pages, "no limit was met");
            }
            for back in 0..spare {
                // SAFETY: as above.
                unsafe { libc::mprotect(region.byte_add((2 * back + 1) * 4096), 4096, access) };
            }
            case(rng::seed(), 0, 2000).run(&Rust, true);
            case(rng::seed(), 0, 2000).run(&C, true);
            spandrel::purge();
            doors::books();
            // SAFETY: the whole region.
            assert_eq!(unsafe { munmap(region, pages * 4096) }, 0);
            work(rng::seed(), 3);
            MET
        });
    }
    println!("the limit of {most} mappings reached: 3 runs");
}

/// Where addresses are not randomised, as under a debugger, the first mappings lie in the topmost gibibyte,
/// beside the main thread's stack; the second time in pieces, because no window fits under the limit.
fn not_randomised() {
    use std::os::unix::process::CommandExt;
    for limit in [libc::RLIM_INFINITY, 700 << 20] {
        let mut command = std::process::Command::new(std::env::current_exe().expect("a path"));
        command.arg("--not-randomised");
        // SAFETY: two system calls, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let limits = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                let fine = libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) != -1
                    && libc::setrlimit(libc::RLIMIT_AS, &limits) == 0;
                if fine { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let status = command.status().expect("it runs");
        assert!(status.success(), "limit {limit}: {status}");
    }
    println!("addresses not randomised: 2 runs");
}

/// The child of [`not_randomised`].
fn served_where_it_is() {
    for size in [100, 30_000, MIB, 20 * MIB, 200 * MIB] {
        let mut layout = std::alloc::Layout::from_size_align(size, 8).expect("a valid layout");
        let (at, _) = Rust.take(&mut layout, 1);
        assert!(!at.is_null(), "{size} bytes were refused");
        // SAFETY: within the block, which is freed once.
        unsafe {
            at.write(1);
            at.add(size - 1).write(1);
            std::alloc::GlobalAlloc::dealloc(&spandrel::Spandrel, at, layout);
        }
    }
    doors::books();
}

const MIB: usize = 1 << 20;

fn main() {
    if std::env::args().any(|argument| argument == "--not-randomised") {
        return served_where_it_is();
    }
    // Another test of this workspace may have asked cargo for one by name.
    let parts: [(&str, fn()); 7] = [
        ("every_call_in_turn", every_call_in_turn),
        ("any_call_by_chance", any_call_by_chance),
        ("no_hugepages", no_hugepages),
        ("without_overcommit", without_overcommit),
        ("address_space", address_space),
        ("mappings", mappings),
        ("not_randomised", not_randomised),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())) {
            part();
        }
    }
}
