//! The command's reader of traces, as it is.

#[path = "../../cli/src/trace/file.rs"]
mod file;
#[path = "../../src/watch/trace/format.rs"]
pub mod format;

pub use file::Trace;
