//! The fuzzer's harness without a fuzzer: every stored case, and cases from one printed seed.
//!
//! `SPANDREL_SEED=n` replays a run (up to the interleaving of cases with several threads),
//! `SPANDREL_FACTOR=n` makes it longer, `SPANDREL_CASES=n` is the number of cases itself, without the stored ones.
//! With `SPANDREL_SEVERAL` set all cases that can have several threads have them, by default one in six. The case that
//! was under way when a run died lies in `target/tmp`, `case-` and its target's name.

#[path = "../../tests/common/rng.rs"]
#[allow(dead_code)]
mod rng;

use fuzz::deadline::running;
use fuzz::doors::SEEN;
use fuzz::{TARGETS, Target};
use rng::Rng;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
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
            let _running = running(file.display().to_string());
            target(&std::fs::read(&file).expect("readable"));
        }
    }
    let seed = rng::seed();
    let mut rng = Rng::new(seed);
    let under_way = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("case-{name}"));
    for case in 0..cases.unwrap_or(CASES * rng::factor()) {
        let length = rng.size(4096);
        let mut data: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
        // The bit of the first byte that means several threads; every third case is left to chance.
        let several = if name.ends_with("door") { 0x02 } else { 0x08 };
        if std::env::var_os("SPANDREL_SEVERAL").is_some() {
            data[0] |= several;
        } else if case % 3 != 0 {
            data[0] &= !several;
        }
        let what = format!("SPANDREL_SEED={seed}, {name}, case {case}, {length} bytes");
        println!("{what}");
        std::fs::write(&under_way, &data).expect("the folder can be written to");
        let _running = running(what);
        target(&data);
    }
    if cfg!(feature = "shadow") && name.ends_with("door") {
        assert_ne!(SEEN.load(Relaxed), 0, "no free was seen by the shadow");
    }
    let _ = std::fs::remove_file(under_way);
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
