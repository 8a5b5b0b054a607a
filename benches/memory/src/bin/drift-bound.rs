//! What the program `drift` holds on an allocator that does not move blocks, whose memory serves one size class at a
//! time in units of so many bytes, and which is otherwise ideal: no caches, and a unit given back as soon as its last
//! block is freed. For each order in which units with room may be used; and what it would hold if a block could also
//! be a guest in a unit of smaller objects, on free neighbours that together are at most a quarter too long for it.
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

/// Plays the program on `heap`; answers the most that it held, over what is live.
fn peak(mut heap: impl Heap) -> f64 {
    let sizes: Vec<usize> = Class::all().map(Class::size).collect();
    let mut rng = Rng::new(7);
    let mut blocks: Vec<(usize, Place)> = Vec::new();
    let (mut live, mut most) = (0, 0);
    for step in 0..STEPS {
        let middle = 32 + (2200 - 32) * step / STEPS;
        let mut replaced = 0;
        while replaced < LIVE / 4 {
            let size = (middle * 3 / 4 + rng.below(middle / 2 + 1)).max(16);
            let class = sizes.partition_point(|&its| its < size);
            blocks.push((size, heap.take(class, sizes[class])));
            (live, replaced) = (live + size, replaced + size);
            while live > LIVE {
                let (size, place) = blocks.swap_remove(rng.below(blocks.len()));
                live -= size;
                heap.give(place);
            }
        }
        most = most.max(heap.held());
    }
    most as f64 / LIVE as f64
}

/// Where a block lies: its unit, and in that the first of its objects and their number.
#[derive(Clone, Copy)]
struct Place {
    unit: usize,
    at: usize,
    count: usize,
}

/// An allocator, as far as it decides what is held.
trait Heap {
    fn take(&mut self, class: usize, size: usize) -> Place;
    fn give(&mut self, place: Place);
    fn held(&self) -> usize;
}

/// One class a unit. An entry of `open` holds only while its rank is its unit's.
struct OneClass {
    unit_bytes: usize,
    rank: fn(usize, usize) -> usize,
    units: Vec<Unit>,
    open: Vec<BinaryHeap<(usize, usize)>>,
    held: usize,
}

impl Heap for OneClass {
    fn take(&mut self, class: usize, size: usize) -> Place {
        let Self { unit_bytes, rank, units, open, held } = self;
        let has_room = |&(its, at): &(usize, usize)| {
            let unit: &Unit = &units[at];
            (1..unit.objects).contains(&unit.live) && its == rank(at, unit.live)
        };
        while open[class].peek().is_some_and(|entry| !has_room(entry)) {
            open[class].pop();
        }
        let at = open[class].peek().map_or(units.len(), |&(_, at)| at);
        if at == units.len() {
            let bytes = size.max(*unit_bytes);
            units.push(Unit { class, live: 0, objects: bytes / size, bytes });
            *held += bytes;
        }
        units[at].live += 1;
        open[class].push((rank(at, units[at].live), at));
        Place { unit: at, at: 0, count: 1 }
    }

    fn give(&mut self, place: Place) {
        let unit = &mut self.units[place.unit];
        unit.live -= 1;
        match unit.live {
            // Given back; it is never used again.
            0 => self.held -= unit.bytes,
            left => self.open[unit.class].push(((self.rank)(place.unit, left), place.unit)),
        }
    }

    fn held(&self) -> usize {
        self.held
    }
}

/// A unit of objects of `size` bytes of which each is free or not.
struct Host {
    size: usize,
    free: Vec<bool>,
    live: usize,
}

impl Host {
    /// The first of `count` free neighbours, at an index that `every` divides.
    fn find(&self, count: usize, every: usize) -> Option<usize> {
        let mut at = 0;
        while at + count <= self.free.len() {
            match self.free[at..at + count].iter().rposition(|free| !free) {
                Some(taken) => at = (at + taken + 1).next_multiple_of(every),
                None => return Some(at),
            }
        }
        None
    }
}

/// Units whose free neighbours serve larger objects too. The first unit that has room is used.
struct Guests {
    unit_bytes: usize,
    hosts: Vec<Host>,
}

impl Heap for Guests {
    fn take(&mut self, _: usize, size: usize) -> Place {
        // An object is aligned to the largest power of two that divides its size.
        let aligned = |size: usize| 1 << size.trailing_zeros();
        let fits = |(unit, host): (usize, &Host)| {
            let count = size.div_ceil(host.size);
            let every = (aligned(size) / aligned(host.size)).max(1);
            let room = host.live > 0 && count * host.size <= size + size / 4;
            let at = if room { host.find(count, every) } else { None };
            at.map(|at| Place { unit, at, count })
        };
        let own = |(_, host): &(usize, &Host)| host.size == size;
        let hosts = || self.hosts.iter().enumerate();
        let found = hosts().filter(own).find_map(fits).or_else(|| hosts().find_map(fits));
        let place = found.unwrap_or_else(|| {
            let objects = self.unit_bytes.max(size) / size;
            let new = Host { size, free: vec![true; objects], live: 0 };
            // A unit without live objects has been given back.
            let unit = self.hosts.iter().position(|host| host.live == 0);
            let unit = unit.unwrap_or(self.hosts.len());
            match self.hosts.get_mut(unit) {
                Some(host) => *host = new,
                None => self.hosts.push(new),
            }
            Place { unit, at: 0, count: 1 }
        });
        let host = &mut self.hosts[place.unit];
        host.free[place.at..place.at + place.count].fill(false);
        host.live += place.count;
        place
    }

    fn give(&mut self, place: Place) {
        let host = &mut self.hosts[place.unit];
        host.free[place.at..place.at + place.count].fill(true);
        host.live -= place.count;
    }

    fn held(&self) -> usize {
        let bytes = |host: &Host| host.size.max(self.unit_bytes);
        self.hosts.iter().filter(|host| host.live > 0).map(bytes).sum()
    }
}

fn main() {
    for unit_bytes in [4 << 10, 32 << 10, 64 << 10] {
        for (order, rank) in ORDERS {
            let open = vec![BinaryHeap::new(); Class::all().count()];
            let heap = OneClass { unit_bytes, rank, units: Vec::new(), open, held: 0 };
            let peak = peak(heap);
            println!("units of {:2} KiB, {order}: {peak:.2} times what is live", unit_bytes >> 10);
        }
    }
    let peak = peak(Guests { unit_bytes: 32 << 10, hosts: Vec::new() });
    println!("units of 32 KiB, guests of other classes in them: {peak:.2} times what is live");
}
