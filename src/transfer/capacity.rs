//! How many nodes of a class the transfer cache keeps. Pure functions.

use super::stack::MAX_COUNT;
use crate::base::classes::Class;

/// Bytes of objects a class starts with room for.
const START: usize = 1 << 20;
/// Bytes of objects a class never has room for more than.
const MOST: usize = 8 << 20;

/// How often, at most, to look for what nobody takes, in milliseconds.
pub const LOOK_EVERY_MS: u64 = 250;
/// Look also when the heap grew by so many bytes since: what waits here may keep what would do instead.
pub const LOOK_EVERY_GROWTH: u64 = 2 << 20;

/// How many of `unused` nodes, which nobody took since the last look, go back.
pub fn surplus(unused: u32) -> u32 {
    unused - unused / 4
}

/// The limit after it was doubled `doublings` times.
pub fn limit(class: Class, doublings: u8) -> u32 {
    let node = class.batch() * class.size();
    let start = (START / node).clamp(4, MAX_COUNT as usize / 2);
    let most = (MOST / node).clamp(4, MAX_COUNT as usize);
    (start << doublings.min(8)).min(most) as u32
}

/// Whether one more doubling would change anything.
pub fn may_double(class: Class, doublings: u8) -> bool {
    limit(class, doublings.saturating_add(1)) > limit(class, doublings)
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn about_a_mebibyte_at_first_and_bounded_for_ever() {
        for class in Class::all() {
            let node = class.batch() * class.size();
            let first = limit(class, 0) as usize * node;
            assert!(first <= START.max(4 * node));
            assert!(first >= START / 4 || limit(class, 0) == MAX_COUNT / 2, "{class:?}");
            let mut doublings = 0;
            while may_double(class, doublings) {
                doublings += 1;
            }
            assert!(limit(class, doublings) as usize * node <= MOST.max(4 * node));
            assert!(limit(class, u8::MAX) <= MAX_COUNT);
        }
    }
}
