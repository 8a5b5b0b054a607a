//! A word count and a sort on a rayon pool.

use std::collections::HashMap;

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use super::MOBY_DICK;
use crate::{
    meter::{Meter, Spent},
    workloads::jobs::Job,
};

/// Words of the book, in lower case.
fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    let letters = |c: char| !c.is_alphabetic();
    line.split(letters).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// What is in the book, as `words` sees it.
const WORDS: usize = 218344;
const DIFFERENT: usize = 16978;

/// Runs `work` on a pool of so many threads, which have ended when it returns.
fn pooled(threads: usize, work: impl FnOnce(&ThreadPool) + Send) {
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    let ran = pool.build_scoped(|thread| thread.run(), work);
    ran.expect("the system starts so few threads");
}

/// Counts every word of the book with its own maps per chapter, merged in pairs. An operation is
/// the book.
pub(in super::super) fn count(job: &Job) -> Spent {
    let meter = Meter::process();
    pooled(job.threads, |pool| {
        for _ in 0..job.amount {
            let counts = pool.install(counts);
            assert_eq!(counts.len(), DIFFERENT);
            assert_eq!(counts.values().sum::<usize>(), WORDS);
        }
    });
    meter.stop(job.amount)
}

fn counts() -> HashMap<String, usize> {
    let of_chapter = |line: &str| {
        let mut counts = HashMap::new();
        for word in words(line) {
            *counts.entry(word).or_insert(0) += 1;
        }
        counts
    };
    MOBY_DICK.par_lines().map(of_chapter).reduce(HashMap::new, |mut a, mut b| {
        if a.len() < b.len() {
            std::mem::swap(&mut a, &mut b);
        }
        for (word, count) in b {
            *a.entry(word).or_insert(0) += count;
        }
        a
    })
}

/// Every word of the book as a string of its own, sorted. An operation is the book.
pub(in super::super) fn sort(job: &Job) -> Spent {
    let meter = Meter::process();
    pooled(job.threads, |pool| {
        for _ in 0..job.amount {
            pool.install(|| {
                let mut all: Vec<String> = MOBY_DICK.par_lines().flat_map_iter(words).collect();
                all.par_sort();
                assert_eq!(all.len(), WORDS);
                assert!(all.is_sorted());
                let lengths: usize = all.par_iter().map(|word| word.clone().len()).sum();
                assert!(lengths > WORDS);
            });
        }
    });
    meter.stop(job.amount)
}
