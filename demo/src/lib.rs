//! A JSON document service of the kind Spandrel is made for, and the load that exercises it.
//!
//! Nothing in this library knows which allocator it runs on. Each `svc-*` binary is five lines: it declares its
//! `#[global_allocator]` and calls [`service_main::run`], so every allocator is linked and inlined exactly as it would
//! be in a program of its own, and `demo` compares whole processes.
//!
//! One request's walk, and why its memory crosses threads:
//!
//! 1. A connection task on a tokio worker reads the body into a buffer.
//! 2. The work moves to the rayon pool ([`service`]): the body is parsed there, and its buffer is freed there.
//! 3. The pool builds the answer; a oneshot channel hands it to the tokio worker, which writes and frees it.
//! 4. A stored document lives until a later insertion, on whichever pool thread, pushes it out ([`store`]).
//!
//! Around it: [`corpus`] is what is sent, [`load`] sends it and verifies every answer, [`rss`] asks the kernel what the
//! process cost, [`report`] carries results from a service process to `demo` and prints them, [`runner`] builds the
//! service binaries and runs them in turn.

pub mod corpus;
pub mod heap;
pub mod leaks;
pub mod load;
pub mod metrics;
pub mod report;
pub mod rss;
pub mod runner;
pub mod service;
pub mod service_main;
pub mod store;
pub mod text;
