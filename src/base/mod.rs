//! Ground: units, size classes, atomics, hint sets, deaths. Knows nothing of the floors above.

#[macro_use]
pub mod sync;
pub mod classes;
pub mod death;
pub mod hints;
pub mod line;
pub mod options;
pub mod seed;
pub mod units;
