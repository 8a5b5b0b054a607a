//! The list of options: how each is written, and what is allowed.

use super::values::{digits, is_path, limit, size, time};
use super::{Check, Decay, HugepagePolicy, Leaks, Options, Sites};
use core::time::Duration;

const LIMITS: &str = "a size with its unit (512MiB, 1.5GiB, 2GB), at least 1MiB, a share of the cgroup's limit (80%), or none";

/// One option as it is written.
pub struct Key {
    pub name: &'static str,
    pub allowed: &'static str,
    pub set: fn(&mut Options, &[u8]) -> Option<()>,
}

/// All options, in the order in which they are listed to users.
pub static KEYS: [Key; 17] = [
    Key {
        name: "decay",
        allowed: "a time with its unit (500ms, 10s, 2min, 1h), 0 or never",
        set: |options, value| {
            options.decay = Some(match value {
                b"never" => Decay::Never,
                b"0" => Decay::Within(Duration::ZERO),
                _ => Decay::Within(time(value)?),
            });
            Some(())
        },
    },
    Key {
        name: "limit",
        allowed: LIMITS,
        set: |options, value| {
            options.limit = Some(limit(value)?);
            Some(())
        },
    },
    Key {
        name: "soft",
        allowed: LIMITS,
        set: |options, value| {
            options.soft = Some(limit(value)?);
            Some(())
        },
    },
    Key {
        name: "background",
        allowed: "on or off",
        set: |options, value| {
            options.background = Some(match value {
                b"on" => true,
                b"off" => false,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "hugepages",
        allowed: "auto, always or never",
        set: |options, value| {
            options.hugepages = Some(match value {
                b"auto" => HugepagePolicy::Auto,
                b"always" => HugepagePolicy::Always,
                b"never" => HugepagePolicy::Never,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "stats",
        allowed: "exit, off, or the absolute path of a file to append to",
        set: |options, value| {
            options.stats = Some(match value {
                b"exit" => true,
                b"off" => false,
                _ if is_path(value) => true,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "check",
        allowed: "off, on or stacks",
        set: |options, value| {
            options.check = Some(match value {
                b"off" => Check::Off,
                b"on" => Check::On,
                b"stacks" => Check::Stacks,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "guard",
        allowed: "a number, one block in so many (5000), or off",
        set: |options, value| {
            options.guard = Some(match value {
                b"off" => 0,
                _ if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                    u32::try_from(digits(value)?).ok()?
                }
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "map",
        allowed: "off, or the absolute path of a file",
        set: |options, value| {
            options.map = Some(match value {
                b"off" => false,
                _ if is_path(value) => true,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "map-every",
        allowed: "a time with its unit (500ms, 10s, 2min, 1h), at least 1ms",
        set: |options, value| {
            options.map_every = Some(time(value).filter(|time| !time.is_zero())?);
            Some(())
        },
    },
    Key {
        name: "map-sites",
        allowed: "off, sampled or all",
        set: |options, value| {
            options.map_sites = Some(match value {
                b"off" => Sites::None,
                b"sampled" => Sites::Sampled,
                b"all" => Sites::All,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "trace",
        allowed: "off, or the absolute path of a file",
        set: |options, value| {
            options.trace = Some(match value {
                b"off" => false,
                _ if is_path(value) => true,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "leaks",
        allowed: "on, off, or all",
        set: |options, value| {
            options.leaks = Some(match value {
                b"on" => Leaks::On,
                b"off" => Leaks::Off,
                b"all" => Leaks::All,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "leaks-exit",
        allowed: "an exit code, 1 to 255",
        set: |options, value| {
            let code = u8::try_from(digits(value)?).ok().filter(|&code| code != 0)?;
            options.leaks_exit = Some(code);
            Some(())
        },
    },
    Key {
        name: "profile",
        allowed: "the bytes between two samples (512KiB, 1B samples all), or off",
        set: |options, value| {
            options.profile = Some(match value {
                b"off" => 0,
                _ => size(value).filter(|&bytes| bytes != 0)?,
            });
            Some(())
        },
    },
    Key {
        name: "profile-file",
        allowed: "off, or the absolute path of a file",
        set: |options, value| {
            options.profile_file = Some(match value {
                b"off" => false,
                _ if is_path(value) => true,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "tags",
        allowed: "on or off",
        set: |options, value| {
            options.tags = Some(match value {
                b"on" => true,
                b"off" => false,
                _ => return None,
            });
            Some(())
        },
    },
];
