//! What can be seen of the building from outside. Reads every floor, stops no thread, changes
//! nothing; known only to the front.

#[cfg(not(spandrel_model))]
pub mod apart;
#[cfg(not(spandrel_model))]
pub mod leaks;
#[cfg(all(feature = "symbols", not(spandrel_model)))]
mod leaks_text;
#[cfg(not(spandrel_model))]
pub mod map;
#[cfg(not(spandrel_model))]
pub mod memory;
#[cfg(not(spandrel_model))]
pub mod modules;
#[cfg(all(feature = "profile", not(spandrel_model)))]
pub mod pprof;
#[cfg(not(spandrel_model))]
pub mod profile;
pub mod series;
pub mod snapshot;
#[cfg(all(feature = "symbols", not(spandrel_model)))]
pub mod stack_names;
#[cfg(all(feature = "symbols", not(spandrel_model)))]
pub mod symbols;
#[cfg(not(spandrel_model))]
pub mod tags;
pub mod text;
#[cfg(not(spandrel_model))]
pub mod threads;

#[cfg(feature = "prometheus")]
pub use series::Prometheus;
#[cfg(feature = "metrics")]
pub use series::publish;
pub use snapshot::{ClassStats, Floors, Stats};
