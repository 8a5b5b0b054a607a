//! Programs that say how much memory they hold, run as the same program on each allocator.
//!
//! One process a program, started by the driver (`src/driver`); the worker prints one line of figures.

pub mod programs;
pub mod rss;
pub mod work;
pub mod worker;
