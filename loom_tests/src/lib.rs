//! The bench on which spandrel's protocols are modelled: explores a few threads on the shipping
//! types, collects what came out of every interleaving, and shows that a seeded bug goes red.
//!
//! Empty unless spandrel is compiled for a checker; `README.md` says how. One file per protocol in
//! `tests/`.
//!
//! Two habits keep a green run honest. A model runs once per *order of spawning* its threads, while
//! main only builds, joins and looks, because loom can hide every interleaving behind a reader that
//! was spawned early; and the *set of outcomes* over all interleavings is asserted, so that what was
//! hidden is missed.

#[cfg(spandrel_model)]
mod bench;
#[cfg(spandrel_model)]
pub mod floors;

#[cfg(spandrel_model)]
pub use bench::{Model, Role};
