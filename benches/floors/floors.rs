//! The cost of each floor: what one trip through it takes, down and back up.
//!
//! `cargo bench -p floors --bench floors`. The floors stand on the real system in statics of their own, so
//! the process's own allocations do not disturb them. Every number is for a round trip: a batch
//! given and taken again, a run claimed and given back.

use criterion::{Criterion, criterion_group, criterion_main};
use spandrel::base::classes::Class;
use spandrel::cache::Caches;
use spandrel::os::linux::Linux;
use spandrel::page::PageHeap;
use spandrel::span::{Objects, SpanTable, Spans};
use spandrel::transfer::Transfer;
use std::hint::black_box;
use std::ptr;

static PAGES: PageHeap<Linux, SpanTable> = PageHeap::new(Linux::new());
static SPANS: Spans<Linux> = Spans::new(PageHeap::new(Linux::new()));
static TRANSFER: Transfer<Spans<Linux>> = Transfer::new(Spans::new(PageHeap::new(Linux::new())));
static CACHES: Caches<Transfer<Spans<Linux>>> =
    Caches::new(Transfer::new(Spans::new(PageHeap::new(Linux::new()))));

/// The class the bounds are stated for: batches of 62.
const CLASS: Class = Class::of(64, 8).unwrap();

fn batch(from: &impl Objects) -> Vec<*mut u8> {
    let mut objects = vec![ptr::null_mut(); CLASS.batch()];
    assert_eq!(from.take(CLASS, &mut objects), objects.len());
    objects
}

/// Xorshift, to give objects back in no order.
fn shuffle<T>(objects: &mut [T]) {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    for i in (1..objects.len()).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        objects.swap(i, (x >> 16) as usize % (i + 1));
    }
}

fn floors(c: &mut Criterion) {
    let cache = CACHES.adopt().expect("memory for a cache");
    let bin = cache.bin(CLASS);
    c.bench_function("thread cache: one object", |b| {
        b.iter(|| {
            // SAFETY: this thread adopted the cache and gives back what it took.
            unsafe {
                let object = bin.pop().unwrap_or_else(|| CACHES.refill(cache, CLASS));
                if !bin.push(black_box(object)) {
                    CACHES.spill(cache, CLASS, object);
                }
            }
        });
    });

    let mut objects = batch(&TRANSFER);
    c.bench_function("transfer cache: a batch of 62", |b| {
        b.iter(|| {
            TRANSFER.give(CLASS, black_box(&mut objects));
            assert_eq!(TRANSFER.take(CLASS, &mut objects), 62);
        });
    });

    // A second batch keeps the span alive, as in a running program.
    let mut objects = batch(&SPANS);
    let _held = batch(&SPANS);
    c.bench_function("spans: a batch of 62, in order", |b| {
        b.iter(|| {
            SPANS.give(CLASS, black_box(&mut objects));
            assert_eq!(SPANS.take(CLASS, &mut objects), 62);
        });
    });
    let mut order: Vec<usize> = (0..objects.len()).collect();
    shuffle(&mut order);
    let mut shuffled = objects.clone();
    c.bench_function("spans: a batch of 62, shuffled", |b| {
        b.iter(|| {
            for (slot, &from) in shuffled.iter_mut().zip(&order) {
                *slot = objects[from];
            }
            SPANS.give(CLASS, black_box(&mut shuffled));
            assert_eq!(SPANS.take(CLASS, &mut objects), 62);
        });
    });
    let held = PAGES.take(0, 1).expect("memory");
    for order in [0, 3, 5] {
        c.bench_function(&format!("page heap: a run of order {order}"), |b| {
            b.iter(|| {
                let run = PAGES.take(order, 1 << order).expect("memory");
                PAGES.give(run.window, run.first, 1 << order);
            });
        });
    }
    PAGES.give(held.window, held.first, 1);
    c.bench_function("page heap: a whole hugepage", |b| {
        b.iter(|| {
            let run = PAGES.take(6, 64).expect("memory");
            PAGES.give(run.window, run.first, 64);
        });
    });
}

criterion_group!(benches, floors);
criterion_main!(benches);
