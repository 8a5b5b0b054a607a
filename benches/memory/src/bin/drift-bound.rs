//! What the program `drift` holds on an allocator that does not move blocks, whose memory serves one size class at a
//! time in units of so many bytes, and which is otherwise ideal: no caches, and a unit given back as soon as its last
//! block is freed. For each order in which units with room may be used.
//!
//! ```sh
//! cargo run --release -p memory --bin drift-bound
//! ```

use memory::work::Rng;
use spandrel::base::classes::Class;
use std::collections::BinaryHeap;

/// As in the program, a tenth of it.
const LIVE: usize = 4_000_000;
const STEPS: usize = 200;

struct Unit {
    class: usize,
    live: usize,
    objects: usize,
    bytes: usize,
}

/// Which of the units with room goes first: the one whose number or load makes this largest.
type Order = (&'static str, fn(unit: usize, live: usize) -> usize);

const ORDERS: [Order; 3] = [
    ("the oldest first", |unit, _| usize::MAX - unit),
    ("the fullest first", |_, live| live),
    ("the newest first", |unit, _| unit),
];

fn peak(unit_bytes: usize, rank: fn(usize, usize) -> usize) -> f64 {
    let sizes: Vec<usize> = Class::all().map(Class::size).collect();
    let mut rng = Rng::new(7);
    let mut units: Vec<Unit> = Vec::new();
    // By class, what may have room. An entry holds only while its rank is its unit's.
    let mut open: Vec<BinaryHeap<(usize, usize)>> = vec![BinaryHeap::new(); sizes.len()];
    let mut blocks: Vec<(usize, usize)> = Vec::new();
    let (mut live, mut held, mut most) = (0, 0, 0);
    for step in 0..STEPS {
        let middle = 32 + (2200 - 32) * step / STEPS;
        let mut replaced = 0;
        while replaced < LIVE / 4 {
            let size = (middle * 3 / 4 + rng.below(middle / 2 + 1)).max(16);
            let class = sizes.partition_point(|&its| its < size);
            let has_room = |&(its, at): &(usize, usize)| {
                let unit: &Unit = &units[at];
                (1..unit.objects).contains(&unit.live) && its == rank(at, unit.live)
            };
            while open[class].peek().is_some_and(|entry| !has_room(entry)) {
                open[class].pop();
            }
            let at = open[class].peek().map_or(units.len(), |&(_, at)| at);
            if at == units.len() {
                let bytes = unit_bytes.max(sizes[class]);
                units.push(Unit { class, live: 0, objects: bytes / sizes[class], bytes });
                held += bytes;
            }
            units[at].live += 1;
            open[class].push((rank(at, units[at].live), at));
            blocks.push((size, at));
            (live, replaced) = (live + size, replaced + size);
            while live > LIVE {
                let (size, at) = blocks.swap_remove(rng.below(blocks.len()));
                live -= size;
                units[at].live -= 1;
                match units[at].live {
                    // Given back; it is never used again.
                    0 => held -= units[at].bytes,
                    left => open[units[at].class].push((rank(at, left), at)),
                }
            }
        }
        most = most.max(held);
    }
    most as f64 / LIVE as f64
}

fn main() {
    for bytes in [4 << 10, 32 << 10, 64 << 10] {
        for (order, rank) in ORDERS {
            let peak = peak(bytes, rank);
            println!("units of {:2} KiB, {order}: {peak:.2} times what is live", bytes >> 10);
        }
    }
}
