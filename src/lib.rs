//! stub doc
#[macro_use]
pub mod base;
pub mod cache;
#[cfg(not(spandrel_model))]
pub mod front;
pub mod os;
pub mod page;
pub mod span;
pub mod transfer;
#[cfg(not(spandrel_model))]
pub use front::Spandrel;
pub struct Stats;
impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stub")
    }
}
pub fn stats() -> Stats {
    Stats
}
