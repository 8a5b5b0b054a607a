//! Who watches the calls of a program, in observed mode only: off, none of this runs.
//!
//! The front's slow functions come here with every call of every thread (see [`mode`] and
//! [`cache::switch`](crate::cache::switch)): [`born`] after an allocation, [`dying`] before a free,
//! [`resized`] for a block that grew, shrank or moved. Each consumer has a bit of the mode and a module of
//! its own; `hooks` only hands out. Everything here keeps the rules of the floors: no allocation, no
//! lock, no waiting.

#[cfg(not(spandrel_model))]
mod chance;
#[cfg(not(spandrel_model))]
pub mod check;
#[cfg(not(spandrel_model))]
pub mod claim;
#[cfg(not(spandrel_model))]
pub mod fault;
#[cfg(not(spandrel_model))]
pub mod guard;
#[cfg(not(spandrel_model))]
mod hooks;
#[cfg(not(spandrel_model))]
pub mod ledger;
#[cfg(not(spandrel_model))]
pub mod mode;
#[cfg(not(spandrel_model))]
mod report;
#[cfg(not(spandrel_model))]
pub mod sample;
pub mod stacks;
#[cfg(not(spandrel_model))]
pub mod tags;
pub mod trace;

#[cfg(not(spandrel_model))]
pub use hooks::{Fate, born, dying, each_record, moved, moving, resized, stayed};
