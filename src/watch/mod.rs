//! Watching: what the front tells of each call in observed mode, and who listens.

pub mod stacks;
