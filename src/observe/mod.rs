//! What can be seen of the building from outside. Reads every floor, stops no thread, changes
//! nothing; known only to the front.

pub mod snapshot;
pub mod text;

pub use snapshot::{ClassStats, Floors, Stats};
