//! The two ways a user builds.

use serde::{Deserialize, Serialize};

/// What is asked of resident over live memory while sizes drift.
pub const FRAGMENTATION_GOAL: f64 = 1.15;

/// A cargo profile of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `lto = "fat"`: the allocator inlines into every caller.
    Fat,
    /// Optimised, without LTO between crates: library crates call the allocator.
    Release,
}

impl Profile {
    /// The name cargo knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fat => "fat",
            Self::Release => "release",
        }
    }

    /// What is asked of Spandrel's time over the best of the others': the geometric mean, and every
    /// row.
    pub fn time_goal(self) -> [f64; 2] {
        match self {
            Self::Fat => [0.70, 1.05],
            Self::Release => [0.90, 1.10],
        }
    }

    /// The same of an operation's time on 16 threads over that on 2.
    pub const OVERSUBSCRIBED_GOAL: [f64; 2] = [1.15, 1.15];

    /// The same of the peaks of resident memory.
    pub const PEAK_GOAL: [f64; 2] = [1.0, 1.25];

    /// The heading over its tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Fat => "fat LTO",
            Self::Release => "without LTO",
        }
    }
}
