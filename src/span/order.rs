//! In what order a batch comes home: guesses, as cheap as they can be, which decide how it is given back.

use crate::base::classes::Class;

/// Whether to sort objects that come home, so that those of one word of bits are neighbours: not if they are
/// so already, as where a program drops what it built, nor if they come from so many words that hardly two
/// share one.
pub(super) fn worth_sorting(class: Class, objects: &[*mut u8]) -> bool {
    let shift = (64 * class.size()).min(class.span_bytes()).ilog2();
    let (mut turns, mut low, mut high, mut last) = (0, usize::MAX, 0, 0);
    for object in objects {
        let word = object.addr() >> shift;
        turns += usize::from(word != last);
        (low, high, last) = (low.min(word), high.max(word), word);
    }
    turns * 4 > objects.len() && high - low < objects.len() * SPREAD
}

/// Whether objects lie so nearly in a row that they go home by a few exchanges. A guess, from one of a few.
pub fn are_neighbours(class: Class, objects: &[*mut u8]) -> bool {
    let near = STEP * 4 * class.size();
    let steps = objects.windows(STEP + 1).step_by(STEP);
    let wide = |step: &[*mut u8]| step[0].addr().abs_diff(step[STEP].addr()) > near;
    objects.len() > 2 * STEP && steps.map(wide).filter(|&wide| wide).nth(1).is_none()
}

/// Of how many objects one is looked at, to see whether they are neighbours.
const STEP: usize = 8;

/// A batch from this many times as many words of bits as it has objects is not sorted.
const SPREAD: usize = 4;

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use core::ptr;

    /// A batch of the class, an object every so many, the turns of `swap` exchanged.
    fn batch(class: Class, every: usize, swap: impl Fn(usize) -> usize) -> Vec<*mut u8> {
        let address = |i: usize| (1 << 30) + swap(i) * every * class.size();
        (0..class.batch()).map(|i| ptr::without_provenance_mut(address(i))).collect()
    }

    #[test]
    fn neighbours_and_others() {
        let class = Class::of(64, 8).unwrap();
        let count = class.batch();
        assert!(are_neighbours(class, &batch(class, 1, |i| i)), "in a row");
        assert!(are_neighbours(class, &batch(class, 1, |i| count - i)), "backwards");
        assert!(are_neighbours(class, &batch(class, 2, |i| i)), "every second");
        let jump = |i: usize| if i < count / 2 { i } else { i + 100_000 };
        assert!(are_neighbours(class, &batch(class, 1, jump)), "from two spans");
        assert!(!are_neighbours(class, &batch(class, 5, |i| i)), "far apart");
        assert!(!are_neighbours(class, &batch(class, 1, |i| i * 7919 % 1009)), "scattered");
        assert!(!are_neighbours(class, &batch(class, 1, |i| i)[..2 * STEP]), "too few to tell");
        assert!(!are_neighbours(class, &[]));
    }

    #[test]
    fn sorted_where_that_makes_neighbours() {
        let class = Class::of(64, 8).unwrap();
        assert!(!worth_sorting(class, &batch(class, 1, |i| i)), "they are");
        assert!(worth_sorting(class, &batch(class, 1, |i| i * 97 % 151)), "from a few words");
        assert!(
            !worth_sorting(class, &batch(class, 1, |i| i * 7_919_000 % 10_000_019)),
            "from anywhere"
        );
    }
}
