//! The same work on Spandrel and on the allocators it is measured against.
//!
//! A `#[global_allocator]` is a property of a whole program, so there is one thin binary per
//! allocator (`src/bin/w-*.rs`) and everything they do lives here. That it lives in a *library*
//! matters: without LTO, calls to the allocator inline only inside the crate that declares it, so
//! loops written in the binary would show a fast path that no user's library crate gets. Every loop
//! is a plain function, never generic, because a generic one would be compiled again inside the
//! binary.
//!
//! - [`workloads`] is the table of loops, each with an *empty* twin that does everything but
//!   allocate;
//! - [`worker`] is the command line of the thin binaries;
//! - [`floors`] says how far the calls of a run went, [`costs`] what a step on each floor costs;
//! - the binary `peers` builds the workers, runs them side by side and reports.

pub mod costs;
pub mod floors;
mod meter;
mod record;
pub mod worker;
pub mod workloads;
