//! What can be set, and how it is written: one list for code and for the environment variable
//! `SPANDREL`. A pure parser; who acts on an option is in [`front::config`](crate::front).
//!
//! ```text
//! SPANDREL=decay=5s,hugepages=never
//! ```
//!
//! Items are separated by commas; white space around them does not matter; of two items with one key
//! the later counts. An item that is not understood leaves its option as it was and is told to the
//! caller, who reports it.

mod keys;
mod values;

use super::line::Line;
use core::time::Duration;
use keys::KEYS;

/// The environment variable.
pub const VARIABLE: &str = "SPANDREL";

/// How long free memory stays before it is returned to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// All of a burst is returned this long after it was freed, rounded to milliseconds; zero: at
    /// once. At most 24 days.
    Within(Duration),
    /// Only [`purge`](crate::purge), or a limit, returns memory.
    Never,
}

/// How much memory the heap may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As much as the system gives.
    None,
    /// So many bytes.
    Bytes(usize),
    /// So many hundredths, 1 to 100, of what the process's cgroup (v2) may use; no limit where that has
    /// none. Read when it is set, and by [`reread_limits`](crate::reread_limits).
    CgroupShare(u8),
}

/// When the allocator asks for hugepages (2 MiB) behind its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HugepagePolicy {
    /// Once the heap is large; a small process pays for no page it does not touch.
    Auto = 0,
    /// From the first byte on.
    Always,
    /// Never: the system does as it is set up.
    Never,
}

/// Whether leaks are watched, and how much of what is live is shown at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leaks {
    /// Not.
    Off = 0,
    /// The largest places.
    On,
    /// All places.
    All,
}

/// What is done about blocks that a program misuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// What the allocator sees anyway stops the process.
    Off,
    /// Freed blocks are filled, kept back and looked at, and have canaries behind them.
    On,
    /// The same, and the stacks of allocation and free are kept.
    Stacks,
}

/// What a program or its environment wants changed; what is not named stays as it is.
///
/// ```
/// use spandrel::{Decay, Options};
/// const OPTIONS: Options = Options::new().decay(Decay::Never);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub(crate) decay: Option<Decay>,
    pub(crate) limit: Option<Limit>,
    pub(crate) soft: Option<Limit>,
    pub(crate) hugepages: Option<HugepagePolicy>,
    pub(crate) background: Option<bool>,
    pub(crate) stats: Option<bool>,
    pub(crate) check: Option<Check>,
    pub(crate) guard: Option<u32>,
    pub(crate) map: Option<bool>,
    pub(crate) map_every: Option<Duration>,
    pub(crate) map_sites: Option<Sites>,
    pub(crate) trace: Option<bool>,
    pub(crate) leaks: Option<Leaks>,
    pub(crate) leaks_exit: Option<u8>,
    pub(crate) profile: Option<usize>,
    pub(crate) profile_file: Option<bool>,
    pub(crate) tags: Option<bool>,
}

/// Which blocks' call sites are in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sites {
    None,
    Sampled,
    All,
}

impl Options {
    /// No wishes.
    pub const fn new() -> Self {
        Self {
            decay: None,
            limit: None,
            soft: None,
            hugepages: None,
            background: None,
            stats: None,
            check: None,
            guard: None,
            map: None,
            map_every: None,
            map_sites: None,
            trace: None,
            leaks: None,
            leaks_exit: None,
            profile: None,
            profile_file: None,
            tags: None,
        }
    }

    /// Whether it is kept where each block was allocated, for [`leaks`](crate::leaks), from the first byte on.
    /// The C library of this allocator prints what is live when the process ends. By default not.
    pub const fn leaks(mut self, on: bool) -> Self {
        self.leaks = Some(if on { Leaks::On } else { Leaks::Off });
        self
    }

    /// A heap profile from the first byte on ([`profile`](crate::profile)), with a sample every so many bytes
    /// on average; 0 for none. By default none.
    pub const fn profile(mut self, interval: usize) -> Self {
        self.profile = Some(interval);
        self
    }

    /// Whether blocks are put down to [`tag`](crate::tag)s, as [`count_tags`](crate::count_tags) says. By
    /// default not.
    pub const fn tags(mut self, on: bool) -> Self {
        self.tags = Some(on);
        self
    }

    /// How long free memory stays. By default 10 s.
    pub const fn decay(mut self, decay: Decay) -> Self {
        self.decay = Some(decay);
        self
    }

    /// The hard limit: a request beyond it gets a null pointer. By default none.
    pub const fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The soft limit: crossing it returns what is free, and if that is not enough, calls
    /// [`on_pressure`](crate::background::on_pressure)'s function. By default none.
    pub const fn soft_limit(mut self, limit: Limit) -> Self {
        self.soft = Some(limit);
        self
    }

    /// Whether a thread returns memory while nobody allocates, as
    /// [`background::start`](crate::background::start) does. By default not.
    pub const fn background(mut self, on: bool) -> Self {
        self.background = Some(on);
        self
    }

    /// When to ask for hugepages. By default [`HugepagePolicy::Auto`].
    pub const fn hugepages(mut self, policy: HugepagePolicy) -> Self {
        self.hugepages = Some(policy);
        self
    }

    /// Whether the C library of this allocator prints a snapshot to standard error when the process
    /// ends. By default not. A Rust program prints [`stats`](crate::stats) itself.
    pub const fn stats_at_exit(mut self, on: bool) -> Self {
        self.stats = Some(on);
        self
    }

    /// Whether misuse is looked for, as [`check`](crate::check()) does. By default not.
    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// One small block in so many has pages of its own, as [`guard`](crate::guard()) says; 0: none. By
    /// default none.
    pub const fn guard(mut self, every: u32) -> Self {
        self.guard = Some(every);
        self
    }

    /// Reads the value of the environment variable. What is not understood goes to `problem`, one
    /// call an item, and changes nothing.
    pub fn parse(text: &[u8], mut problem: impl FnMut(&Problem<'_>)) -> Self {
        let mut options = Self::new();
        for item in text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if item.is_empty() {
                continue;
            }
            let (key, value) = match item.iter().position(|&byte| byte == b'=') {
                Some(at) => (item[..at].trim_ascii(), Some(item[at + 1..].trim_ascii())),
                None => (item, None),
            };
            let Some(known) = KEYS.iter().find(|known| known.name.as_bytes() == key) else {
                problem(&Problem { key, value: None });
                continue;
            };
            if (known.set)(&mut options, value.unwrap_or(b"")).is_none() {
                problem(&Problem { key, value: Some(value.unwrap_or(b"")) });
            }
        }
        options
    }

    /// Options that do nothing by themselves, each with the one it needs and does not have.
    pub fn idle(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let leaks = self.leaks.is_some_and(|leaks| leaks != Leaks::Off);
        let map = self.map == Some(true);
        [
            (self.map_every.is_some() && !map, "map-every", "map"),
            (self.map_sites.is_some() && !map, "map-sites", "map"),
            (self.leaks_exit.is_some() && !leaks, "leaks-exit", "leaks"),
        ]
        .into_iter()
        .filter_map(|(idle, option, needed)| idle.then_some((option, needed)))
    }

    /// The file that the last `key` of the variable's value names, if it names one.
    #[cfg(not(spandrel_model))]
    pub(crate) fn path<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
        let mut items = text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let value = |item: &'a [u8]| {
            item.strip_prefix(key.as_bytes())?.trim_ascii_start().strip_prefix(b"=")
        };
        let last = items.rfind(|item| value(item).is_some())?;
        value(last).map(<[u8]>::trim_ascii).filter(|path| path.starts_with(b"/"))
    }

    /// Which options are named, a bit each.
    #[cfg(not(spandrel_model))]
    pub(crate) fn named(&self) -> u32 {
        u32::from(self.decay.is_some())
            | u32::from(self.hugepages.is_some()) << 1
            | u32::from(self.stats.is_some()) << 2
            | u32::from(self.limit.is_some()) << 3
            | u32::from(self.soft.is_some()) << 4
            | u32::from(self.background.is_some()) << 5
            | u32::from(self.check.is_some()) << 8
            | u32::from(self.guard.is_some()) << 9
            | u32::from(self.map.is_some()) << 16
            | u32::from(self.map_every.is_some()) << 17
            | u32::from(self.trace.is_some()) << 18
            | u32::from(self.leaks.is_some()) << 20
            | u32::from(self.leaks_exit.is_some()) << 21
            | u32::from(self.profile.is_some()) << 22
            | u32::from(self.profile_file.is_some()) << 23
            | u32::from(self.tags.is_some()) << 24
            | u32::from(self.map_sites.is_some()) << 19
    }

    /// These wishes but for the options in `named`.
    #[cfg(not(spandrel_model))]
    #[must_use]
    pub(crate) fn without(mut self, named: u32) -> Self {
        self.decay = self.decay.filter(|_| named & 1 == 0);
        self.hugepages = self.hugepages.filter(|_| named & 2 == 0);
        self.stats = self.stats.filter(|_| named & 4 == 0);
        self.limit = self.limit.filter(|_| named & 8 == 0);
        self.soft = self.soft.filter(|_| named & 16 == 0);
        self.background = self.background.filter(|_| named & 32 == 0);
        self.check = self.check.filter(|_| named & 1 << 8 == 0);
        self.guard = self.guard.filter(|_| named & 1 << 9 == 0);
        self.map = self.map.filter(|_| named & 1 << 16 == 0);
        self.map_every = self.map_every.filter(|_| named & 1 << 17 == 0);
        self.trace = self.trace.filter(|_| named & 1 << 18 == 0);
        self.leaks = self.leaks.filter(|_| named & 1 << 20 == 0);
        self.leaks_exit = self.leaks_exit.filter(|_| named & 1 << 21 == 0);
        self.profile = self.profile.filter(|_| named & 1 << 22 == 0);
        self.profile_file = self.profile_file.filter(|_| named & 1 << 23 == 0);
        self.tags = self.tags.filter(|_| named & 1 << 24 == 0);
        self.map_sites = self.map_sites.filter(|_| named & 1 << 19 == 0);
        self
    }
}

/// An item that was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    /// What stands before the `=`.
    pub key: &'a [u8],
    /// What stands behind it, if the key is known.
    pub value: Option<&'a [u8]>,
}

impl Problem<'_> {
    /// The problem and what is allowed instead, as a line.
    pub fn line(&self) -> Line {
        let mut line = Line::new();
        line.push(b"spandrel: ");
        line.push(VARIABLE.as_bytes());
        let known = KEYS.iter().find(|known| known.name.as_bytes() == self.key);
        if let (Some(value), Some(known)) = (self.value, known) {
            line.push(b": bad value ");
            line.push_quoted(value);
            line.push(b" of ");
            line.push(self.key);
            line.push(b", which stays as it was; allowed: ");
            line.push(known.allowed.as_bytes());
        } else {
            line.push(b": unknown option ");
            line.push_quoted(self.key);
            line.push(b"; there are: ");
            for (i, known) in KEYS.iter().enumerate() {
                line.push(if i == 0 { b"" } else { b", " });
                line.push(known.name.as_bytes());
            }
        }
        line
    }
}

/// The longest decay, so that ages fit the clocks of 32 bits: about 24 days.
pub const DECAY_MOST_MS: u64 = u32::MAX as u64 / 2;

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::values::{limit, time};
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> (Options, Vec<String>) {
        let mut said = Vec::new();
        let options = Options::parse(text.as_bytes(), |problem| {
            said.push(String::from_utf8(problem.line().bytes().to_vec()).unwrap());
        });
        (options, said)
    }

    #[test]
    fn what_is_understood() {
        let ms = |text| time(text).map(|t| t.as_millis());
        assert_eq!(ms(b"10s"), Some(10_000));
        assert_eq!(ms(b"1.5s"), Some(1_500));
        assert_eq!(ms(b"250 ms"), Some(250));
        assert_eq!(ms(b"0.5min"), Some(30_000));
        assert_eq!(ms(b"2h"), Some(7_200_000));
        for text in ["", "s", "10", "1.s", ".5s", "-1s", "1 day", "99999999999999999999s", "600h"] {
            assert_eq!(ms(text.as_bytes()), None, "{text}");
        }
        let all = " decay = 5s , hugepages=always,,stats=exit, decay=never";
        let wanted = Options::new()
            .decay(Decay::Never)
            .hugepages(HugepagePolicy::Always)
            .stats_at_exit(true);
        assert_eq!(problems(all), (wanted, vec![]));
        assert_eq!(problems("decay=0").0, Options::new().decay(Decay::Within(Duration::ZERO)));
        assert_eq!(problems(" , ,"), (Options::new(), vec![]));
    }

    #[test]
    fn limits_are_understood() {
        let bytes = |n| Some(Limit::Bytes(n));
        assert_eq!(limit(b"2GiB"), bytes(2 << 30));
        assert_eq!(limit(b"1.5g"), bytes(3 << 29));
        assert_eq!(limit(b"2 GB"), bytes(2_000_000_000));
        assert_eq!(limit(b"1048576B"), bytes(1 << 20));
        assert_eq!(limit(b"80%"), Some(Limit::CgroupShare(80)));
        assert_eq!(limit(b"none"), Some(Limit::None));
        for text in
            ["", "0", "1024", "1KiB", "0%", "101%", "%", "-1GiB", "1GiBs", "1e9B", "99999999T"]
        {
            assert_eq!(limit(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn who_watches() {
        let (options, said) =
            problems("leaks=all,leaks-exit=23,profile=1.5MiB,profile-file=/a.svg,tags=on");
        assert_eq!(said, [""; 0]);
        assert_eq!((options.leaks, options.leaks_exit), (Some(Leaks::All), Some(23)));
        assert_eq!((options.profile, options.profile_file), (Some(3 << 19), Some(true)));
        assert_eq!((options.tags, options.named()), (Some(true), 31 << 20));
        assert_eq!(problems("profile=off").0, Options::new().profile(0));
        assert_eq!(options.without(31 << 20), Options::new());
        for text in [
            "leaks=some",
            "leaks-exit=0",
            "leaks-exit=256",
            "leaks-exit=1:",
            "guard=1 0",
            "profile=0B",
            "profile=512",
        ] {
            assert_eq!(problems(text).1.len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_is() {
        let (options, said) = problems("decay=soon,colour=blue,hugepages,stats=exit");
        assert_eq!(options, Options::new().stats_at_exit(true));
        assert_eq!(
            said,
            [
                "spandrel: SPANDREL: bad value `soon` of decay, which stays as it was; allowed: \
                 a time with its unit (500ms, 10s, 2min, 1h), 0 or never",
                "spandrel: SPANDREL: unknown option `colour`; there are: decay, limit, soft, \
                 background, hugepages, stats, check, guard, map, map-every, map-sites, trace, leaks, \
                 leaks-exit, profile, profile-file, tags",
                "spandrel: SPANDREL: bad value `` of hugepages, which stays as it was; allowed: \
                 auto, always or never",
            ]
        );
        let (_, said) = problems(&format!("a\u{1b}[1m{}=1", "x".repeat(100)));
        assert!(said[0].starts_with("spandrel: SPANDREL: unknown option `a?[1mxxxx"), "{said:?}");
        assert!(said[0].contains("xxx...`; there are"), "{said:?}");
    }

    #[test]
    fn what_needs_another_option() {
        let idle = |text| problems(text).0.idle().collect::<Vec<_>>();
        assert_eq!(
            idle("map-every=1s,map-sites=all,leaks-exit=3"),
            [("map-every", "map"), ("map-sites", "map"), ("leaks-exit", "leaks")]
        );
        assert_eq!(
            idle(
                "map=/m,map-every=1s,map-sites=all,leaks=on,leaks-exit=3,profile=1K,profile-file=/a"
            ),
            []
        );
        assert_eq!(idle("map=off,map-sites=off,leaks=off,leaks-exit=3").len(), 2);
        assert_eq!(idle("profile-file=off,decay=0"), []);
        let long = format!("map=/{}", "x".repeat(libc::PATH_MAX as usize - 1));
        assert_eq!(problems(&long).1.len(), 1, "no path is that long");
        assert_eq!(problems(&long[..long.len() - 1]).0.map, Some(true));
    }

    #[test]
    fn what_somebody_else_has_named_is_left_out() {
        let all =
            problems("decay=0,limit=1GiB,soft=50%,background=on,hugepages=never,stats=exit").0;
        assert_eq!(all.without(0), all);
        assert_eq!(all.without(all.named()), Options::new());
        let environment = Options::new().decay(Decay::Never);
        assert_eq!(all.without(environment.named()).named(), all.named() & !environment.named());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut told = 0;
            Options::parse(&text, |problem| {
                assert!(!problem.line().bytes().is_empty());
                told += 1;
            });
            prop_assert!(told <= text.len());
        }
    }

    #[test]
    fn statistics_go_where_the_last_item_says() {
        assert_eq!(
            Options::path(b"decay=1s, stats = /a/b ,limit=1GiB", "stats"),
            Some(&b"/a/b"[..])
        );
        assert_eq!(Options::path(b"stats=/a,stats=exit", "stats"), None);
        assert_eq!(Options::path(b"stats=off,stats=/b", "stats"), Some(&b"/b"[..]));
        assert_eq!(Options::path(b"decay=1s", "stats"), None);
        assert_eq!(problems("stats=/a/b").0, Options::new().stats_at_exit(true));
        assert_eq!(
            problems("stats=here").1,
            [
                "spandrel: SPANDREL: bad value `here` of stats, which stays as it was; allowed: exit, \
              off, or the absolute path of a file to append to"
            ]
        );
    }
}
