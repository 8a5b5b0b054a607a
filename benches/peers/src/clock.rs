//! The clock of the single-threaded loops.

use std::time::Duration;

/// Counts the time this thread has spent on a core, its page faults included. Unlike the time of
/// day it stands still while others have the core, so that a busy machine slows the loops down by
/// what it takes from the caches, and not by what it takes from the scheduler.
pub(crate) struct ThreadClock(Duration);

impl ThreadClock {
    pub(crate) fn start() -> Self {
        Self(now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        now() - self.0
    }
}

fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "every thread has a clock");
    // Neither is negative, and there are fewer than 10^9 nanoseconds.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_with_the_thread_only() {
        let clock = ThreadClock::start();
        std::thread::sleep(Duration::from_millis(50));
        assert!(clock.elapsed() < Duration::from_millis(40));
        while clock.elapsed() < Duration::from_millis(1) {}
    }
}
