//! serde_json over large documents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BROWSER_COMPAT, MOBY_DICK};
use crate::{
    meter::{Meter, Spent},
    workloads::jobs::{
        Job,
        threads::{on_threads, share},
    },
};

/// A chapter of the book, typed.
#[derive(Deserialize, Serialize)]
struct Chapter {
    chapter: String,
    title: String,
    text: String,
}

/// Parses half a megabyte of nested records into values and a book into structs, writes both out
/// again, and compares. An operation is both documents once.
pub(in super::super) fn json(job: &Job) -> Spent {
    let each = share(job.amount, job.threads);
    let meter = Meter::process();
    on_threads(job.threads, &|_| {
        for _ in 0..each {
            let compat: Value = serde_json::from_str(BROWSER_COMPAT).expect("it is JSON");
            let written = serde_json::to_string(&compat).expect("it can be written");
            // Objects are sorted by key on the way, so only the length must be the same.
            assert_eq!(written.len(), BROWSER_COMPAT.trim_end().len());
            let book: Vec<Chapter> = MOBY_DICK
                .lines()
                .map(|line| serde_json::from_str(line).expect("it is JSON"))
                .collect();
            let mut lines = MOBY_DICK.lines();
            for chapter in &book {
                let written = serde_json::to_string(chapter).expect("it can be written");
                assert_eq!(Some(&*written), lines.next(), "chapter {}", chapter.chapter);
            }
            assert_eq!(lines.next(), None);
        }
    });
    meter.stop(each * job.threads as u64)
}
