//! What a run costs: time on the cores, time of day, page faults, resident memory.

use std::{
    fs::File,
    io::Read,
    time::{Duration, Instant},
};

/// What a run did and what that cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Operations: what one is, each workload says.
    pub ops: u64,
    /// Time on the cores, the kernel's part included. Unlike the time of day it stands still while
    /// others have the core, so that a busy machine slows a run down by what it takes from the
    /// caches, and not by what it takes from the scheduler.
    pub cpu: Duration,
    /// Time of day.
    pub wall: Duration,
    /// Page faults that needed no disk.
    pub faults: u64,
}

impl Spent {
    /// What both spent, side by side.
    pub(crate) fn beside(self, other: Self) -> Self {
        Self {
            ops: self.ops + other.ops,
            cpu: self.cpu + other.cpu,
            wall: self.wall.max(other.wall),
            faults: self.faults + other.faults,
        }
    }
}

/// Measures from where it is made to where it is stopped.
pub(crate) struct Meter {
    clock: libc::clockid_t,
    who: libc::c_int,
    cpu: Duration,
    faults: u64,
    day: Instant,
}

impl Meter {
    /// Of this thread.
    pub(crate) fn thread() -> Self {
        Self::start(libc::CLOCK_THREAD_CPUTIME_ID, libc::RUSAGE_THREAD)
    }

    /// Of all threads, those included that have ended.
    #[cfg(any(feature = "jobs", test))]
    pub(crate) fn process() -> Self {
        Self::start(libc::CLOCK_PROCESS_CPUTIME_ID, libc::RUSAGE_SELF)
    }

    fn start(clock: libc::clockid_t, who: libc::c_int) -> Self {
        let (day, faults) = (Instant::now(), faults(who));
        Self { clock, who, faults, day, cpu: time(clock) }
    }

    /// What so many operations cost.
    pub(crate) fn stop(self, ops: u64) -> Spent {
        let cpu = time(self.clock) - self.cpu;
        Spent { ops, cpu, wall: self.day.elapsed(), faults: faults(self.who) - self.faults }
    }
}

fn time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(failed, 0, "every thread and every process has a clock");
    // Neither is negative, and there are fewer than 10^9 nanoseconds.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Page faults so far that needed no disk.
fn faults(who: libc::c_int) -> u64 {
    // SAFETY: a rusage is a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a rusage that the call may write.
    let failed = unsafe { libc::getrusage(who, &mut usage) };
    assert_eq!(failed, 0, "every thread and every process has its usage counted");
    usage.ru_minflt as u64
}

/// Resident memory of this process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The most so far. Of this program alone: `ru_maxrss` would start from what the parent had.
    pub peak: u64,
}

impl Resident {
    /// Asks the kernel, without allocating.
    pub fn read() -> Self {
        let mut buffer = [0; 4096];
        let length = File::open("/proc/self/status")
            .and_then(|mut file| file.read(&mut buffer))
            .expect("/proc is mounted");
        let status = std::str::from_utf8(&buffer[..length]).expect("it is ASCII");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.expect("every process has these fields")
        };
        Self { now: field("VmRSS:"), peak: field("VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_with_the_thread_only() {
        let meter = Meter::thread();
        std::thread::sleep(Duration::from_millis(50));
        let spent = meter.stop(1);
        assert!(spent.cpu < Duration::from_millis(40) && spent.wall > spent.cpu);
    }

    #[test]
    fn touched_pages_are_seen() {
        let (meter, before) = (Meter::process(), Resident::read());
        // Not zeroed: all of it is written here.
        let block = std::hint::black_box(vec![1_u8; 16 << 20]);
        let spent = meter.stop(1);
        let after = Resident::read();
        assert!(spent.faults > 0 && spent.cpu > Duration::ZERO && spent.wall > Duration::ZERO);
        assert!(after.peak >= before.now + (8 << 10), "{before:?} {after:?}");
        assert!(after.peak >= after.now);
        drop(block);
    }
}
