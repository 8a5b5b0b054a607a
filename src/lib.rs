//! Spandrel: a thread-caching, lock-free, out-of-band memory allocator in pure Rust, in the style of
//! tcmalloc.
//!
//! ```
//! #[global_allocator]
//! static A: spandrel::Spandrel = spandrel::Spandrel;
//! # let _ = Box::new(1);
//! ```
//!
//! # The walk of an allocation
//!
//! A *granule* is 32 KiB, a *hugepage* 2 MiB, a *window* 1 GiB of aligned address space. A *span* is
//! an aligned power-of-two run of granules that serves one size class; a *batch* is up to 62 objects
//! of one class, carried by a *node*. Each step is about ten times rarer than the one before:
//!
//! 1. **Front** ([`front`]): the `Layout` picks a size class from a `const` table. Cheap because a
//!    constant layout folds at compile time.
//! 2. **Thread cache** ([`cache`]): pop the top of this thread's array of pointers for the class.
//!    Cheap because nothing is shared: six instructions, no atomic read-modify-write.
//! 3. **Transfer cache** ([`transfer`]): the array is empty, so pop one batch from the class's
//!    lock-free stack. Cheap because one compare-and-swap moves up to 62 objects.
//! 4. **Spans** ([`span`]): no batch waits, so own a span that has free bits and turn up to 62 of
//!    them into pointers. Cheap because a word of bits is taken at a time and no object is touched.
//! 5. **Page heap** ([`page`]): no such span, so claim a run of granules in a hugepage's word. Cheap
//!    because splitting and merging buddies is bit arithmetic, one compare-and-swap in all.
//! 6. **System** ([`os`]): no run either, so map more of a window. A gibibyte at a time where the
//!    system allows, and it costs nothing until touched.
//!
//! A free walks back up only as far as it must: the thread's array; the oldest batch to the transfer
//! cache when the array is full; to the spans, a word of bits at a time, when that is full; a span
//! whose last object came home to the page heap; a hugepage that is whole again to the system, some
//! seconds later ([`page::purge`]). Freed objects have no owner thread: whoever frees, keeps.
//!
//! Two properties hold on every floor. **Lock-free**: no mutex, no spin-wait, no "wait for the earlier
//! claimer"; a thread stopped at any instruction never blocks another. **Out of band**: no byte of a
//! free object is read or written; free lists are pointer arrays, span state is bitmaps, all in
//! mappings apart from user memory.
//!
//! Imports go down only: `front` > `cache` > `transfer` > `span` > `page` > `os` > `base`;
//! [`observe`] reads every floor, [`background`] ticks them and [`watch`] sees every call in observed mode; all
//! three are known to the front alone. One static composes the building (`front::building`).
//!
//! The modules are public for the project's own tests, models and tools; only what the crate root
//! names is meant for users and kept stable.

#[cfg(not(spandrel_model))]
pub mod background;
#[doc(hidden)]
#[macro_use]
pub mod base;
#[doc(hidden)]
pub mod cache;
#[cfg(not(spandrel_model))]
#[doc(hidden)]
pub mod front;
#[doc(hidden)]
pub mod observe;
#[doc(hidden)]
pub mod os;
#[doc(hidden)]
pub mod page;
#[doc(hidden)]
pub mod span;
#[doc(hidden)]
pub mod transfer;
#[doc(hidden)]
pub mod watch;

#[cfg(not(spandrel_model))]
pub use base::options::{Check, Decay, HugepagePolicy, Limit, Options};
#[cfg(not(spandrel_model))]
pub use front::config::{check, configure, guard, limits, reread_limits};
#[cfg(not(spandrel_model))]
pub use front::map::write_map;
#[cfg(not(spandrel_model))]
pub use front::{Configured, Spandrel, flush_current_thread, purge, stats};
#[cfg(feature = "prometheus")]
pub use observe::Prometheus;
#[cfg(not(spandrel_model))]
pub use observe::leaks::{Leaks, NoLeaks, leaks, watch_leaks};
#[cfg(not(spandrel_model))]
pub use observe::profile;
#[cfg(feature = "metrics")]
pub use observe::publish;
#[cfg(not(spandrel_model))]
pub use observe::tags::{Entered, Tag, TagStats, Tagged, count_tags, tag, tags};
pub use observe::{ClassStats, Floors, Stats};
pub use page::Limits;

// The unit tests, too, run on top of what they test.
#[cfg(all(test, not(spandrel_model)))]
#[global_allocator]
static A: Spandrel = Spandrel;
