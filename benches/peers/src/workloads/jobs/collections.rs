//! Group 5: collections, built and dropped. None is dropped before all are built, so that the peak
//! of memory does not depend on who runs when.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Barrier,
    thread,
};

use super::{
    Job,
    threads::{on_threads, share},
};
use crate::meter::{Meter, Spent};

struct Node {
    key: u64,
    left: Option<Box<Node>>,
    right: Option<Box<Node>>,
}

/// A balanced tree of the keys from `first` on.
fn grow(first: u64, count: u64) -> Option<Box<Node>> {
    if count == 0 {
        return None;
    }
    let half = count / 2;
    let left = grow(first, half);
    let right = grow(first + half + 1, count - half - 1);
    Some(Box::new(Node { key: first + half, left, right }))
}

/// Checks the order of the keys; returns how many there are.
fn walk(tree: &Option<Box<Node>>, expected: u64) -> u64 {
    let Some(node) = tree else { return 0 };
    let left = walk(&node.left, expected);
    assert_eq!(node.key, expected + left, "a node is not as it was left");
    left + 1 + walk(&node.right, node.key + 1)
}

/// A tree per thread, built, walked and dropped by it when all are built. An operation is a node.
pub(super) fn tree(job: &Job) -> Spent {
    let nodes = share(job.amount, job.threads);
    let meter = Meter::process();
    let built = Barrier::new(job.threads);
    on_threads(job.threads, &|_| {
        let tree = grow(1, nodes);
        built.wait();
        assert_eq!(walk(&tree, 1), nodes);
    });
    meter.stop(nodes * job.threads as u64)
}

/// A tree built by one thread and dropped by another.
pub(super) fn tree_handoff(job: &Job) -> Spent {
    let nodes = job.amount;
    let meter = Meter::process();
    let tree = thread::spawn(move || grow(1, nodes)).join().expect("it grows");
    assert_eq!(walk(&tree, 1), nodes);
    drop(tree);
    meter.stop(nodes)
}

/// A key that looks like none of its neighbours.
fn key(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// 8 to 135 bytes.
fn value(number: u64) -> String {
    let length = 8 + (number.wrapping_mul(0xd134_2543_de82_ef95) >> 57) as usize;
    char::from(b'a' + (number % 26) as u8).to_string().repeat(length)
}

/// One text for every kind of map that has these methods: strings in, every other one out and in
/// again, all checked.
macro_rules! strings {
    ($map:expr, $count:expr) => {{
        let mut map = $map;
        for n in 0..$count {
            map.insert(key(n), value(n));
        }
        for n in (0..$count).step_by(2) {
            assert!(map.remove(&key(n)).is_some_and(|v| v == value(n)), "value {n}");
        }
        for n in (0..$count).step_by(2) {
            map.insert(key(n), value(n));
        }
        assert_eq!(map.len() as u64, $count);
        for n in (0..$count).step_by(7) {
            assert!(map.get(&key(n)).is_some_and(|v| *v == value(n)), "value {n}");
        }
        map
    }};
}

/// A `BTreeMap` of strings per thread. An operation is an entry of the map.
pub(super) fn btree(job: &Job) -> Spent {
    let entries = share(job.amount, job.threads);
    let meter = Meter::process();
    let built = Barrier::new(job.threads);
    on_threads(job.threads, &|_| {
        let map = strings!(BTreeMap::new(), entries);
        built.wait();
        drop(map);
    });
    meter.stop(entries * job.threads as u64)
}

/// A `HashMap` of strings per thread. An operation is an entry of the map.
pub(super) fn hash(job: &Job) -> Spent {
    let entries = share(job.amount, job.threads);
    let meter = Meter::process();
    let built = Barrier::new(job.threads);
    on_threads(job.threads, &|_| {
        let map = strings!(HashMap::new(), entries);
        built.wait();
        drop(map);
    });
    meter.stop(entries * job.threads as u64)
}

/// A `HashMap` of strings built by one thread and dropped by another.
pub(super) fn hash_handoff(job: &Job) -> Spent {
    let entries = job.amount;
    let meter = Meter::process();
    let map = thread::spawn(move || strings!(HashMap::new(), entries)).join();
    drop(map.expect("it is as it should be"));
    meter.stop(entries)
}

/// Persistent maps, of which every 256th version is kept and looked into again when 16 more have
/// been. An operation is an insertion or a removal, which copies a path of the tree.
pub(super) fn persistent(job: &Job) -> Spent {
    let updates = share(job.amount, job.threads);
    let meter = Meter::process();
    on_threads(job.threads, &|_| versions(updates));
    meter.stop(updates * job.threads as u64)
}

fn versions(updates: u64) {
    let mut map = imbl::OrdMap::<u64, u64>::new();
    let mut kept = std::collections::VecDeque::new();
    for n in 0..updates {
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        map.insert(spread, n);
        // Once in four, one of those before goes.
        if n % 4 == 3 {
            let gone = (n / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(map.remove(&gone).is_none_or(|old| old == n / 2));
        }
        if n % 256 == 0 {
            kept.push_back((n, map.clone()));
        }
        if kept.len() > 16
            && let Some((then, version)) = kept.pop_front()
        {
            let newest = then.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(version.get(&newest), Some(&then), "version {then}");
            assert!(!version.contains_key(&newest.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        }
    }
}
