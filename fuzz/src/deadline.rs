//! A hang ends the process and says where, instead of stopping whoever runs the tests for ever.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing that is named here takes a hundredth of it on a quiet machine. `SPANDREL_PATIENCE` is another one, in
/// minutes.
const PATIENCE: Duration = Duration::from_secs(600);

struct Thing {
    number: usize,
    what: String,
    since: Instant,
}

/// What is going on, and how many things have begun.
static GOING_ON: Mutex<(Vec<Thing>, usize)> = Mutex::new((Vec::new(), 0));

fn going_on() -> MutexGuard<'static, (Vec<Thing>, usize)> {
    GOING_ON.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something is going on until this is dropped.
#[must_use = "it is over when this is dropped"]
#[derive(Debug)]
pub struct Running(usize);

/// From now on `what` is going on. If it takes far too long the process aborts, and names all that is.
pub fn running(what: impl Into<String>) -> Running {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let minutes = std::env::var("SPANDREL_PATIENCE").ok();
        let patience = minutes.map_or(PATIENCE, |minutes| {
            Duration::from_secs(60 * minutes.parse::<u64>().expect("a number of minutes"))
        });
        thread::spawn(move || watch(patience));
    });
    let mut all = going_on();
    all.1 += 1;
    let number = all.1;
    all.0.push(Thing { number, what: what.into(), since: Instant::now() });
    Running(number)
}

impl Drop for Running {
    fn drop(&mut self) {
        going_on().0.retain(|thing| thing.number != self.0);
    }
}

fn watch(patience: Duration) -> ! {
    loop {
        thread::sleep(patience.min(Duration::from_secs(1)));
        let all = going_on();
        if all.0.iter().any(|thing| thing.since.elapsed() > patience) {
            // Past libtest's capture, which would keep it.
            let mut out = std::io::stderr();
            for Thing { what, since, .. } in &all.0 {
                let _ = writeln!(out, "for {:.0} s: {what}", since.elapsed().as_secs_f64());
            }
            let _ = writeln!(out, "that is a hang: it may take {:.0} s", patience.as_secs_f64());
            std::process::abort();
        }
    }
}
