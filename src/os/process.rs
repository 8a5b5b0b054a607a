//! Which process this is: a number that a forked child does not share with its parent.
//!
//! It lies in a page that the kernel hands to a child wiped (`MADV_WIPEONFORK`), so however the child
//! was made, it finds a zero and numbers itself anew: no handler, no lock, no system call. Kernels
//! before 4.14 cannot wipe; there `pthread_atfork` has the child do it, and one that was made by the
//! bare system call goes unnoticed.

use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// The word in the wiped page; null until it is first wanted. Beside it, nothing lies in that page.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// The last number given, in this process or an ancestor.
static LAST: AtomicU32 = AtomicU32::new(0);

/// This process's number, at least 1.
#[inline]
pub fn number(page_size: usize) -> u32 {
    // SAFETY: null, or the word in a page that is never unmapped.
    match unsafe { WORD.load(Acquire).as_ref() } {
        Some(word) => match word.load(Relaxed) {
            0 => renumber(word),
            number => number,
        },
        None => begin(page_size),
    }
}

#[cold]
fn renumber(word: &AtomicU32) -> u32 {
    let next = LAST.load(Relaxed) + 1;
    match word.compare_exchange(0, next, AcqRel, Acquire) {
        Ok(_) => {
            LAST.store(next, Relaxed);
            next
        }
        Err(number) => number,
    }
}

#[cold]
fn begin(page_size: usize) -> u32 {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing; errno is
    // this thread's.
    unsafe {
        let errno = *libc::__errno_location();
        let page = libc::mmap(
            ptr::null_mut(),
            page_size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let mapped = page != libc::MAP_FAILED;
        let wiped = mapped && libc::madvise(page, page_size, libc::MADV_WIPEONFORK) == 0;
        if mapped {
            match WORD.compare_exchange(ptr::null_mut(), page.cast(), AcqRel, Acquire) {
                Ok(_) if !wiped => {
                    libc::pthread_atfork(None, None, Some(wipe));
                }
                Ok(_) => {}
                Err(_) => {
                    libc::munmap(page, page_size);
                }
            }
        }
        *libc::__errno_location() = errno;
        // Without a page: the first process, as far as can be told.
        WORD.load(Acquire).as_ref().map_or(1, |word| match word.load(Relaxed) {
            0 => renumber(word),
            number => number,
        })
    }
}

unsafe extern "C" fn wipe() {
    // SAFETY: null, or the word in a page that is never unmapped.
    if let Some(word) = unsafe { WORD.load(Acquire).as_ref() } {
        word.store(0, Relaxed);
    }
}
