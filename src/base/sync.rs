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

/// A word that a checker sees where the model asks for it (`seed::see`), and otherwise not: a checker's
/// cost grows with every access it sees, and most models have no part in what this word does.
#[cfg(spandrel_model)]
#[derive(Debug)]
pub struct OnDemand {
    hidden: core::sync::atomic::AtomicUsize,
    seen: AtomicUsize,
}

#[cfg(spandrel_model)]
#[allow(missing_docs)]
impl OnDemand {
    pub fn new() -> Self {
        Self { hidden: core::sync::atomic::AtomicUsize::new(0), seen: AtomicUsize::new(0) }
    }

    pub fn load(&self) -> usize {
        if super::seed::sees() {
            self.seen.load(Ordering::Relaxed)
        } else {
            self.hidden.load(Ordering::Relaxed)
        }
    }

    pub fn store(&self, to: usize) {
        if super::seed::sees() {
            self.seen.store(to, Ordering::Relaxed);
        } else {
            self.hidden.store(to, Ordering::Relaxed);
        }
    }
}

#[cfg(spandrel_model)]
impl Default for OnDemand {
    fn default() -> Self {
        Self::new()
    }
}

/// Orders a store before a later load of a thread that runs often, against one that runs
/// [`Os::barrier`](crate::os::Os::barrier) between its store and its load, at no cost here: the barrier
/// makes every thread's memory accesses appear in program order, and this fixes the program order.
/// A checker has no such barrier; it sees two fences.
#[inline]
pub fn light_fence() {
    #[cfg(not(spandrel_model))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(spandrel_loom)]
    if super::seed::sees() && !super::seed::on(super::seed::Seed::LookUnfenced) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Orders what the caller does next after all that came before the store whose value it has just read, whoever
/// read it: the system may have, for it.
#[inline]
pub fn acquire_fence() {
    #[cfg(not(spandrel_loom))]
    core::sync::atomic::fence(Ordering::Acquire);
    #[cfg(spandrel_loom)]
    loom::sync::atomic::fence(Ordering::Acquire);
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
