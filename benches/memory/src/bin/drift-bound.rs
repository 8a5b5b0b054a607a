//! What the program `drift` must hold on any allocator that does not move blocks and whose memory serves one size
//! class at a time, in units of so many bytes: no caches, always the oldest unit with room, a unit given back as soon
//! as its last block is freed.
//!
//! ```sh
//! cargo run --release -p memory --bin drift-bound
//! ```

use memory::work::Rng;
use spandrel::base::classes::Class;
use std::cmp::Reverse;
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

fn peak(unit_bytes: usize) -> f64 {
    let sizes: Vec<usize> = Class::all().map(Class::size).collect();
    let mut rng = Rng::new(7);
    let mut units: Vec<Unit> = Vec::new();
    // By class, what may have room, the oldest first.
    let mut open: Vec<BinaryHeap<Reverse<usize>>> = vec![BinaryHeap::new(); sizes.len()];
    let mut blocks: Vec<(usize, usize)> = Vec::new();
    let (mut live, mut held, mut most) = (0, 0, 0);
    for step in 0..STEPS {
        let middle = 32 + (2200 - 32) * step / STEPS;
        let mut replaced = 0;
        while replaced < LIVE / 4 {
            let size = (middle * 3 / 4 + rng.below(middle / 2 + 1)).max(16);
            let class = sizes.partition_point(|&its| its < size);
            let unit = loop {
                match open[class].peek() {
                    Some(&Reverse(unit))
                        if (1..units[unit].objects).contains(&units[unit].live) =>
                    {
                        break unit;
                    }
                    Some(_) => drop(open[class].pop()),
                    None => {
                        let objects = (unit_bytes / sizes[class]).max(1);
                        let bytes = unit_bytes.max(sizes[class]);
                        units.push(Unit { class, live: 0, objects, bytes });
                        held += bytes;
                        open[class].push(Reverse(units.len() - 1));
                        break units.len() - 1;
                    }
                }
            };
            units[unit].live += 1;
            blocks.push((size, unit));
            (live, replaced) = (live + size, replaced + size);
            while live > LIVE {
                let (size, unit) = blocks.swap_remove(rng.below(blocks.len()));
                live -= size;
                units[unit].live -= 1;
                match units[unit].live {
                    // Given back; it is never used again.
                    0 => held -= units[unit].bytes,
                    _ => open[units[unit].class].push(Reverse(unit)),
                }
            }
        }
        most = most.max(held);
    }
    most as f64 / LIVE as f64
}

fn main() {
    for bytes in [4 << 10, 32 << 10, 64 << 10] {
        println!("units of {:2} KiB: at least {:.2} times what is live", bytes >> 10, peak(bytes));
    }
}
