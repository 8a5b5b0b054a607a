//! What can be set of the page heap while it works. All zero is the default.
//!
//! Words of their own, read relaxed on slow paths: a new setting counts from the next decision on.

use crate::base::options::{DECAY_MOST_MS, Decay, HugepagePolicy, Limit};
use crate::base::sync::Ordering::Relaxed;
use crate::base::sync::unseen::{AtomicU8, AtomicU32, AtomicUsize};
use core::time::Duration;

/// How long free memory stays unless somebody says otherwise, in milliseconds.
const DECAY_MS: u32 = 10_000;
/// `decay` for [`Decay::Never`].
const NEVER: u32 = u32::MAX;

/// The settings of one page heap.
#[derive(Debug)]
pub struct Policy {
    /// Milliseconds plus one; 0 is the default.
    decay: AtomicU32,
    /// A [`HugepagePolicy`].
    hugepages: AtomicU8,
    soft: Bound,
    hard: Bound,
}

/// One limit.
#[derive(Debug)]
struct Bound {
    /// Bytes; 0 is none.
    bytes: AtomicUsize,
    /// The share of the cgroup's limit that it comes from, or 0.
    share: AtomicU8,
}

impl Bound {
    const_fn! {
        fn new() -> Self {
            Self { bytes: AtomicUsize::new(0), share: AtomicU8::new(0) }
        }
    }

    fn set(&self, limit: Limit, cgroup: impl Fn() -> Option<usize>) {
        let (bytes, share) = match limit {
            Limit::None => (0, 0),
            Limit::Bytes(bytes) => (bytes.max(1), 0),
            Limit::CgroupShare(share) => {
                let share = share.clamp(1, 100);
                (cgroup().map_or(0, |all| (all / 100 * usize::from(share)).max(1)), share)
            }
        };
        self.share.store(share, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    fn reread(&self, cgroup: impl Fn() -> Option<usize>) {
        let share = self.share.load(Relaxed);
        if share != 0 {
            self.set(Limit::CgroupShare(share), cgroup);
        }
    }

    #[inline]
    fn get(&self) -> Option<usize> {
        match self.bytes.load(Relaxed) {
            0 => None,
            bytes => Some(bytes),
        }
    }
}

impl Policy {
    const_fn! {
        /// The defaults; all zero bits.
        pub fn new() -> Self {
            Self {
                decay: AtomicU32::new(0),
                hugepages: AtomicU8::new(0),
                soft: Bound::new(),
                hard: Bound::new(),
            }
        }
    }

    /// Sets how long free memory stays.
    pub fn set_decay(&self, decay: Decay) {
        let word = match decay {
            Decay::Never => NEVER,
            Decay::Within(time) => time.as_millis().min(DECAY_MOST_MS.into()) as u32 + 1,
        };
        self.decay.store(word, Relaxed);
    }

    /// How long free memory stays, in milliseconds; `None` is for ever.
    pub fn decay_ms(&self) -> Option<u32> {
        match self.decay.load(Relaxed) {
            0 => Some(DECAY_MS),
            NEVER => None,
            word => Some(word - 1),
        }
    }

    /// How long free memory stays.
    pub fn decay(&self) -> Decay {
        self.decay_ms().map_or(Decay::Never, |ms| Decay::Within(Duration::from_millis(ms.into())))
    }

    /// Sets the soft limit; `cgroup` is what the process's cgroup may use.
    pub fn set_soft(&self, limit: Limit, cgroup: impl Fn() -> Option<usize>) {
        self.soft.set(limit, cgroup);
    }

    /// Sets the hard limit.
    pub fn set_hard(&self, limit: Limit, cgroup: impl Fn() -> Option<usize>) {
        self.hard.set(limit, cgroup);
    }

    /// Sets limits that are shares of the cgroup's anew.
    pub fn reread_limits(&self, cgroup: impl Fn() -> Option<usize>) {
        self.soft.reread(&cgroup);
        self.hard.reread(&cgroup);
    }

    /// The soft limit in bytes.
    #[inline]
    pub fn soft(&self) -> Option<usize> {
        self.soft.get()
    }

    /// The hard limit in bytes.
    #[inline]
    pub fn hard(&self) -> Option<usize> {
        self.hard.get()
    }

    /// Sets when hugepages are asked for.
    pub fn set_hugepages(&self, policy: HugepagePolicy) {
        self.hugepages.store(policy as u8, Relaxed);
    }

    /// When hugepages are asked for.
    pub fn hugepages(&self) -> HugepagePolicy {
        match self.hugepages.load(Relaxed) {
            1 => HugepagePolicy::Always,
            2 => HugepagePolicy::Never,
            _ => HugepagePolicy::Auto,
        }
    }
}

/// Whether zeroed blocks get used, as their memory shows when it comes by again. A guess for a choice
/// of two right ways, so a lost update costs nothing but time.
#[derive(Debug)]
pub struct Zeroing {
    /// Blocks in a row, up to [`SURE`], that were hardly touched.
    untouched: AtomicU8,
}

const SURE: u8 = 4;

impl Zeroing {
    const_fn! {
        /// Zeroed blocks get used; all zero bits.
        pub fn new() -> Self {
            Self { untouched: AtomicU8::new(0) }
        }
    }

    /// Whether the next block should be dropped rather than written.
    pub fn drops(&self) -> bool {
        self.untouched.load(Relaxed) >= SURE
    }

    /// A block that was handed out zeroed has come back.
    pub fn learn(&self, touched: bool) {
        let untouched = self.untouched.load(Relaxed);
        let next = if touched { untouched / 2 } else { (untouched + 1).min(SURE) };
        if next != untouched {
            self.untouched.store(next, Relaxed);
        }
    }
}

impl Default for Zeroing {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;

    #[test]
    fn zeroed_blocks_are_dropped_once_they_are_seen_untouched() {
        let zeroing = Zeroing::new();
        assert!(!zeroing.drops());
        (0..SURE).for_each(|_| {
            assert!(!zeroing.drops());
            zeroing.learn(false);
        });
        assert!(zeroing.drops());
        zeroing.learn(true);
        assert!(!zeroing.drops(), "one that is touched is enough");
    }

    #[test]
    fn zero_is_the_default_and_what_is_set_is_read() {
        let policy = Policy::new();
        assert_eq!(policy.decay(), Decay::Within(Duration::from_secs(10)));
        assert_eq!(policy.hugepages(), HugepagePolicy::Auto);
        for decay in [Decay::Within(Duration::ZERO), Decay::Within(Duration::from_secs(60))] {
            policy.set_decay(decay);
            assert_eq!(policy.decay(), decay);
        }
        policy.set_decay(Decay::Within(Duration::MAX));
        assert_eq!(policy.decay_ms(), Some(DECAY_MOST_MS as u32));
        policy.set_decay(Decay::Never);
        assert_eq!((policy.decay(), policy.decay_ms()), (Decay::Never, None));
        assert_eq!((policy.soft(), policy.hard()), (None, None));
        policy.set_soft(Limit::Bytes(5 << 20), || None);
        policy.set_hard(Limit::CgroupShare(80), || Some(1000 << 20));
        assert_eq!((policy.soft(), policy.hard()), (Some(5 << 20), Some(800 << 20)));
        policy.reread_limits(|| Some(100 << 20));
        assert_eq!((policy.soft(), policy.hard()), (Some(5 << 20), Some(80 << 20)));
        policy.reread_limits(|| None);
        assert_eq!((policy.soft(), policy.hard()), (Some(5 << 20), None));
        policy.set_soft(Limit::None, || None);
        assert_eq!(policy.soft(), None);
        for hugepages in [HugepagePolicy::Always, HugepagePolicy::Never, HugepagePolicy::Auto] {
            policy.set_hugepages(hugepages);
            assert_eq!(policy.hugepages(), hugepages);
        }
    }
}
