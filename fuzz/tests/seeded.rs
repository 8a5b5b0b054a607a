//! The fuzzer's harness without a fuzzer: every stored case, and cases from one printed seed.
//!
//! `SPANDREL_SEED=n` replays a run (up to the interleaving of cases with several threads),
//! `SPANDREL_FACTOR=n` makes it longer, `SPANDREL_CASES=n` is the number of cases itself, without the stored ones.

#[path = "../../tests/common/rng.rs"]
#[allow(dead_code)]
mod rng;

use fuzz::{TARGETS, Target};
use rng::Rng;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Cases of each target per run.
const CASES: usize = 150;

/// The doors share the heap of the process and look at all of it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name").1
}

/// The files of `folder/name`, if there are any.
fn files(folder: &str, name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

#[track_caller]
fn run(name: &str) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let target = target(name);
    // Cases that once failed, then the corpus.
    let cases = std::env::var("SPANDREL_CASES").ok().map(|n| n.parse().expect("a number"));
    for folder in ["regressions", "corpus"].into_iter().filter(|_| cases.is_none()) {
        for file in files(folder, name) {
            println!("{}", file.display());
            target(&std::fs::read(&file).expect("readable"));
        }
    }
    let seed = rng::seed();
    let mut rng = Rng::new(seed);
    for case in 0..cases.unwrap_or(CASES * rng::factor()) {
        let length = rng.size(4096);
        let mut data: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
        // Cases of the first kind decode to one thread; every third is left to chance.
        if case % 3 != 0 {
            data[0] &= !0x0e;
        }
        println!("SPANDREL_SEED={seed}, {name}, case {case}, {length} bytes");
        target(&data);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn no_target_is_left_out() {
            let here = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), here.as_slice());
        }
    };
}

targets! { rust_door c_door caches transfer spans pages options readers }
