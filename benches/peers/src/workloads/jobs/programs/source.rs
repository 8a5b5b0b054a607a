//! syn over big Rust sources.

use crate::{
    meter::{Meter, Spent},
    workloads::jobs::{
        Job,
        threads::{on_threads, share},
    },
};

/// Two of syn's own files, 280 KB.
const SOURCES: [(&str, usize); 2] = [
    (include_str!("../../../../data/expr.rs.txt"), 92),
    (include_str!("../../../../data/item.rs.txt"), 91),
];

/// Parses both files into syntax trees and drops these. An operation is both files.
pub(in super::super) fn syn(job: &Job) -> Spent {
    let each = share(job.amount, job.threads);
    let meter = Meter::process();
    on_threads(job.threads, &|_| {
        for _ in 0..each {
            for (source, items) in SOURCES {
                let file = syn::parse_file(source).expect("it is Rust");
                assert_eq!(file.items.len(), items);
            }
        }
    });
    meter.stop(each * job.threads as u64)
}
