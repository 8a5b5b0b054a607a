//! The walk up the stack, beside the system's own unwinder, and the numbers of stacks.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use spandrel::watch::stacks::{self, DEPTH};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: `Spandrel` does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { spandrel::Spandrel.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { spandrel::Spandrel.dealloc(at, layout) }
    }
}

#[global_allocator]
static A: Counting = Counting;

unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

unsafe extern "C" fn note(context: *mut c_void, data: *mut c_void) -> c_int {
    // SAFETY: `theirs` passes a vector; the context is the unwinder's.
    unsafe { (*data.cast::<Vec<usize>>()).push(_Unwind_GetIP(context)) };
    0
}

/// The stack as the system's unwinder sees it.
#[inline(never)]
fn theirs() -> Vec<usize> {
    let mut frames = Vec::with_capacity(4096);
    // SAFETY: `note` gets what it expects.
    unsafe { _Unwind_Backtrace(note, (&raw mut frames).cast()) };
    frames.retain(|&frame| frame != 0);
    frames
}

/// The stack as ours sees it.
#[inline(never)]
fn ours() -> Vec<usize> {
    let mut frames = vec![0; 4096];
    let count = stacks::fill(&mut frames);
    frames.truncate(count);
    frames
}

/// Both, and that they are the same from the caller's caller on; the stack's length.
#[inline(never)]
fn compare() -> usize {
    // Twice: by the tables, and by what is remembered of them.
    for _ in 0..2 {
        let (theirs, ours) = (theirs(), ours());
        let shared = ours.iter().rev().zip(theirs.iter().rev()).take_while(|(a, b)| a == b).count();
        // `ours`/`theirs` and `compare` itself differ in where they go on.
        assert!(
            shared + 2 >= ours.len() && shared + 3 >= theirs.len(),
            "{shared}: {ours:x?} {theirs:x?}"
        );
    }
    ours().len()
}

#[test]
fn as_the_system_sees_it() {
    assert!(compare() > 5);
}

#[inline(never)]
fn deep(n: usize) -> usize {
    let room = black_box([n; 5]);
    if n == 0 { compare() } else { deep(n - 1) + room[0] - n }
}

#[test]
fn deep_recursion() {
    assert!(deep(1000) > 1000);
    // What is kept is bounded: the innermost frames.
    #[inline(never)]
    fn down(n: usize) -> u32 {
        if n == 0 { stacks::capture() } else { black_box(down(n - 1)) }
    }
    let id = down(500);
    let mut frames = [0; DEPTH + 10];
    assert_eq!(stacks::frames(id, &mut frames), DEPTH);
    assert!(frames[1..DEPTH].windows(2).all(|pair| pair[0] == pair[1]), "{frames:x?}");
    assert_eq!(frames[DEPTH..], [0; 10]);
}

#[test]
fn through_the_c_library() {
    static LENGTH: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn order(_: *const c_void, _: *const c_void) -> c_int {
        LENGTH.fetch_max(compare(), Relaxed);
        0
    }
    let mut numbers = [3, 1, 2];
    // SAFETY: three numbers, and a function that compares.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(order)) };
    let frames = ours().len();
    assert!(LENGTH.load(Relaxed) > frames + 1);
}

#[test]
fn at_the_start_of_a_thread() {
    let length = std::thread::spawn(compare).join().unwrap();
    assert!((3..40).contains(&length), "{length}");
    extern "C" fn start(_: *mut c_void) -> *mut c_void {
        std::ptr::without_provenance_mut(compare())
    }
    let (mut thread, mut length) = (0, std::ptr::null_mut());
    // SAFETY: a thread that is joined.
    unsafe {
        assert_eq!(
            libc::pthread_create(&mut thread, std::ptr::null(), start, std::ptr::null_mut()),
            0
        );
        assert_eq!(libc::pthread_join(thread, &mut length), 0);
    }
    // `compare`, `start`, and two of the C library's.
    assert!((3..8).contains(&length.addr()), "{length:?}");
}

#[test]
fn from_a_signal_handler() {
    static LENGTH: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handle(_: c_int) {
        LENGTH.store(compare(), Relaxed);
    }
    let here = ours().len();
    // On a stack of its own, too: outwards is not always up.
    for flags in [0, libc::SA_ONSTACK] {
        let mut room = vec![0u64; 32 << 10];
        let other =
            libc::stack_t { ss_sp: room.as_mut_ptr().cast(), ss_flags: 0, ss_size: room.len() * 8 };
        let off =
            libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        let mut before = off;
        // SAFETY: a handler, and room for it that stays as long as it may run.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(c_int) as usize;
            action.sa_flags = flags;
            libc::sigaltstack(&other, &mut before);
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            LENGTH.store(0, Relaxed);
            libc::raise(libc::SIGUSR1);
            libc::sigaltstack(&before, std::ptr::null_mut());
        }
        assert!(LENGTH.load(Relaxed) > here, "{flags}");
    }
}

/// Code of which no table knows.
fn unknown_code(bytes: &[u8]) -> extern "C" fn(extern "C" fn() -> usize) -> usize {
    // SAFETY: a page of its own, written before it is run, and never unmapped.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        page.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        std::mem::transmute::<*mut c_void, extern "C" fn(extern "C" fn() -> usize) -> usize>(page)
    }
}

extern "C" fn length() -> usize {
    ours().len()
}

#[test]
fn code_without_a_table() {
    let here = ours().len();
    // push rbp; mov rbp, rsp; call rdi; pop rbp; ret
    let framed = unknown_code(&[0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3]);
    assert!(framed(length) > here);
    // push rdi; call rdi; pop rdi; ret: the frame pointer is somebody else's, or nobody's.
    let bare = unknown_code(&[0x57, 0xff, 0xd7, 0x5f, 0xc3]);
    assert!(bare(length) >= 2);
    // push rbp; mov rbp, N; call rdi; pop rbp; ret
    for garbage in [0, 8, 0x7fff_ffff_f000, usize::MAX, usize::MAX - 7, 0x1234_5678_9abc_def0] {
        let mut code = vec![0x55, 0x48, 0xbd];
        code.extend_from_slice(&garbage.to_le_bytes());
        code.extend_from_slice(&[0xff, 0xd7, 0x5d, 0xc3]);
        let length = unknown_code(&code)(length);
        assert!((2..here + 2).contains(&length), "{garbage:x}: {length}");
    }
}

#[test]
fn a_corrupted_frame_pointer() {
    let here = ours().len();
    let mut page = [0usize; 64];
    for garbage in [0, 1, usize::MAX, page.as_mut_ptr().addr(), 0x1000, 0xdead_beef] {
        let frames: usize;
        // SAFETY: the function keeps to C's rules, and the frame pointer is what it was afterwards.
        unsafe {
            std::arch::asm!(
                "push rbp",
                "push rbx",
                "mov rbx, rsp",
                "and rsp, -16",
                "mov rbp, {garbage}",
                "call {function}",
                "mov rsp, rbx",
                "pop rbx",
                "pop rbp",
                garbage = in(reg) garbage,
                function = in(reg) length as extern "C" fn() -> usize,
                lateout("rax") frames,
                clobber_abi("C"),
            );
        }
        assert!((1..here + 40).contains(&frames), "{garbage:x}");
    }
    black_box(page);
}

#[test]
fn numbers() {
    let here = || stacks::capture();
    let ids: Vec<u32> = (0..10).map(|_| here()).collect();
    assert!(ids[0] != 0 && ids.iter().all(|&id| id == ids[0]));
    assert_ne!(here(), ids[0]);
    // The first frame is the caller's, not the walk's.
    let mut frames = [0; DEPTH];
    let count = stacks::frames(ids[0], &mut frames);
    assert!(count > 3);
    let start = numbers as fn() as usize;
    assert!((start..start + 0x4000).contains(&frames[1]) || frames[0] != 0);
    // SAFETY: errno is this thread's.
    unsafe {
        *libc::__errno_location() = 77;
        black_box(stacks::capture());
        assert_eq!(*libc::__errno_location(), 77);
    }
}

#[test]
fn nothing_is_allocated() {
    // In a child, because the tests beside this one allocate.
    const CHILD: &str = "SPANDREL_STACKS_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["nothing_is_allocated", "--exact", "--test-threads=1"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(child.success());
        return;
    }
    let before = CALLS.load(Relaxed);
    for n in 0..100 {
        #[inline(never)]
        fn down(n: usize) -> u32 {
            if n == 0 { stacks::capture() } else { black_box(down(n - 1)) }
        }
        assert_ne!(down(n), 0);
    }
    // libtest's other thread may wake up meanwhile, which takes a call or two.
    assert!(CALLS.load(Relaxed) - before < 20);
}

#[test]
fn doors_are_left_out() {
    #[inline(never)]
    extern "C" fn door() -> usize {
        black_box(ours().len())
    }
    #[inline(never)]
    fn open() -> (usize, Vec<usize>) {
        let mut frames = vec![0; 64];
        #[inline(never)]
        fn door(frames: &mut [usize]) -> usize {
            black_box(stacks::fill(frames))
        }
        stacks::trim(&[door as fn(&mut [usize]) -> usize as usize]);
        let count = door(&mut frames);
        (count, frames)
    }
    let before = door();
    let (count, frames) = open();
    // `open` instead of `door` and `ours`.
    assert_eq!(count, before - 1, "{frames:x?}");
}
