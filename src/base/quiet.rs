//! System calls that a program must not notice.

use core::ffi::c_int;

/// As in `pthread.h`, the same in glibc and musl.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Runs something that may change `errno` and in which the thread could be cancelled: `errno` stays as it was,
/// and a cancellation that is pending waits for the program's next place for it. Most of what opens, reads or
/// writes a file is such a place, and inside an allocation it would lose what the program has at hand.
pub fn quietly<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: errno is this thread's own and outlives the call.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    let mut state = 0;
    // SAFETY: changes the running thread's own state, which is set back below.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut state) };
    let result = f();
    // SAFETY: the state that the thread had.
    unsafe { pthread_setcancelstate(state, core::ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { *errno = saved };
    result
}
