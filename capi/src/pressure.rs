//! Who is told that the soft limit was crossed: `spandrel_on_pressure`.

use ::spandrel::Limits;
use ::spandrel::background::on_pressure;
use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire};

type Callback = extern "C" fn(used: usize, soft: usize);

/// The program's function, or null. Any thread.
static CALLBACK: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// See `spandrel.h`.
#[unsafe(no_mangle)]
pub extern "C" fn spandrel_on_pressure(callback: Option<Callback>) -> c_int {
    let word = callback.map_or(null_mut(), |callback| callback as *mut c_void);
    let before = CALLBACK.swap(word, AcqRel);
    if word.is_null() {
        return 0;
    }
    match on_pressure(tell) {
        Ok(()) => 0,
        Err(error) => {
            // Who was told before is told again, unless another call has changed it meanwhile.
            let _ = CALLBACK.compare_exchange(word, before, AcqRel, Acquire);
            error.raw_os_error().unwrap_or(libc::EAGAIN)
        }
    }
}

fn tell(limits: &Limits) {
    let word = CALLBACK.load(Acquire);
    if !word.is_null() {
        // SAFETY: a word that is not null is the function that `spandrel_on_pressure` stored.
        let callback: Callback = unsafe { transmute(word) };
        callback(limits.used, limits.soft.unwrap_or(0));
    }
}
