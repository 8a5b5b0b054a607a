//! Regular expressions: compiled, and matched.

use regex::Regex;

use super::MOBY_DICK;
use crate::{
    meter::{Meter, Spent},
    workloads::jobs::{
        Job,
        threads::{on_threads, share},
    },
};

/// Each with how often it occurs in the first 256 KiB of the book.
const PATTERNS: [(&str, usize); 6] = [
    (r"\b[Ww]hal(e|es|ing|emen)\b", 166),
    (r"\p{Lu}\p{Ll}+(?:-\p{Ll}+)+", 17),
    (r#""chapter":"(?<number>\d+)""#, 29),
    (r"(?i)\bcap(tain|t\.)\s+(?<who>\w+)", 107),
    (r"[^.!?]{200,400}[.!?]", 357),
    (r"\b(\w+) and (\w+)\b", 543),
];

/// Compiles six patterns and collects their matches with captures. An operation is all six.
pub(in super::super) fn regex(job: &Job) -> Spent {
    let each = share(job.amount, job.threads);
    let text = head();
    let meter = Meter::process();
    on_threads(job.threads, &|_| {
        for _ in 0..each {
            for (pattern, count) in PATTERNS {
                assert_eq!(matches(pattern, text), count, "{pattern}");
            }
        }
    });
    meter.stop(each * job.threads as u64)
}

fn head() -> &'static str {
    &MOBY_DICK[..MOBY_DICK.floor_char_boundary(256 << 10)]
}

fn matches(pattern: &str, text: &str) -> usize {
    let regex = Regex::new(pattern).expect("it is a pattern");
    let found: Vec<Vec<Option<String>>> = regex
        .captures_iter(text)
        .map(|c| c.iter().map(|group| group.map(|m| m.as_str().to_owned())).collect())
        .collect();
    assert!(found.iter().all(|groups| groups[0].as_ref().is_some_and(|whole| !whole.is_empty())));
    found.len()
}
