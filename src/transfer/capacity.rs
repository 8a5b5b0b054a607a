//! How many nodes of a class the transfer cache keeps. Pure functions.

use crate::base::classes::Class;

/// Nodes a class starts with room for, and never has room for more than. A program that frees some MiB of
/// small objects and takes them again pays 3.6 ns an object through here and 21 through the spans (the
/// row `shuffled/t1` of the peers, with 16 and 128 nodes).
const NODES: [usize; 2] = [64, 512];
/// The same in bytes of objects.
const BYTES: [usize; 2] = [1 << 20, 8 << 20];
/// The same for objects larger than [`LARGER_THAN`], of which a few keep much memory.
const LARGER: [usize; 2] = [64 << 10, 256 << 10];
const LARGER_THAN: usize = 512;

/// Bytes of objects beyond which those that are neighbours go home.
const IN_ORDER: usize = 32 << 10;

/// How often, at most, to look for what nobody takes, in milliseconds.
pub const LOOK_EVERY_MS: u64 = 250;
/// Look also when the heap grew by so many bytes since: what waits here may keep what would do instead.
pub const LOOK_EVERY_GROWTH: u64 = 2 << 20;

/// How many of `unused` nodes, which nobody took since the last look, go back.
pub fn surplus(unused: u32) -> u32 {
    unused - unused / 4
}

/// Bytes of objects that a class has room for at first and at most.
const fn room(class: Class) -> [usize; 2] {
    if class.size() > LARGER_THAN { LARGER } else { BYTES }
}

/// The limit after it was doubled `doublings` times.
pub fn limit(class: Class, doublings: u8) -> u32 {
    let node = class.batch() * class.size();
    let [start, most] = room(class);
    let start = (start / node).clamp(2, NODES[0]);
    let most = (most / node).clamp(4, NODES[1]);
    (start << doublings.min(8)).min(most) as u32
}

/// How many nodes wait at most where objects come in the order of their addresses.
pub fn in_order(class: Class) -> u32 {
    (IN_ORDER / (class.batch() * class.size())) as u32
}

/// Whether one more doubling would change anything.
pub fn may_double(class: Class, doublings: u8) -> bool {
    limit(class, doublings.saturating_add(1)) > limit(class, doublings)
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use crate::transfer::stack::MAX_COUNT;

    #[test]
    fn bounded_at_first_and_for_ever() {
        for class in Class::all() {
            let node = class.batch() * class.size();
            let [start, most] = room(class);
            let first = limit(class, 0) as usize * node;
            assert!(first <= start.max(4 * node));
            assert!(first >= start / 4 || limit(class, 0) == NODES[0] as u32, "{class:?}");
            let mut doublings = 0;
            while may_double(class, doublings) {
                doublings += 1;
            }
            assert!(limit(class, doublings) as usize * node <= most.max(4 * node));
            assert!(limit(class, u8::MAX) <= MAX_COUNT);
        }
    }
}
