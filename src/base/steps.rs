//! Atomics that tell before each access (`--cfg spandrel_steps`), so that a test can stop one thread at
//! any of them and see whether the others go on (`fuzz/tests/steps.rs`).
//!
//! They are as large as `core`'s and zero where those are. The thread stops in the test's hook; nothing
//! here waits.

use core::panic::Location;
use core::sync::atomic::{self, Ordering};

/// Called before every atomic access with its place in the source; null is nobody.
static HOOK: atomic::AtomicPtr<()> = atomic::AtomicPtr::new(core::ptr::null_mut());

/// What is called before every atomic access, with its place in the source.
pub type Hook = fn(&'static Location<'static>);

/// From now on `hook` is called.
pub fn set_hook(hook: Hook) {
    HOOK.store(hook as *mut (), Ordering::SeqCst);
}

#[inline]
#[track_caller]
fn step() {
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: what `set_hook` stored is a `Hook`.
        let hook = unsafe { core::mem::transmute::<*mut (), Hook>(hook) };
        hook(Location::caller());
    }
}

macro_rules! stepping {
    ($($name:ident $(<$g:ident>)? ($value:ty);)*) => {$(
        /// As `core`'s.
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name $(<$g>)? (atomic::$name $(<$g>)?);

        #[allow(missing_docs)]
        impl $(<$g>)? $name $(<$g>)? {
            #[inline]
            pub const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            #[inline]
            pub const fn as_ptr(&self) -> *mut $value {
                self.0.as_ptr()
            }

            #[inline]
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                step();
                self.0.load(order)
            }

            #[inline]
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            #[inline]
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.swap(value, order)
            }

            #[inline]
            #[track_caller]
            pub fn fetch_update(
                &self,
                store: Ordering,
                load: Ordering,
                f: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                step();
                self.0.fetch_update(store, load, f)
            }

            #[inline]
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }

            #[inline]
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                step();
                self.0.compare_exchange_weak(current, new, success, failure)
            }
        }
    )*};
}

macro_rules! counting {
    ($($name:ident($value:ty);)*) => {$(
        #[allow(missing_docs)]
        impl $name {
            counting! { @$name $value: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min }
        }
    )*};
    (@$name:ident $value:ty: $($verb:ident)*) => {$(
        #[inline]
        #[track_caller]
        pub fn $verb(&self, value: $value, order: Ordering) -> $value {
            step();
            self.0.$verb(value, order)
        }
    )*};
}

stepping! {
    AtomicU8(u8);
    AtomicU16(u16);
    AtomicU32(u32);
    AtomicU64(u64);
    AtomicUsize(usize);
    AtomicPtr<T>(*mut T);
}

counting! {
    AtomicU8(u8);
    AtomicU16(u16);
    AtomicU32(u32);
    AtomicU64(u64);
    AtomicUsize(usize);
}
