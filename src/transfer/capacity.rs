//! How many nodes of a class the transfer cache keeps. Pure functions.

use crate::base::classes::Class;

/// Nodes a class starts with room for, and never has room for more than. A program that frees some MiB of
/// small objects and takes them again pays 3.6 ns an object through here and 21 through the spans (the
/// row `shuffled/t1` of the peers, with 16 and 128 nodes).
const NODES: [usize; 2] = [64, 512];
/// Nodes there is room for where the most would hold only a part of what comes and is wanted again: of a wave in
/// random order any part keeps nearly all spans, and saves as little as it is small.
const FEW: u32 = 16;
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

/// Nodes that a class has room for at first and at most.
fn bounds(class: Class) -> [u32; 2] {
    let node = class.batch() * class.size();
    let [first, most] = if class.size() > LARGER_THAN { LARGER } else { BYTES };
    [(first / node).clamp(2, NODES[0]) as u32, (most / node).clamp(4, NODES[1]) as u32]
}

/// Nodes that a class has room for at first.
pub fn at_first(class: Class) -> u32 {
    bounds(class)[0]
}

/// The room for a class that found no node and had `refused` of them refused since it last found none: what
/// would have held them all, or at least four in five; else a few.
pub fn after_miss(class: Class, room: u32, refused: u32) -> u32 {
    let [_, most] = bounds(class);
    match room.saturating_add(refused) {
        all if all <= most + most / 4 => all.min(most),
        _ => FEW.min(most),
    }
}

/// The room for a class of which some was not wanted.
pub fn after_trim(class: Class, room: u32) -> u32 {
    let first = at_first(class);
    if room > first { (room / 2).max(first) } else { room }
}

/// How many nodes wait at most where objects come in the order of their addresses.
pub fn in_order(class: Class) -> u32 {
    (IN_ORDER / (class.batch() * class.size())) as u32
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use crate::transfer::stack::MAX_COUNT;

    #[test]
    fn bounded_at_first_and_for_ever() {
        for class in Class::all() {
            let node = class.batch() * class.size();
            let [first, most] = if class.size() > LARGER_THAN { LARGER } else { BYTES };
            let room = at_first(class);
            assert!(room as usize * node <= first.max(4 * node));
            assert!(room as usize * node >= first / 4 || room == NODES[0] as u32, "{class:?}");
            for refused in (0..2000).chain([u32::MAX]) {
                for from in [0, FEW, room] {
                    let next = after_miss(class, from, refused);
                    assert!(next <= MAX_COUNT && next as usize * node <= most.max(4 * node));
                }
            }
        }
    }

    #[test]
    fn room_for_what_fits_and_little_for_what_does_not() {
        let class = Class::of(16, 8).unwrap();
        let [first, most] = bounds(class);
        assert_eq!((first, most), (64, 512));
        assert_eq!(after_miss(class, first, 0), first);
        assert_eq!(after_miss(class, first, 100), 164, "all of a wave");
        assert_eq!(after_miss(class, first, most), most, "most of it");
        assert_eq!(after_miss(class, first, 2 * most), FEW, "a small part");
        // So it stays while the waves do, and grows with the first that fits.
        assert_eq!(after_miss(class, FEW, 2 * most), FEW);
        assert_eq!(after_miss(class, FEW, 100), 116);

        assert_eq!(after_trim(class, most), most / 2);
        assert_eq!(after_trim(class, first + 1), first);
        assert_eq!(after_trim(class, FEW), FEW);
    }
}
