//! The two ways a user builds.

use serde::Serialize;

/// A cargo profile of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

    /// The heading over its tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Fat => "fat LTO",
            Self::Release => "without LTO",
        }
    }
}
