//! Rayon on Spandrel: sorts, nested collections, join trees, and drops on other threads, on 1, 2
//! and 16 threads.
//!
//! The results are checked here too, so that a figure is never the speed of something wrong.
//! `tests/rayon_stress.rs` is the same work without the clock.

#[path = "../common/rayon_work.rs"]
mod rayon_work;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rayon_work::{Checked, Corrupt, Scale, THREADS};

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

const SCALE: Scale = Scale::USUAL;

type Work = fn(Scale) -> Result<Checked, Corrupt>;

fn in_one_pool(criterion: &mut Criterion) {
    let works: [(&str, Work); 3] = [
        ("sort_strings", rayon_work::sort_strings),
        ("map_collect", rayon_work::map_collect),
        ("join_trees", rayon_work::join_trees),
    ];
    for (name, work) in works {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for threads in THREADS {
            let pool = rayon_work::pool(threads);
            group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
                bencher.iter(|| black_box(pool.install(|| work(SCALE))).expect("no corruption"));
            });
        }
        group.finish();
    }
}

fn between_pools(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cross_drops");
    group.sample_size(10);
    for threads in THREADS {
        let (makers, droppers) = (rayon_work::pool(threads), rayon_work::pool(threads));
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter(|| {
                black_box(rayon_work::cross_drops(&makers, &droppers, SCALE))
                    .expect("no corruption")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, in_one_pool, between_pools);
criterion_main!(benches);
