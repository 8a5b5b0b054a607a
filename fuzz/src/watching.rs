//! Observed modes, switched on and off in the middle of a case, and read while they are on.
//!
//! What the shadow knows holds in every mode. Blocks of one mode are freed, resized and measured in another.

use arbitrary::Arbitrary;
use spandrel::{Check, Entered, profile};

/// Switches something.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Switch {
    Check { to: u8 },
    Guard { every: u8 },
    Profile { every: u8 },
    Leaks { on: bool },
    Tags { on: bool },
    Tag { which: u8 },
    Off,
}

/// Reads what was seen.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Look {
    Leaks,
    Profile,
    Tags,
    Map,
}

/// Reading takes far longer than any other step: so often for a thread's part of a case.
const MOST_LOOKS: u32 = 4;
/// All of the process's memory is read for leaks: only while there is not much of it.
const MOST_LOOKED_AT: usize = 32 << 20;

/// The modes of a door; what it has no function for is switched through Rust's.
pub trait Modes {
    /// Checked mode.
    fn check(&self, to: Check) {
        spandrel::check(to);
    }

    /// Guarded blocks, one in so many.
    fn guard(&self, every: u32) {
        assert!(spandrel::guard(every), "there is room for guarded pages");
    }
}

/// What a thread has to do with modes.
#[derive(Debug, Default)]
pub struct Watcher {
    tag: Option<Entered>,
    looks: u32,
}

impl Watcher {
    /// Does a switch.
    pub fn switch(&mut self, door: &impl Modes, switch: Switch) {
        crate::trace_step(&switch);
        match switch {
            Switch::Check { to } => door.check(match to % 4 {
                0 => Check::Off,
                1 => Check::Stacks,
                _ => Check::On,
            }),
            // Often each block, as long as there are slots.
            Switch::Guard { every } => door.guard([0, 1, 1, 2, 10, 100][every as usize % 6]),
            Switch::Profile { every } => match [0, 0, 1, 1 << 10, 64 << 10][every as usize % 5] {
                0 => profile::stop(),
                interval => profile::start(interval).expect("there is room for its tables"),
            },
            Switch::Leaks { on } => spandrel::watch_leaks(on),
            Switch::Tags { on } => spandrel::count_tags(on),
            Switch::Tag { which } => {
                // The one before is the thread's again first: guards end in the order of a stack.
                drop(self.tag.take());
                let name = ["red", "green", "blue", ""][which as usize % 4];
                self.tag = (!name.is_empty()).then(|| spandrel::tag(name).enter());
            }
            Switch::Off => all_off(door),
        }
    }

    /// Does a look. Nothing that is held is lost, which can be said while nobody else works (`alone`).
    pub fn look(&mut self, look: Look, held: usize, alone: bool) {
        if self.looks == MOST_LOOKS {
            return;
        }
        self.looks += 1;
        crate::trace_step(&look);
        match look {
            Look::Leaks if alone && held < MOST_LOOKED_AT => {
                if let Ok(leaks) = spandrel::leaks() {
                    assert!(leaks.is_clean(), "what is held is lost: {leaks:?}");
                }
            }
            Look::Leaks => {}
            Look::Profile => {
                let seen = profile::snapshot();
                assert!(seen.in_use() <= seen.allocated(), "more is in use than was allocated");
            }
            Look::Tags => {
                for tag in spandrel::tags() {
                    assert!(tag.live <= tag.peak, "{tag:?}");
                }
            }
            Look::Map => match spandrel::write_map("/dev/null") {
                Err(error) if error.kind() != std::io::ErrorKind::ResourceBusy => {
                    panic!("no map: {error}")
                }
                _ => {}
            },
        }
    }
}

/// Nobody watches any more, and what was kept back goes home.
pub fn all_off(door: &impl Modes) {
    door.check(Check::Off);
    door.guard(0);
    profile::stop();
    spandrel::watch_leaks(false);
    spandrel::count_tags(false);
}
