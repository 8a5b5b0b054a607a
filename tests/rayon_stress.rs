//! The work of the `rayon_stress` bench, once and without a clock: what counts is that every byte
//! is what was written. Each check is also shown something wrong, and must say so.

#[path = "../benches/common/rayon_work.rs"]
mod rayon_work;

use std::{sync::atomic::AtomicI64, thread};

use rayon_work::{Checked, Scale, THREADS};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

const SCALE: Scale = Scale::USUAL;

/// Runs again and again in one process, so that each round is built from what the last one freed.
const ROUNDS: u32 = 3;

/// The objects that a round of `work` checks, the same in every round and on any number of threads.
fn same_everywhere(work: impl Fn() -> Result<Checked, rayon_work::Corrupt> + Sync) -> Checked {
    let mut seen: Option<Checked> = None;
    for threads in THREADS {
        let pool = rayon_work::pool(threads);
        for round in 0..ROUNDS {
            let checked = pool
                .install(&work)
                .unwrap_or_else(|e| panic!("{threads} threads, round {round}: {e}"));
            assert_eq!(*seen.get_or_insert(checked), checked, "{threads} threads");
        }
    }
    seen.expect("something ran")
}

#[test]
fn strings_sort() {
    let checked = same_everywhere(|| rayon_work::sort_strings(SCALE));
    assert_eq!(checked.objects, SCALE.strings as u64);
    assert!(checked.bytes > 10 * checked.objects, "{checked:?}");
}

#[test]
fn nested_vectors_collect() {
    let checked = same_everywhere(|| rayon_work::map_collect(SCALE));
    assert!(checked.objects > 5 * SCALE.rows as u64, "{checked:?}");
    assert!(checked.bytes > 100 * checked.objects, "{checked:?}");
}

#[test]
fn join_trees_grow_and_fall() {
    let checked = same_everywhere(|| rayon_work::join_trees(SCALE));
    assert_eq!(checked.objects, 2 * ((1 << SCALE.depth) - 1));
}

#[test]
fn others_drop_what_a_thread_made() {
    for threads in THREADS {
        let (makers, droppers) = (rayon_work::pool(threads), rayon_work::pool(threads));
        for round in 0..ROUNDS {
            let checked = rayon_work::cross_drops(&makers, &droppers, SCALE)
                .unwrap_or_else(|e| panic!("{threads} threads, round {round}: {e}"));
            let parcels = (2 * threads * SCALE.parcels) as u64;
            assert!(checked.objects >= 2 * parcels, "{checked:?}");
        }
    }
}

/// All four at once, in pools of their own, so that they feed on each other's memory.
#[test]
fn everything_at_once() {
    let pools: Vec<_> = THREADS.map(rayon_work::pool).into();
    let spare = rayon_work::pool(2);
    thread::scope(|scope| {
        let sort = scope.spawn(|| pools[0].install(|| rayon_work::sort_strings(SCALE)));
        let nest = scope.spawn(|| pools[2].install(|| rayon_work::map_collect(SCALE)));
        let join = scope.spawn(|| pools[2].install(|| rayon_work::join_trees(SCALE)));
        let ship = scope.spawn(|| rayon_work::cross_drops(&pools[1], &spare, SCALE));
        for worker in [sort, nest, join, ship] {
            let checked = worker.join().expect("no panic").expect("no corruption");
            assert!(checked.objects > 0 && checked.bytes > 0);
        }
    });
}

#[test]
fn the_checks_see_corruption() {
    let strings: Vec<String> = ["a", "b", "c"].map(String::from).into();
    let hash = rayon_work::multiset_hash(&strings);
    assert!(rayon_work::check_sorted(&strings, 3, hash).is_ok());
    assert!(rayon_work::check_sorted(&strings, 4, hash).is_err());
    for wrong in [["a", "a", "c"], ["b", "a", "c"], ["a", "b", "d"]] {
        let wrong: Vec<String> = wrong.map(String::from).into();
        assert!(rayon_work::check_sorted(&wrong, 3, hash).is_err());
    }

    let rows = 50;
    let mut nested = rayon_work::build_nested(rows);
    assert!(rayon_work::check_nested(&nested, rows).is_ok());
    assert!(rayon_work::check_nested(&nested, rows + 1).is_err());
    let word = nested.iter_mut().flatten().flatten().last();
    *word.expect("fifty rows hold a word") ^= 1;
    assert!(rayon_work::check_nested(&nested, rows).is_err());

    let mut tree = rayon_work::grow(1, 5);
    assert!(rayon_work::check_tree(&tree, 1, 5).is_ok());
    assert!(rayon_work::check_tree(&tree, 1, 6).is_err());
    assert!(rayon_work::check_tree(&tree, 2, 5).is_err());
    tree.spoil_a_leaf();
    assert!(rayon_work::check_tree(&tree, 1, 5).is_err());

    let alive = AtomicI64::new(0);
    let parcel = rayon_work::Parcel::new(7, &alive);
    let stays = parcel.check(7).expect_err("it is still on its thread");
    assert!(stays.0.contains("never left"), "{stays}");
    thread::scope(|scope| {
        let away = scope.spawn(move || {
            let mut parcel = parcel;
            assert!(parcel.check(7).is_ok());
            assert!(parcel.check(8).is_err());
            parcel.spoil();
            assert!(parcel.check(7).is_err());
        });
        away.join().expect("the checks on the other thread");
    });
    assert_eq!(alive.into_inner(), 0);
}
