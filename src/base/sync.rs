//! The one place that knows whose atomics these are: `core`'s in the shipping build, loom's or
//! shuttle's when the same source is compiled for a model (`--cfg spandrel_model`).
//!
//! Everything shared between threads goes through these names, so a model checker sees the
//! shipping types and not a copy of them. Two macros bridge the only difference that shows in the
//! source: the checkers' constructors are not `const`. With `--cfg spandrel_steps` they are `core`'s and
//! tell a test before each access.

#[cfg(all(spandrel_model, not(any(spandrel_loom, spandrel_shuttle))))]
compile_error!("spandrel_model needs a checker: add --cfg spandrel_loom or --cfg spandrel_shuttle");

/// A function that is `const` in the shipping build, where one `static` composes the building, and
/// an ordinary one under a model.
macro_rules! const_fn {
    ($(#[$m:meta])* $v:vis fn $($rest:tt)*) => {
        #[cfg(not(spandrel_model))]
        $(#[$m])* $v const fn $($rest)*
        #[cfg(spandrel_model)]
        $(#[$m])* $v fn $($rest)*
    };
}

/// An array whose elements are each built by `$e`, in a `const fn` or under a model.
macro_rules! array {
    ($e:expr; $n:expr) => {{
        #[cfg(not(spandrel_model))]
        let array = [const { $e }; $n];
        #[cfg(spandrel_model)]
        let array: [_; $n] = ::core::array::from_fn(|_| $e);
        array
    }};
}

#[cfg(spandrel_steps)]
pub use super::steps::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(not(any(spandrel_model, spandrel_steps)))]
pub use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(spandrel_loom)]
pub use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(spandrel_shuttle)]
pub use shuttle::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};

pub use core::sync::atomic::Ordering;

/// Atomics that no model sees: sums, settings and guesses of a policy, which order nothing and on which no
/// protocol rests. A checker's cost grows with every access it sees.
pub mod unseen {
    #[cfg(spandrel_steps)]
    pub use crate::base::steps::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
    #[cfg(not(spandrel_steps))]
    pub use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
}

/// A sum for reports, invisible to the checkers: it orders nothing and adds no interleavings.
#[derive(Debug, Default)]
pub struct Tally(core::sync::atomic::AtomicU64);

impl Tally {
    /// Nothing yet; all zero bits.
    pub const fn new() -> Self {
        Self(core::sync::atomic::AtomicU64::new(0))
    }

    /// One more.
    #[cold]
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The sum.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A cell that one thread at a time may touch. The protocol around it says which; loom checks it.
#[derive(Debug)]
pub struct UnsafeCell<T>(Inner<T>);

#[cfg(not(spandrel_loom))]
type Inner<T> = core::cell::UnsafeCell<T>;
#[cfg(spandrel_loom)]
type Inner<T> = loom::cell::UnsafeCell<T>;

impl<T> UnsafeCell<T> {
    const_fn! {
        /// A cell that holds `value`.
        pub fn new(value: T) -> Self {
            Self(Inner::new(value))
        }
    }

    /// Runs `f` with a pointer for reading.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        #[cfg(spandrel_loom)]
        return self.0.with(f);
        #[cfg(not(spandrel_loom))]
        f(self.0.get())
    }

    /// Runs `f` with a pointer for writing.
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(spandrel_loom)]
        return self.0.with_mut(f);
        #[cfg(not(spandrel_loom))]
        f(self.0.get())
    }
}
