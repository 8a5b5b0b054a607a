//! What can be seen of the building from outside. Reads every floor, stops no thread, changes
//! nothing; known only to the front.

#[cfg(not(spandrel_model))]
pub mod map;
#[cfg(not(spandrel_model))]
pub mod modules;
pub mod series;
pub mod snapshot;
#[cfg(all(feature = "symbols", not(spandrel_model)))]
pub mod symbols;
pub mod text;

#[cfg(feature = "prometheus")]
pub use series::Prometheus;
#[cfg(feature = "metrics")]
pub use series::publish;
pub use snapshot::{ClassStats, Floors, Stats};
