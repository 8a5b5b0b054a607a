//! Group 6: what grows: vectors, strings, chains of reallocations.

use std::sync::Barrier;

use super::{
    Job,
    block::log_uniform,
    threads::{on_threads, share},
};
use crate::meter::{Meter, Spent};

/// A vector of words per thread, grown by pushes, dropped when all have grown. An operation is a
/// push.
pub(super) fn push(job: &Job) -> Spent {
    let pushes = share(job.amount, job.threads);
    let meter = Meter::process();
    let grown = Barrier::new(job.threads);
    on_threads(job.threads, &|_| {
        let mut words = Vec::new();
        for n in 0..pushes {
            words.push(n);
        }
        // One in every page.
        assert!(words.iter().zip(0..).step_by(512).all(|(&w, n)| w == n), "a word has changed");
        assert_eq!(words.len() as u64, pushes);
        grown.wait();
    });
    meter.stop(pushes * job.threads as u64)
}

/// Words to build from.
const WORDS: [&str; 8] = ["a", "be", "see", "dear", "eight", "twelve", "sixteen", "a hundred"];
/// Strings alive, over all threads.
const STRINGS: u64 = 1000;

/// Strings of up to some KiB built word by word; the thousand last ones live. An operation is a
/// string.
pub(super) fn strings(job: &Job) -> Spent {
    let strings = share(job.amount, job.threads);
    let alive = share(STRINGS, job.threads) as usize;
    let meter = Meter::process();
    on_threads(job.threads, &|number| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut ring = vec![(String::new(), 0); alive];
        for n in 0..strings as usize {
            let length = log_uniform(&mut random, 4, 12);
            let built = sentence(n, length);
            let (old, of) = std::mem::replace(&mut ring[n % alive], (built, n));
            assert!(old.is_empty() || old.starts_with(WORDS[of % 8]), "string {of}: {old}");
        }
        for (old, of) in ring {
            assert!(old.is_empty() || old.ends_with(' ') && old.starts_with(WORDS[of % 8]));
        }
    });
    meter.stop(strings * job.threads as u64)
}

fn sentence(first: usize, length: usize) -> String {
    let mut sentence = String::new();
    for word in first.. {
        if sentence.len() >= length {
            break;
        }
        sentence += WORDS[word % 8];
        sentence.push(' ');
    }
    sentence
}

/// Chains that grow at the same time, over all threads.
const CHAINS: u64 = 64;

/// Chains of reallocations: each block grows by half again and again until it has its final size,
/// 64 B to 32 KiB, and is then replaced by a new one; many grow in turn. An operation is a chain.
pub(super) fn chains(job: &Job) -> Spent {
    let chains = share(job.amount, job.threads);
    let at_once = share(CHAINS, job.threads).min(chains) as usize;
    let meter = Meter::process();
    on_threads(job.threads, &|number| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut begun = 0;
        let mut growing: Vec<Chain> = Vec::new();
        loop {
            while growing.len() < at_once && begun < chains {
                begun += 1;
                growing.push(Chain::new(begun, log_uniform(&mut random, 6, 15)));
            }
            if growing.is_empty() {
                break;
            }
            let next = random.usize(..growing.len());
            if growing[next].grow() {
                growing.swap_remove(next).check();
            }
        }
    });
    meter.stop(chains * job.threads as u64)
}

struct Chain {
    bytes: Vec<u8>,
    number: u64,
    until: usize,
}

impl Chain {
    fn new(number: u64, until: usize) -> Self {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&number.to_le_bytes());
        Self { bytes, number, until }
    }

    /// One reallocation, after which the block is full. Whether it was the last.
    fn grow(&mut self) -> bool {
        let length = self.bytes.capacity();
        self.bytes.resize(length, self.number as u8);
        self.bytes.reserve_exact(length / 2);
        self.bytes.capacity() >= self.until
    }

    fn check(self) {
        let (head, rest) = self.bytes.split_at(8);
        assert_eq!(head, self.number.to_le_bytes(), "the head of chain {}", self.number);
        assert!(rest.iter().all(|&b| b == self.number as u8), "the rest of chain {}", self.number);
    }
}
