//! Spans, the transfer cache and the thread caches on the fake system.

mod common;

use common::tower::{Hand, Object, PAGE_SIZES, Tower, fake, pages, spans, tower};
use common::{KIB, MIB, Rng, rng};
use spandrel::Stats;
use spandrel::base::classes::Class;
use spandrel::base::units::{BATCH, HUGEPAGE};
use spandrel::cache::sizing;
use spandrel::os::Os;
use spandrel::span::Objects;
use spandrel::transfer::capacity;
use std::ptr;
use std::sync::Mutex;
use std::thread;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

fn class(size: usize) -> Class {
    Class::of(size, 8).expect("a class")
}

/// Up to `count` objects from a floor.
#[track_caller]
fn take(floor: &impl Objects, class: Class, count: usize) -> Vec<Object> {
    let mut out = [ptr::null_mut(); BATCH];
    let got = floor.take(class, &mut out[..count]);
    out[..got].iter().map(|&at| Object::new(class, at)).collect()
}

#[track_caller]
fn give(floor: &impl Objects, objects: Vec<Object>) {
    let Some(first) = objects.first() else { return };
    let class = first.class;
    let mut out: Vec<_> = objects.into_iter().map(Object::let_go).collect();
    out.chunks_mut(BATCH).for_each(|batch| floor.give(class, batch));
}

/// The books of the spans and the page heap balance, and `held` objects are out.
#[track_caller]
fn balanced(tower: &Tower, held: usize) {
    match spans(tower).check() {
        Ok(out) => assert_eq!(out, held, "objects that are not free in a span"),
        Err(broken) => panic!("{broken:?}"),
    }
    let stats = Stats::of(tower);
    assert_eq!(stats.accounted(), stats.mapped, "{stats}");
}

// ---- spans ----

#[test]
fn spans_give_what_they_took_back_of_every_class() {
    for page_size in PAGE_SIZES {
        let tower = tower(page_size);
        let floor = spans(tower);
        let mut rng = Rng::new(rng::seed() ^ page_size as u64);
        let mut held: Vec<Vec<Object>> = Vec::new();
        for step in 0..4000 * rng::factor() {
            if held.len() < 150 && rng.below(5) < 3 {
                let class = Class::from_index(rng.below(50));
                let count = 1 + rng.below(class.batch());
                let got = take(floor, class, count);
                assert_eq!(got.len(), count, "memory is there, so no batch is short");
                held.push(got);
            } else if !held.is_empty() {
                let batch = held.swap_remove(rng.below(held.len()));
                give(floor, batch);
            }
            if step % 500 == 0 {
                balanced(tower, held.iter().map(Vec::len).sum());
            }
        }
        held.into_iter().for_each(|batch| give(floor, batch));
        balanced(tower, 0);
        // Every span went back, and their granules are put together again.
        let counts = floor.counts();
        assert!(counts.begun > 100, "{counts:?}");
        assert_eq!(counts.begun, counts.died);
        assert!(
            pages(tower)
                .windows()
                .all(|window| window.look(spandrel::base::units::Hugepage(0)).whole)
        );
    }
}

#[test]
fn lowest_objects_first_and_listed_only_where_it_pays() {
    let tower = tower(4 * KIB);
    let floor = spans(tower);
    let class = class(64);
    let objects = class.shape().objects as usize;
    let mut all = Vec::new();
    while all.len() < objects {
        let mut batch = take(floor, class, BATCH.min(objects - all.len()));
        // A cache hands out from the end.
        batch.reverse();
        all.extend(batch);
    }
    assert!(all.is_sorted_by_key(Object::addr), "the addresses rise as they are handed out");
    assert_eq!(floor.counts().begun, 1, "one span holds them");
    let start = all[0].addr();
    // Less than an eighth of the span is not worth a search: a new span begins.
    let few: Vec<_> = all.drain(100..100 + objects / 8 - 1).collect();
    give(floor, few);
    let fresh = take(floor, class, 1);
    assert_eq!(floor.counts().begun, 2);
    give(floor, fresh);
    assert_eq!(floor.counts().died, 1);
    // One more is: the lowest objects come out first, those of the second give before the first's.
    give(floor, vec![all.remove(7)]);
    let again = take(floor, class, 3);
    assert_eq!(floor.counts().begun, 2, "the first span serves again");
    let places: Vec<_> = again.iter().map(|object| (object.addr() - start) / 64).collect();
    assert_eq!(places, [101, 100, 7]);
    give(floor, again);
    give(floor, all);
    balanced(tower, 0);
}

/// Before the answer is no, what was not worth listing is found all the same.
#[test]
fn the_last_free_object_is_found() {
    let tower = tower(4 * KIB);
    let floor = spans(tower);
    fake(tower).limit(60 * MIB);
    for size in [32, 1024, 4480, 32 * KIB] {
        let class = class(size);
        let mut all = Vec::new();
        loop {
            let got = take(floor, class, BATCH);
            if got.is_empty() {
                break;
            }
            all.extend(got);
        }
        assert!(all.len() * size > 12 * MIB, "{} objects of {size}", all.len());
        for place in [0, all.len() / 2, all.len() - 1] {
            let object = all.swap_remove(place);
            let addr = object.addr();
            give(floor, vec![object]);
            let found = take(floor, class, BATCH);
            assert_eq!(found.iter().map(Object::addr).collect::<Vec<_>>(), [addr]);
            all.extend(found);
        }
        assert!(take(floor, class, 1).is_empty());
        balanced(tower, all.len());
        give(floor, all);
        balanced(tower, 0);
    }
}

/// Threads take and give objects of few spans, each other's too.
fn crowd(tower: &'static Tower, floor: &(impl Objects + Sync), classes: &[Class]) {
    let pool: Mutex<Vec<Vec<Object>>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for me in 0..4u64 {
            let pool = &pool;
            scope.spawn(move || {
                let mut rng = Rng::new(rng::seed() ^ me);
                for _ in 0..4000 * rng::factor() {
                    let class = *rng.pick(classes);
                    let got = take(floor, class, 1 + rng.below(class.batch()));
                    assert!(!got.is_empty());
                    let mut pool = pool.lock().expect("no panic");
                    pool.push(got);
                    let keep = pool.len() <= 12;
                    let at = rng.below(pool.len());
                    let other = if keep { Vec::new() } else { pool.swap_remove(at) };
                    drop(pool);
                    give(floor, other);
                }
            });
        }
    });
    let left = pool.into_inner().expect("no panic");
    assert!(!left.is_empty());
    left.into_iter().for_each(|batch| give(floor, batch));
    tower.below().flush();
    balanced(tower, 0);
}

#[test]
fn threads_meet_in_the_spans_of_one_class() {
    for size in [8, 512, 6000, 32 * KIB] {
        let tower = tower(4 * KIB);
        crowd(tower, spans(tower), &[class(size)]);
    }
}

#[test]
fn threads_meet_where_spans_of_all_classes_come_and_go() {
    let tower = tower(4 * KIB);
    let classes: Vec<_> = Class::all().rev().step_by(3).collect();
    crowd(tower, spans(tower), &classes);
    let counts = spans(tower).counts();
    assert!(counts.died > 1000, "{counts:?}");
}

#[test]
fn threads_meet_in_the_transfer_cache() {
    for classes in [&[class(64)][..], &[class(8), class(2048), class(20_000)]] {
        let tower = tower(4 * KIB);
        crowd(tower, tower.below(), classes);
    }
}

// ---- the transfer cache ----

#[test]
fn a_batch_comes_back_as_it_went() {
    let tower = tower(4 * KIB);
    let (floor, class) = (tower.below(), class(128));
    let one = take(floor, class, BATCH);
    let two = take(floor, class, BATCH);
    let addrs = |batch: &[Object]| batch.iter().map(Object::addr).collect::<Vec<_>>();
    let (first, second) = (addrs(&one), addrs(&two));
    let misses = floor.counts(class).misses;
    give(floor, one);
    give(floor, two);
    assert_eq!(floor.counts(class).objects, 2 * BATCH);
    // Last in, first out, and a smaller wish leaves the rest of the batch.
    let part = take(floor, class, 10);
    assert_eq!(addrs(&part), second[BATCH - 10..]);
    // A wish that goes beyond one batch is filled from the next.
    let rest = take(floor, class, BATCH);
    assert_eq!(addrs(&rest), [&second[..BATCH - 10], &first[BATCH - 10..]].concat());
    let last = take(floor, class, BATCH - 10);
    assert_eq!(addrs(&last), first[..BATCH - 10]);
    assert_eq!(floor.counts(class).misses, misses, "all of it waited here");
    [part, rest, last].into_iter().for_each(|batch| give(floor, batch));
    floor.flush();
    balanced(tower, 0);
}

/// There is room for what was refused and is wanted again, unless it is far too much.
#[test]
fn what_does_not_fit_goes_below_and_the_room_follows_demand() {
    let tower = tower(4 * KIB);
    let (floor, class) = (tower.below(), class(256));
    let first = capacity::at_first(class) as usize;
    // A wave of so many batches: taken, and given back in another order. How many wait then.
    let wave = |batches: usize| {
        let taken = (0..batches).flat_map(|_| take(floor, class, BATCH)).collect();
        give(floor, scattered(taken, batches));
        floor.counts(class).objects / BATCH
    };
    assert_eq!(wave(first * 3), first, "as much as at first");
    let refusals = floor.counts(class).refusals;
    assert_eq!(refusals, first as u64 * 2);
    assert_eq!(wave(first * 3), first * 3, "all of it");
    assert_eq!(floor.counts(class).refusals, refusals);
    let most = 512;
    wave(most);
    assert_eq!(wave(most), most, "all there may be");
    wave(most * 2);
    let few = wave(most * 2);
    assert!(few > 0 && few < first, "{few}");
    assert_eq!(wave(most * 2), few);
    floor.flush();
    balanced(tower, 0);
}

/// Objects in an order in which none lies beside the next.
fn scattered(objects: Vec<Object>, batches: usize) -> Vec<Object> {
    let mut dealt: Vec<Vec<Object>> = (0..batches).map(|_| Vec::new()).collect();
    for (i, object) in objects.into_iter().enumerate() {
        dealt[i % batches].push(object);
    }
    dealt.into_iter().flatten().collect()
}

/// Beyond a few batches: those that were built and are dropped in order, but not what is scattered.
#[test]
fn neighbours_go_home() {
    const BATCHES: usize = 12;
    let tower = tower(4 * KIB);
    let (floor, class) = (tower.below(), class(64));
    let few = capacity::in_order(class) as usize;
    assert!(few > 0 && few < BATCHES);
    for in_order in [true, false] {
        let mut objects: Vec<Object> =
            (0..BATCHES).flat_map(|_| take(floor, class, BATCH)).collect();
        objects.sort_by_key(Object::addr);
        if !in_order {
            objects = scattered(objects, BATCHES);
        }
        give(floor, objects);
        let waiting = if in_order { few } else { BATCHES };
        assert_eq!(floor.counts(class).objects, waiting * BATCH);
        assert_eq!(floor.counts(class).refusals, 0);
        floor.flush();
        balanced(tower, 0);
    }
}

/// No memory for a node is no reason to lose a batch.
#[test]
fn without_nodes_objects_go_to_their_spans() {
    let tower = tower(4 * KIB);
    let (floor, class) = (tower.below(), class(256));
    let objects = take(floor, class, BATCH);
    fake(tower).fail(0, u64::MAX);
    give(floor, objects);
    assert_eq!(floor.counts(class).objects, 0);
    balanced(tower, 0);
}

// ---- thread caches ----

/// A budget that shrinks may be overdrawn for a while; the first rung of every bin is free even then.
#[test]
fn a_cache_over_its_budget_still_serves_every_class() {
    let tower = tower(4 * KIB);
    let hand = Hand::new(tower);
    let swing = |class: Class, count: usize| {
        let held: Vec<_> = (0..count).map(|_| hand.take(class).expect("memory")).collect();
        held.into_iter().for_each(|object| hand.give(object));
    };
    // Half of the classes swing until the budget has grown and is used up.
    for _ in 0..20 {
        Class::all().step_by(2).for_each(|class| swing(class, 5 * class.batch()));
    }
    // What they keep is taken out: empty bins have no surplus, so they stay as large as they are.
    let mut held = Vec::new();
    for class in Class::all().step_by(2) {
        while !hand.cache.bin(class).is_empty() {
            held.push(hand.take(class).expect("memory"));
        }
    }
    // One class alone goes on and the budget shrinks; a class that was never used comes along.
    for fresh in Class::all().skip(1).step_by(2) {
        (0..5).for_each(|_| swing(class(16), 3000));
        let object = hand.take(fresh);
        hand.give(object.unwrap_or_else(|| panic!("no {fresh:?}, with memory in plenty")));
    }
    held.into_iter().for_each(|object| hand.give(object));
    hand.retire();
    tower.below().flush();
    balanced(tower, 0);
}

/// What one thread may keep is bounded, whatever it does.
#[test]
fn a_cache_keeps_no_more_than_its_budget() {
    let tower = tower(4 * KIB);
    let hand = Hand::new(tower);
    let first_rungs: usize = Class::all()
        .map(|class| sizing::rung(class, 0).map_or(0, |r| r.capacity) * class.size())
        .sum();
    let most = sizing::BUDGET_MOST as usize + first_rungs;
    for round in 0..10 {
        for class in Class::all() {
            let held: Vec<_> =
                (0..5 * class.batch()).map(|_| hand.take(class).expect("memory")).collect();
            held.into_iter().for_each(|object| hand.give(object));
            let kept = Stats::of(tower).cached;
            assert!(kept <= most, "{kept} bytes kept in round {round}, {most} allowed");
        }
    }
    hand.retire();
    assert_eq!(Stats::of(tower).cached, 0);
    tower.below().flush();
    balanced(tower, 0);
}

/// A class that is not used any more gives most of what it kept back, while others work on.
#[test]
fn what_lies_unused_goes_back() {
    let tower = tower(4 * KIB);
    let hand = Hand::new(tower);
    let (idle, busy) = (class(512), class(64));
    for _ in 0..20 {
        let held: Vec<_> = (0..200).map(|_| hand.take(idle).expect("memory")).collect();
        held.into_iter().for_each(|object| hand.give(object));
    }
    let kept = hand.cache.bin(idle).len();
    assert!(kept > 20, "{kept} kept while in use");
    for _ in 0..300 {
        let held: Vec<_> = (0..1000).map(|_| hand.take(busy).expect("memory")).collect();
        held.into_iter().for_each(|object| hand.give(object));
    }
    let left = hand.cache.bin(idle).len();
    assert!(left <= kept / 4, "{left} of {kept} still lie there");
    assert!(hand.cache.counts().sweeps > 2);
    hand.retire();
    tower.below().flush();
    balanced(tower, 0);
}

#[test]
fn a_cache_goes_from_thread_to_thread() {
    let tower = tower(4 * KIB);
    let first = Hand::new(tower);
    let second = Hand::new(tower);
    assert!(!ptr::eq(first.cache, second.cache));
    assert_eq!(tower.registry().counts(), (2, 0));
    let object = first.take(class(100)).expect("memory");
    let cache = first.cache;
    first.retire();
    assert_eq!(tower.registry().counts(), (2, 1));
    let third = Hand::new(tower);
    assert!(ptr::eq(third.cache, cache), "adopted, not made");
    assert_eq!(tower.registry().counts(), (2, 0));
    third.give(object);
    third.retire();
    second.retire();
    assert_eq!(tower.registry().iter().filter(|cache| cache.in_use()).count(), 0);
    tower.below().flush();
    balanced(tower, 0);
}

#[test]
fn caches_are_adopted_by_many_threads_at_once() {
    let tower = tower(4 * KIB);
    thread::scope(|scope| {
        for me in 0..4u64 {
            scope.spawn(move || {
                let mut rng = Rng::new(rng::seed() ^ me);
                for _ in 0..150 * rng::factor() {
                    let hand = Hand::new(tower);
                    let held: Vec<_> = (0..rng.below(60))
                        .map(|_| hand.take(Class::from_index(rng.below(50))).expect("memory"))
                        .collect();
                    held.into_iter().for_each(|object| hand.give(object));
                    hand.retire();
                }
            });
        }
    });
    let (made, idle) = tower.registry().counts();
    assert!(made <= 4 && idle == made, "{made} caches, {idle} idle, for four threads");
    tower.below().flush();
    balanced(tower, 0);
}

// ---- through all floors ----

fn any_work(hand: &Hand, rng: &mut Rng, held: &mut Vec<Object>, steps: usize) -> usize {
    let mut refused = 0;
    for _ in 0..steps {
        if rng.below(5) < 3 && held.len() < 3000 {
            match hand.take(Class::from_index(rng.below(50))) {
                Some(object) => held.push(object),
                None => refused += 1,
            }
        } else if !held.is_empty() {
            let at = rng.below(held.len());
            hand.give(held.swap_remove(at));
        }
    }
    held.iter().for_each(Object::check);
    refused
}

/// Whichever call of the system fails, for a while or for good: what is held stays, what is refused
/// is refused cleanly, and everything comes home.
#[test]
fn any_call_may_fail() {
    for count in [1, 4, u64::MAX] {
        for skip in 0..16 {
            let tower = tower(4 * KIB);
            fake(tower).longest(40 * MIB);
            let mut rng = Rng::new(rng::seed() ^ skip);
            let mut held = Vec::with_capacity(3000);
            fake(tower).fail(skip, count);
            let hand = loop {
                match tower.adopt() {
                    Some(cache) => break Hand { tower, cache },
                    // No memory for a cache: the front would do without.
                    None => fake(tower).heal(),
                }
            };
            fake(tower).longest(40 * MIB);
            any_work(&hand, &mut rng, &mut held, 2000);
            fake(tower).heal();
            assert_eq!(any_work(&hand, &mut rng, &mut held, 500), 0, "memory is back");
            held.drain(..).for_each(|object| hand.give(object));
            hand.retire();
            tower.below().flush();
            balanced(tower, 0);
        }
    }
}

/// At a limit, memory that one class gave back serves the next, to the last of it.
#[test]
fn at_a_limit_every_class_gets_it_all_in_turn() {
    let tower = tower(4 * KIB);
    fake(tower).limit(80 * MIB);
    let hand = Hand::new(tower);
    let mut least = usize::MAX;
    for size in [256, 32 * KIB, 80, 1024, 14464, 112, 4480, 29056, 96] {
        let class = class(size);
        let mut held = Vec::new();
        while let Some(object) = hand.take(class) {
            held.push(object);
        }
        held.iter().for_each(Object::check);
        println!(
            "{size}: {} of {}, died {} begun {}",
            held.len() * size,
            fake(tower).counts().mapped - pages(tower).counts().metadata,
            spans(tower).counts().died,
            spans(tower).counts().begun
        );
        least = least.min(held.len() * size);
        held.into_iter().for_each(|object| hand.give(object));
    }
    // 20 MiB are the record of the window, and as much again if the pieces lie in two.
    assert!(least > 34 * MIB, "only {least} bytes for one of the classes");
    hand.retire();
    tower.below().flush();
    balanced(tower, 0);
    let returned = pages(tower).purge(|_, _| true);
    assert!(returned > 32 * MIB && returned.is_multiple_of(HUGEPAGE));
}

/// Memory that waits in a floor serves another class before the system is asked for more.
#[test]
fn the_system_is_not_asked_while_there_is_enough() {
    let tower = tower(4 * KIB);
    fake(tower).longest(32 * MIB);
    let hand = Hand::new(tower);
    let turn = |size: usize| {
        let held: Vec<_> =
            (0..40 * MIB / size).map(|_| hand.take(class(size)).expect("memory")).collect();
        held.into_iter().for_each(|object| hand.give(object));
    };
    turn(64);
    let mapped = fake(tower).counts().mapped;
    [1024, 96, 32 * KIB, 5120, 48].into_iter().for_each(turn);
    // What each class keeps in the transfer cache meanwhile, 8 MiB at most.
    let more = fake(tower).counts().mapped - mapped;
    assert!(more <= 64 * MIB, "{more} bytes more for the same 40 MiB");
}

/// A thread comes by a few times only, and does not miss in the transfer cache: what nobody takes there goes
/// back all the same.
#[test]
fn a_few_slow_calls_are_enough_to_give_back_what_is_due() {
    let tower = tower(PAGE_SIZES[0]);
    let (small, class) = (class(64), class(1024));
    let (hand, other) = (Hand::new(tower), Hand::new(tower));
    let mut held: Vec<_> = (0..1000).map(|_| hand.take(class).unwrap()).collect();
    let objects: Vec<_> = (0..4000).map(|_| other.take(small).unwrap()).collect();
    objects.into_iter().for_each(|object| other.give(object));
    other.retire();
    let waiting = tower.below().counts(small).objects;
    assert!(waiting > 0);
    let spills = || hand.cache.counts().spills;
    // At the first look it may have been in use just before.
    for _ in 0..2 {
        fake(tower).advance(1000);
        let before = spills();
        while spills() < before + 20 {
            hand.give(held.pop().expect("more than enough for 40 spills"));
        }
    }
    assert!(tower.below().counts(small).objects < waiting, "nobody looked");
    held.into_iter().for_each(|object| hand.give(object));
    hand.retire();
    tower.below().flush();
    balanced(tower, 0);
}

/// What a class that lost ground keeps in its spans is not hidden from them by the caches.
#[test]
fn what_is_freed_of_a_thin_class_goes_home_first() {
    let tower = tower(PAGE_SIZES[0]);
    let (class, small) = (class(2048), class(256));
    let hand = Hand::new(tower);
    let held: Vec<_> = (0..16 * MIB / 2048).map(|_| hand.take(class).unwrap()).collect();
    let look = || {
        fake(tower).advance(1000);
        tower.below().tick();
        spans(tower).is_thin(class)
    };
    assert!(!look(), "nothing is free yet");
    // Two of three go home, so that every span keeps some.
    let (kept, free): (Vec<_>, Vec<_>) =
        held.into_iter().enumerate().partition(|(i, _)| i % 3 == 0);
    free.into_iter().for_each(|(_, object)| hand.give(object));
    let mut held: Vec<_> = kept.into_iter().map(|(_, object)| object).collect();
    tower.below().flush();
    assert!(look());
    assert!(!spans(tower).is_thin(small));
    held.sort_unstable_by_key(|object| object.addr());
    for round in 0..3 * class.batch() {
        let object = held.pop().unwrap();
        let freed = object.addr();
        hand.give(object);
        let next = hand.take(class).unwrap();
        assert!(next.addr() < freed, "round {round}: what lies high is handed out again");
        held.insert(0, next);
    }
    assert!(hand.cache.held(class) <= 2 * class.batch());
    assert_eq!(tower.below().counts(class).objects, 0, "kept between the threads");
    // Full again, it is like any other.
    while look() {
        held.extend((0..256).map(|_| hand.take(class).unwrap()));
    }
    (0..4).for_each(|_| hand.give(held.pop().unwrap()));
    assert!(hand.cache.held(class) > 0);
    held.into_iter().for_each(|object| hand.give(object));
    hand.retire();
    tower.below().flush();
    balanced(tower, 0);
}
