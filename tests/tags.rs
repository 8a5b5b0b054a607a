//! Attribution: exact, whoever frees, and across threads and futures.

use spandrel::{Tag, TagStats, count_tags, tag, tags};
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Barrier, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

/// One test at a time: there is one switch.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn of(name: &str) -> TagStats {
    tags().into_iter().find(|tag| tag.name == name).unwrap()
}

fn held(name: &str) -> (usize, usize, usize) {
    let of = of(name);
    (of.live, of.blocks, of.peak)
}

#[test]
fn live_and_peak_are_exact() {
    let _alone = alone();
    let before = tag("exact");
    // Nothing is counted while it is off.
    let early = {
        let _scope = before.enter();
        black_box(vec![1u8; 777])
    };
    count_tags(true);
    assert_eq!(held("exact"), (0, 0, 0));
    let kept = {
        let _scope = tag("exact").enter();
        drop(black_box(vec![0u8; 100_000]));
        let mut kept = vec![vec![1u8; 1000], vec![1u8; 24]];
        kept[0].reserve_exact(4000);
        kept.push(vec![2; 3 << 20]);
        drop(black_box(Vec::<u64>::with_capacity(3)));
        kept
    };
    // What was allocated before is nobody's, and not taken off.
    drop(early);
    let spine = kept.capacity() * size_of::<Vec<u8>>();
    let live = 5000 + 24 + (3 << 20) + spine;
    assert_eq!((of("exact").live, of("exact").blocks), (live, 4));
    assert!((live..live + 100).contains(&of("exact").peak));
    // Freed under another tag, on another thread.
    std::thread::spawn(move || {
        let _scope = tag("other").enter();
        drop(kept);
    })
    .join()
    .unwrap();
    assert_eq!((of("exact").live, of("exact").blocks, of("other").live), (0, 0, 0));
    assert!(of("exact").peak >= live);
    count_tags(false);
    // Begun anew, all is zero.
    count_tags(true);
    assert_eq!(held("exact"), (0, 0, 0));
    count_tags(false);
}

/// What one has counted since counting is on stays counted, though another begins with something else meanwhile.
#[test]
fn begun_by_two_at_once() {
    let _alone = alone();
    let gate = &Barrier::new(2);
    let tag = tag("begun by two");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..4000 {
                gate.wait();
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                spandrel::watch_leaks(true);
                gate.wait();
                spandrel::watch_leaks(false);
            }
        });
        for round in 0..4000 {
            gate.wait();
            count_tags(true);
            let scope = tag.enter();
            let kept = black_box(vec![1u8; 1000]);
            drop(scope);
            gate.wait();
            let of = held("begun by two");
            drop(kept);
            let after = held("begun by two").0;
            count_tags(false);
            // Outside of what the other thread waits for, so that a failure is one of the test.
            if (of, after) != ((1000, 1, 1000), 0) {
                eprintln!("round {round}: {of:?}, then {after}");
                std::process::exit(101);
            }
        }
    });
}

#[test]
fn scopes_nest() {
    let _alone = alone();
    count_tags(true);
    let (outer, inner) = (tag("outer"), tag("inner"));
    let a = outer.enter();
    let first = black_box(vec![0u8; 10]);
    let second = {
        let _b = inner.enter();
        black_box(vec![0u8; 20])
    };
    let third = black_box(vec![0u8; 40]);
    drop(a);
    let fourth = black_box(vec![0u8; 80]);
    assert_eq!((of("outer").live, of("inner").live), (50, 20));
    drop((first, second, third, fourth));
    assert_eq!((of("outer").live, of("inner").live), (0, 0));
    count_tags(false);
}

/// A future that allocates each time it is polled, and is ready on the third.
async fn grow(bytes: usize) -> Vec<Vec<u8>> {
    let mut kept = Vec::with_capacity(3);
    let mut polls = 0;
    poll_fn(move |_| {
        kept.push(black_box(vec![1u8; bytes]));
        polls += 1;
        if polls == 3 { Poll::Ready(std::mem::take(&mut kept)) } else { Poll::Pending }
    })
    .await
}

#[test]
fn a_future_takes_its_tag_along() {
    let _alone = alone();
    count_tags(true);
    let (a, b): (Tag, Tag) = (tag("future a"), tag("future b"));
    let (mut first, mut second) = (Box::pin(a.wrap(grow(1000))), Box::pin(b.wrap(grow(50))));
    let mut context = Context::from_waker(Waker::noop());
    // Turn by turn, on different threads.
    for _ in 0..2 {
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
    }
    let (first, second) = std::thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = first.as_mut().poll(&mut context) else { panic!() };
        let Poll::Ready(second) = second.as_mut().poll(&mut context) else { panic!() };
        (first, second)
    })
    .join()
    .unwrap();
    let spine = 3 * size_of::<Vec<u8>>();
    assert_eq!((of("future a").live, of("future b").live), (3000 + spine, 150 + spine));
    drop((first, second));
    assert_eq!((of("future a").live, of("future b").live), (0, 0));
    // A future that is dropped half way leaves nothing behind.
    {
        let mut third = pin!(a.wrap(grow(9)));
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert!(of("future a").live >= 9);
    }
    assert_eq!(of("future a").live, 0);
    count_tags(false);
}

#[test]
fn many_threads_many_tags() {
    let _alone = alone();
    count_tags(true);
    let kept: Vec<Vec<Box<[u8]>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn(move || {
                    let tag = tag(&format!("tenant {}", n % 4));
                    let mut kept = Vec::new();
                    for i in 0..3000usize {
                        let _scope = tag.enter();
                        let block = vec![0u8; i % 700 + 1].into_boxed_slice();
                        if i % 3 == 0 {
                            kept.push(block);
                        }
                    }
                    kept
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for tenant in 0..4 {
        let blocks: Vec<usize> = [&kept[tenant], &kept[tenant + 4]]
            .iter()
            .flat_map(|kept| kept.iter().map(|block| block.len()))
            .collect();
        let spines: usize =
            [&kept[tenant], &kept[tenant + 4]].iter().map(|k| k.capacity() * 16).sum();
        let of = of(&format!("tenant {tenant}"));
        assert_eq!((of.live, of.blocks), (blocks.iter().sum::<usize>() + spines, blocks.len() + 2));
    }
    drop(kept);
    assert!((0..4).all(|n| held(&format!("tenant {n}")).0 == 0));
    count_tags(false);
}
