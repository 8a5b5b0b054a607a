//! The heap profile: started, stopped and read at run time.
//!
//! ```
//! # #[global_allocator] static A: spandrel::Spandrel = spandrel::Spandrel;
//! use spandrel::profile;
//!
//! profile::start(profile::INTERVAL)?;
//! let kept: Vec<u8> = Vec::with_capacity(64 << 20);
//! let profile = profile::snapshot();
//! assert!(profile.in_use() > 32 << 20);
//! # profile::stop();
//! # drop(kept);
//! # Ok::<(), profile::NoRoom>(())
//! ```
//!
//! A sample is taken every so many bytes on average; each stands for as many blocks as it takes to meet one
//! ([`watch::sample`](crate::watch)), so all figures are unbiased estimates of the whole. Blocks from before
//! the start are not seen. What is written (`Profile::pprof`, `Profile::flame_graph`) needs the feature
//! `profile`.

use super::tags;
use crate::watch::mode;
use crate::watch::sample::{self, Amount, LIVES, PART};
use crate::watch::stacks::depot::StackId;
use std::sync::Mutex;
use std::time::Duration;

pub use crate::watch::sample::INTERVAL;

/// There is no memory for the tables of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is no memory for the tables of a heap profile")
    }
}

impl std::error::Error for NoRoom {}

/// Who starts and stops, one at a time.
static SWITCHING: Mutex<()> = Mutex::new(());

/// Starts a profile with a sample every `interval` bytes on average, by default [`INTERVAL`]; with an interval
/// of 1 every block is sampled. One that is under way is forgotten.
///
/// # Errors
/// When there is no memory for its tables.
pub fn start(interval: usize) -> Result<(), NoRoom> {
    let _alone = SWITCHING.lock().unwrap_or_else(|broken| broken.into_inner());
    mode::off(mode::PROFILE);
    if !sample::begin(interval) {
        return Err(NoRoom);
    }
    mode::on(mode::PROFILE);
    Ok(())
}

/// Stops the profile. What was sampled can still be read.
pub fn stop() {
    let _alone = SWITCHING.lock().unwrap_or_else(|broken| broken.into_inner());
    if mode::has(mode::PROFILE) {
        mode::off(mode::PROFILE);
        sample::end();
    }
}

/// Whether a profile is under way.
pub fn is_on() -> bool {
    mode::has(mode::PROFILE)
}

/// The profile so far, or as it was when it was stopped. Stops no thread.
pub fn snapshot() -> Profile {
    let _own = sample::Quiet::begin();
    let mut places = Vec::with_capacity(1 << 10);
    sample::each_site(|site| {
        let tag = tags::name(site.tag);
        places.push(Place {
            stack: site.stack,
            tag,
            allocated: Blocks::of(site.allocated),
            in_use: Blocks::of(site.in_use),
            peak: Blocks::of(site.peak),
            lifetimes: site.lived.map(|(parts, nanoseconds)| Lifetime {
                freed: (parts + PART / 2) / PART,
                lived: Duration::from_nanos(nanoseconds),
            }),
        });
    });
    places.sort_by_key(|place| core::cmp::Reverse(place.in_use.bytes));
    let summary = sample::summary();
    Profile {
        places,
        interval: summary.interval,
        samples: summary.samples,
        dropped: summary.dropped,
        duration: Duration::from_nanos(summary.duration),
    }
}

/// Blocks and bytes, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// How many.
    pub count: u64,
    /// Their bytes, as they were asked for.
    pub bytes: u64,
}

impl Blocks {
    fn of(amount: Amount) -> Self {
        Self { count: (amount.parts + PART / 2) / PART, bytes: amount.bytes }
    }
}

/// What was allocated at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stack's number ([`watch::stacks`](crate::watch)).
    pub stack: StackId,
    /// Whom it is put down to ([`tag`](crate::tag)); none if nobody.
    pub tag: Option<String>,
    /// Since the profile was started.
    pub allocated: Blocks,
    /// Of them, what is in use.
    pub in_use: Blocks,
    /// Its share when the heap was largest, to within a part in 64 of the heap.
    pub peak: Blocks,
    /// How long the blocks lived that were freed: in less than 10 microseconds, in ten times that, and so on;
    /// the last, 100 seconds and more.
    pub lifetimes: [Lifetime; LIVES],
}

/// Blocks that were freed after about the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// How many.
    pub freed: u64,
    /// How long they lived, all together.
    pub lived: Duration,
}

/// How long blocks live that are counted under each of [`Place::lifetimes`].
pub const LIFETIMES: [&str; LIVES] = [
    "under 10 us",
    "10 us to 100 us",
    "100 us to 1 ms",
    "1 ms to 10 ms",
    "10 ms to 100 ms",
    "100 ms to 1 s",
    "1 s to 10 s",
    "10 s to 100 s",
    "over 100 s",
];
const _: () = assert!(sample::SHORTEST == 10_000);

/// One moment of a heap profile. Its places are sorted, the largest in use first.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What was met, by stack and tag.
    pub places: Vec<Place>,
    /// Bytes between two samples on average.
    pub interval: u64,
    /// Samples that were taken.
    pub samples: u64,
    /// Of them, those for which there was no room: 0, or the figures are too low.
    pub dropped: u64,
    /// How long it has been going on, or went on.
    pub duration: Duration,
}

impl Profile {
    /// Bytes in use, estimated.
    pub fn in_use(&self) -> u64 {
        self.places.iter().map(|place| place.in_use.bytes).sum()
    }

    /// Bytes allocated since the start, estimated.
    pub fn allocated(&self) -> u64 {
        self.places.iter().map(|place| place.allocated.bytes).sum()
    }

    /// How long the blocks lived that were freed since the start, estimated.
    pub fn lifetimes(&self) -> [Lifetime; LIVES] {
        std::array::from_fn(|n| {
            let mut sum = Lifetime::default();
            for place in &self.places {
                sum.freed += place.lifetimes[n].freed;
                sum.lived += place.lifetimes[n].lived;
            }
            sum
        })
    }
}
