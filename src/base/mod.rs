//! Ground: units, size classes, atomics, hint sets, deaths. Knows nothing of the floors above.

#[macro_use]
pub mod sync;
pub mod classes;
pub mod death;
pub mod hints;
pub mod line;
pub mod options;
#[cfg(not(spandrel_model))]
pub mod quiet;
pub mod seed;
#[cfg(spandrel_steps)]
pub mod steps;
pub mod units;
