//! Work that rayon users do, with contents that show whether memory was handed out twice, lost or
//! bent.
//!
//! The bench times it, the test runs it once; both check every result. Whatever is built carries a
//! pattern that follows from its place, so that two objects on the same bytes cannot both be right,
//! and everything that is checked is counted, so that a run that checked nothing is not a pass.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    thread::{self, ThreadId},
};

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

/// The numbers of threads that everything runs on: alone, a pair, and more than the machine has
/// cores.
pub const THREADS: [usize; 3] = [1, 2, 16];

/// How much of each kind of work.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Strings to sort.
    pub strings: usize,
    /// Rows of the nested vectors.
    pub rows: usize,
    /// Levels of the join tree.
    pub depth: u32,
    /// Parcels that each thread makes for another to drop.
    pub parcels: usize,
}

impl Scale {
    /// Enough for every thread to be at work at once, little enough for a debug build.
    pub const USUAL: Self = Self { strings: 100_000, rows: 4_000, depth: 15, parcels: 1_000 };
}

/// How much was checked: never zero after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Heap objects.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Checked {
    fn object(bytes: usize) -> Self {
        Self { objects: 1, bytes: bytes as u64 }
    }
}

impl std::ops::Add for Checked {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { objects: self.objects + other.objects, bytes: self.bytes + other.bytes }
    }
}

impl std::iter::Sum for Checked {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

/// Something was not what had been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt(pub String);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Corrupt {}

type Result<T> = std::result::Result<T, Corrupt>;

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Corrupt(what())) }
}

/// A pool of exactly so many threads.
pub fn pool(threads: usize) -> ThreadPool {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.expect("the system starts so few threads");
    assert_eq!(pool.current_num_threads(), threads);
    pool
}

/// Evenly distributed words, the same for the same seed. SplitMix64: no state but a counter, so
/// that any thread can say what another wrote.
fn draw(seed: u64, index: u64) -> u64 {
    let z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A fingerprint of a collection that does not depend on its order.
pub fn multiset_hash(strings: &[String]) -> u64 {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    strings.par_iter().map(|s| hasher.hash_one(s)).reduce(|| 0, u64::wrapping_add)
}

// Strings.

/// The string at `index`: 0 to 95 letters, more short ones than long ones.
fn string_at(index: usize) -> String {
    let index = index as u64;
    let length = draw(1, index) % (1 + draw(2, index) % 96);
    (0..length).map(|i| char::from(b'a' + (draw(3 + index, i) % 26) as u8)).collect()
}

/// Makes strings on all threads, sorts and copies them, checks both.
pub fn sort_strings(scale: Scale) -> Result<Checked> {
    let mut strings: Vec<String> = (0..scale.strings).into_par_iter().map(string_at).collect();
    let before = multiset_hash(&strings);
    strings.par_sort();
    // Copies are other objects: if one of them lies on a string, both cannot be right.
    let copies: Vec<String> = strings.par_iter().cloned().collect();
    check_sorted(&strings, scale.strings, before)?;
    expect(copies == strings, || "a copy differs from its string".into())?;
    Ok(strings.iter().map(|s| Checked::object(s.len())).sum())
}

/// Sorted, of that length, and the same strings as before.
pub fn check_sorted(strings: &[String], count: usize, hash: u64) -> Result<()> {
    expect(strings.len() == count, || format!("{} strings of {count}", strings.len()))?;
    expect(strings.is_sorted(), || "not sorted".into())?;
    expect(multiset_hash(strings) == hash, || "not the strings that went in".into())
}

// Nested vectors.

/// Vectors of vectors of words.
pub type Nested = Vec<Vec<Vec<u64>>>;

fn cell_length(row: usize, column: usize) -> usize {
    let skewed = 1 + draw(11, row as u64) % 128;
    (draw(12 + row as u64, column as u64) % skewed) as usize
}

fn columns(row: usize) -> usize {
    (draw(10, row as u64) % 24) as usize
}

fn word_at(row: usize, column: usize, i: usize) -> u64 {
    (row as u64) << 40 | (column as u64) << 20 | i as u64
}

/// Maps and collects, two levels deep, the inner vectors grown by pushes.
pub fn build_nested(rows: usize) -> Nested {
    let cell = |row, column| {
        let mut cell = Vec::new();
        for i in 0..cell_length(row, column) {
            cell.push(word_at(row, column, i));
        }
        cell
    };
    (0..rows)
        .into_par_iter()
        .map(|row| (0..columns(row)).into_par_iter().map(|column| cell(row, column)).collect())
        .collect()
}

/// Every length and every word.
pub fn check_nested(nested: &Nested, rows: usize) -> Result<Checked> {
    expect(nested.len() == rows, || format!("{} rows of {rows}", nested.len()))?;
    nested
        .par_iter()
        .enumerate()
        .map(|(row, cells)| {
            expect(cells.len() == columns(row), || format!("length of row {row}"))?;
            let mut checked = Checked::object(size_of_val(&cells[..]));
            for (column, cell) in cells.iter().enumerate() {
                let right = cell.len() == cell_length(row, column)
                    && (0..).zip(cell).all(|(i, &w)| w == word_at(row, column, i));
                expect(right, || format!("row {row}, column {column}: {cell:?}"))?;
                checked = checked + Checked::object(size_of_val(&cell[..]));
            }
            Ok(checked)
        })
        .sum()
}

/// Builds, transforms in place on all threads and back, checks, drops in parallel.
pub fn map_collect(scale: Scale) -> Result<Checked> {
    let mut nested = build_nested(scale.rows);
    let flip = |cell: &mut Vec<u64>| cell.iter_mut().for_each(|w| *w = !*w);
    nested.par_iter_mut().flatten().for_each(flip);
    // A reallocation up and one down for every cell, between the two flips.
    nested.par_iter_mut().flatten().for_each(|cell| {
        let length = cell.len();
        cell.resize(3 * length + 1, u64::MAX);
        cell.truncate(length);
        cell.shrink_to_fit();
        flip(cell);
    });
    let checked = check_nested(&nested, scale.rows)?;
    nested.into_par_iter().for_each(drop);
    Ok(checked)
}

// Join trees.

/// A node of a complete binary tree; `label` numbers the nodes as in a heap, `load` repeats it.
pub struct Tree {
    label: u64,
    load: Vec<u64>,
    children: Option<(Box<Tree>, Box<Tree>)>,
}

fn load_length(label: u64) -> usize {
    (draw(20, label) % 33) as usize
}

impl Tree {
    /// For the test of the check: the label of a leaf changes.
    #[allow(dead_code, reason = "the bench has no use for it")]
    pub fn spoil_a_leaf(&mut self) {
        match &mut self.children {
            Some((_, right)) => right.spoil_a_leaf(),
            None => self.label += 1,
        }
    }
}

/// Builds by `rayon::join`.
pub fn grow(label: u64, depth: u32) -> Box<Tree> {
    Box::new(Tree {
        label,
        load: vec![label; load_length(label)],
        children: (depth > 1)
            .then(|| rayon::join(|| grow(2 * label, depth - 1), || grow(2 * label + 1, depth - 1))),
    })
}

/// Checks by `rayon::join`: labels, loads and shape.
pub fn check_tree(tree: &Tree, label: u64, depth: u32) -> Result<Checked> {
    expect(tree.label == label, || format!("label {} at {label}", tree.label))?;
    let right = tree.load.len() == load_length(label) && tree.load.iter().all(|&w| w == label);
    expect(right, || format!("load of {label}: {:?}", tree.load))?;
    expect(tree.children.is_some() == (depth > 1), || format!("children of {label}"))?;
    let own = Checked::object(size_of::<Tree>()) + Checked::object(size_of_val(&tree.load[..]));
    let Some((left, right)) = &tree.children else {
        return Ok(own);
    };
    let (left, right) = rayon::join(
        || check_tree(left, 2 * label, depth - 1),
        || check_tree(right, 2 * label + 1, depth - 1),
    );
    Ok(own + left? + right?)
}

/// Frees by `rayon::join`, so that nodes die on other threads than they were born on.
fn fell(tree: Tree) {
    if let Some((left, right)) = tree.children {
        rayon::join(|| fell(*left), || fell(*right));
    }
}

/// Grows, checks and fells a tree.
pub fn join_trees(scale: Scale) -> Result<Checked> {
    let tree = grow(1, scale.depth);
    let checked = check_tree(&tree, 1, scale.depth)?;
    fell(*tree);
    let nodes = (1 << scale.depth) - 1;
    expect(checked.objects == 2 * nodes, || {
        format!("{} objects of {}", checked.objects, 2 * nodes)
    })?;
    Ok(checked)
}

// Parcels.

/// Something that one thread makes and another drops: several objects of several kinds and sizes.
pub struct Parcel<'a> {
    stamp: u64,
    maker: ThreadId,
    bytes: Box<[u8]>,
    name: String,
    #[expect(clippy::vec_box, reason = "many small objects are the point")]
    words: Vec<Box<u64>>,
    alive: &'a AtomicI64,
}

/// Mostly small, one in sixteen up to 64 KiB.
fn parcel_length(stamp: u64) -> usize {
    let large = draw(30, stamp).is_multiple_of(16);
    (draw(31, stamp) % if large { 65536 } else { 768 }) as usize
}

impl<'a> Parcel<'a> {
    /// Made on the current thread.
    pub fn new(stamp: u64, alive: &'a AtomicI64) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self {
            stamp,
            maker: thread::current().id(),
            bytes: vec![stamp as u8; parcel_length(stamp)].into(),
            name: format!("parcel {stamp}"),
            words: (0..stamp % 8).map(|i| Box::new(stamp ^ i)).collect(),
            alive,
        }
    }

    /// Everything as it was made, and by another thread than this one.
    pub fn check(&self, stamp: u64) -> Result<Checked> {
        let maker = self.maker;
        expect(maker != thread::current().id(), || {
            format!("parcel {stamp} never left its thread")
        })?;
        let length = parcel_length(stamp);
        let right = self.stamp == stamp
            && self.bytes.len() == length
            && self.bytes.iter().all(|&b| b == stamp as u8)
            && self.name == format!("parcel {stamp}")
            && self.words.len() as u64 == stamp % 8
            && (0..).zip(&self.words).all(|(i, w)| **w == stamp ^ i);
        expect(right, || format!("parcel {stamp} is not as it was made"))?;
        Ok(Checked::object(length)
            + Checked::object(self.name.len())
            + self.words.iter().map(|_| Checked::object(8)).sum())
    }
}

impl Parcel<'_> {
    /// For the test of the check: a byte of one of the objects changes.
    #[allow(dead_code, reason = "the bench has no use for it")]
    pub fn spoil(&mut self) {
        *self.words[0] ^= 1;
    }
}

impl Drop for Parcel<'_> {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each thread of one pool makes parcels, each thread of another checks and drops all that one
/// maker made, then the two pools change roles. Nothing is dropped where it was made.
pub fn cross_drops(makers: &ThreadPool, droppers: &ThreadPool, scale: Scale) -> Result<Checked> {
    let there = ship(makers, droppers, scale.parcels, 0)?;
    let back = ship(droppers, makers, scale.parcels, 1 << 32)?;
    Ok(there + back)
}

fn ship(from: &ThreadPool, to: &ThreadPool, parcels: usize, first: u64) -> Result<Checked> {
    let threads = from.current_num_threads();
    assert_eq!(threads, to.current_num_threads());
    let alive = AtomicI64::new(0);
    let stamp = |thread: usize, i: usize| first + (thread * parcels + i) as u64;

    let made: Vec<Vec<Parcel<'_>>> = from.broadcast(|context| {
        (0..parcels).map(|i| Parcel::new(stamp(context.index(), i), &alive)).collect()
    });
    let total = (threads * parcels) as i64;
    expect(alive.load(Ordering::Relaxed) == total, || {
        format!("{alive:?} parcels made of {total}")
    })?;

    let shipments: Vec<_> = made.into_iter().map(|s| Mutex::new(Some(s))).collect();
    let checked: Vec<Result<(ThreadId, Checked)>> = to.broadcast(|context| {
        let thread = context.index();
        let shipment = shipments[thread].lock().ok().and_then(|mut s| s.take());
        let shipment = shipment.ok_or_else(|| Corrupt("a shipment is gone".into()))?;
        expect(shipment.len() == parcels, || "parcels are missing".into())?;
        let mut checked = Checked::default();
        // Every other one first: not in the order they were made.
        let (even, odd): (Vec<_>, Vec<_>) =
            shipment.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
        for (i, parcel) in even.into_iter().chain(odd) {
            checked = checked + parcel.check(stamp(thread, i))?;
        }
        Ok((thread::current().id(), checked))
    });
    let checked: Vec<_> = checked.into_iter().collect::<Result<_>>()?;

    let droppers: HashSet<ThreadId> = checked.iter().map(|(id, _)| *id).collect();
    expect(droppers.len() == threads, || {
        format!("{} of {threads} threads dropped", droppers.len())
    })?;
    expect(alive.load(Ordering::Relaxed) == 0, || format!("{alive:?} parcels left"))?;
    Ok(checked.into_iter().map(|(_, c)| c).sum())
}
