//! Options on their way to the floors: the environment's first, then the program's.
//!
//! What the environment names stays as it says, so that an operator can overrule a program. It is read
//! on the first slow path that finds it set up, which may be before `main`; a thread that comes in
//! meanwhile goes on with what is known, nobody waits.

use super::building::pages;
use super::{map, trace};
use crate::background;
use crate::base::line::Line;
use crate::base::options::{Check, Leaks, Limit, Options, VARIABLE};
use crate::base::sync::AtomicU32;
use crate::base::sync::Ordering::Relaxed;
use crate::os::Os;
use crate::page::Limits;
use crate::watch::{self, mode, sample};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, AtomicU8};

/// Whether nothing is left to do on a slow path but its own work. Cleared by who has something.
static SETTLED: AtomicBool = AtomicBool::new(false);

/// Whether a thread has begun to read the environment.
static READ: AtomicBool = AtomicBool::new(false);

/// Whether the allocator's own options were set.
static CONFIGURED: AtomicBool = AtomicBool::new(false);

/// Which options the environment named.
static NAMED: AtomicU32 = AtomicU32::new(0);

/// Whether a snapshot is wanted when the process ends.
static STATS_AT_EXIT: AtomicBool = AtomicBool::new(false);

/// The file it goes to; all zero for standard error. A copy, because servers write their titles over
/// the environment they were started with.
static STATS_PATH: [AtomicU8; PATH_MAX] = [const { AtomicU8::new(0) }; PATH_MAX];

/// What is to be shown of leaks at the end, and the exit code then, or 0.
static LEAKS: AtomicU8 = AtomicU8::new(0);
static LEAKS_EXIT: AtomicU8 = AtomicU8::new(0);

/// The file of the heap profile; all zero for none.
static PROFILE_PATH: [AtomicU8; PATH_MAX] = [const { AtomicU8::new(0) }; PATH_MAX];

pub use crate::os::file::PATH_MAX;

/// Whether a snapshot was asked for at the end of the process. For the C door, which has one to hook.
pub fn stats_at_exit() -> bool {
    STATS_AT_EXIT.load(Relaxed)
}

/// The file that the snapshot is appended to, a path that ends with a zero; none for standard error.
pub fn stats_path() -> Option<[u8; PATH_MAX]> {
    let path = core::array::from_fn(|i| STATS_PATH[i].load(Relaxed));
    (path[0] != 0).then_some(path)
}

/// What is to be shown of what is live at the end of the process, and the exit code of one that has lost
/// memory. For the C door.
pub fn leaks_at_exit() -> (Leaks, Option<u8>) {
    let wanted = match LEAKS.load(Relaxed) {
        0 => Leaks::Off,
        1 => Leaks::On,
        _ => Leaks::All,
    };
    let code = LEAKS_EXIT.load(Relaxed);
    (wanted, (code != 0).then_some(code))
}

/// The file that the heap profile is written to at the end of the process, a path that ends with a zero. For
/// the C door.
pub fn profile_path() -> Option<[u8; PATH_MAX]> {
    let path = core::array::from_fn(|i| PROFILE_PATH[i].load(Relaxed));
    (path[0] != 0).then_some(path)
}

/// On every slow path, of an allocation or a free: one load.
#[inline]
pub fn attend(allocating: bool) {
    if !is_settled() {
        attend_to_all(allocating);
    }
}

/// The background thread is not started before granules have come home: until then there is nothing for
/// it to do, and the process may not be set up yet.
#[cold]
#[inline(never)]
fn attend_to_all(allocating: bool) {
    read_environment();
    if map::is_periodic() {
        // Every slow path looks whether it is time.
        map::tick();
        if background::owed() && pages().bell().gives() > 0 {
            background::pay(allocating);
        }
    } else if !background::owed() {
        SETTLED.store(READ.load(Relaxed), Relaxed);
    } else if pages().bell().gives() > 0 {
        background::pay(allocating);
    }
}

/// Whether slow paths have nothing to see to.
#[inline]
pub fn is_settled() -> bool {
    SETTLED.load(Relaxed)
}

/// The next slow path has something to do.
pub(crate) fn unsettle() {
    SETTLED.store(false, Relaxed);
}

/// Sets what these options name, unless the environment has named it. They count from the next
/// decision on; a program that wants them from the first byte on has a [`Configured`] allocator.
///
/// ```
/// use spandrel::{Decay, Options};
/// spandrel::configure(&Options::new().decay(Decay::Never));
/// ```
///
/// [`Configured`]: super::Configured
pub fn configure(options: &Options) {
    read_environment();
    let options = options.without(NAMED.load(Relaxed));
    apply(&options);
    match options.background {
        Some(true) => background::pay(true),
        Some(false) => drop(background::stop()),
        None => {}
    }
}

/// Reads the cgroup's limit again and sets the limits that are shares of it.
pub fn reread_limits() {
    pages().policy().reread_limits(|| pages().os().memory_limit());
}

/// The limits, what counts against them now, and what became of them.
pub fn limits() -> Limits {
    pages().limits()
}

/// As [`configure`], once, for the allocator that was made with these options.
#[inline]
pub(super) fn configure_once(options: &Options) {
    if !CONFIGURED.load(Relaxed) && !CONFIGURED.swap(true, Relaxed) {
        read_environment();
        apply(&options.without(NAMED.load(Relaxed)));
    }
}

fn apply(options: &Options) {
    let policy = pages().policy();
    if let Some(decay) = options.decay {
        policy.set_decay(decay);
    }
    let cgroup = || pages().os().memory_limit();
    if let Some(limit) = options.limit {
        policy.set_hard(limit, cgroup);
    }
    if let Some(limit) = options.soft {
        policy.set_soft(limit, cgroup);
    }
    if let Some(hugepages) = options.hugepages {
        policy.set_hugepages(hugepages);
    }
    if let Some(background) = options.background {
        background::owe(background);
        unsettle();
    }
    if let Some(stats) = options.stats {
        STATS_AT_EXIT.store(stats, Relaxed);
    }
    if let Some(code) = options.leaks_exit {
        LEAKS_EXIT.store(code, Relaxed);
    }
    if let Some(leaks) = options.leaks {
        LEAKS.store(leaks as u8, Relaxed);
        watch(mode::LEAKS, leaks != Leaks::Off);
    }
    if let Some(tags) = options.tags {
        watch(mode::TAGS, tags);
    }
    if let Some(interval) = options.profile {
        mode::off(mode::PROFILE);
        watch(mode::PROFILE, interval != 0 && sample::begin(interval));
    }
    if let Some(check) = options.check {
        watch::check::set(check);
    }
    if let Some(every) = options.guard
        && !watch::guard::set(every)
    {
        let mut line = Line::new();
        line.push(b"spandrel: guard: the system has no room for guarded pages: none are used");
        line.say();
    }
}

fn watch(who: u64, on: bool) {
    if on { mode::on(who) } else { mode::off(who) }
}

/// Looks for misuse from now on, or no more. On, a program pays for it with every call; blocks from before are
/// checked as far as they can be. Off, blocks that were laid out for it keep every call on the slow path
/// until the last of them is freed.
///
/// What the environment says of `check` is overruled: a program that calls this means it.
///
/// ```
/// use spandrel::Check;
/// spandrel::check(Check::Stacks);
/// # let block = Box::new([0u8; 100]);
/// # drop(block);
/// spandrel::check(Check::Off);
/// ```
pub fn check(check: Check) {
    read_environment();
    watch::check::set(check);
}

/// Puts one small block (up to 32 KiB) in `every` on pages of its own between closed ones from now on; 0: no
/// more. A touch past its end, before its start or after its free stops the process with the stacks of its
/// allocation and its free. `false`: the system has no room for it.
pub fn guard(every: u32) -> bool {
    read_environment();
    watch::guard::set(every)
}

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

fn read_environment() {
    // SAFETY: a word of the C library's; a program that changes its environment while it starts
    // threads is broken already.
    let start = unsafe { environ };
    // Before the C library is set up there is none: the next slow path looks again.
    if start.is_null() || READ.load(Relaxed) || READ.swap(true, Relaxed) {
        return;
    }
    SETTLED.store(true, Relaxed);
    // A program with more rights than its caller does not let that one set it up.
    // SAFETY: getauxval reads what the kernel handed over.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return;
    }
    // SAFETY: errno is this thread's own.
    let saved = unsafe { *libc::__errno_location() };
    if let Some(text) = variable(start) {
        let options = Options::parse(text, |problem| problem.line().say());
        tell_what_does_nothing(&options);
        NAMED.store(options.named(), Relaxed);
        // The last byte stays zero: a longer path is cut off, and then names no file.
        let path = Options::path(text, "stats").unwrap_or_default();
        for (to, &byte) in STATS_PATH[..PATH_MAX - 1].iter().zip(path) {
            to.store(byte, Relaxed);
        }
        let path = Options::path(text, "profile-file").unwrap_or_default();
        for (to, &byte) in PROFILE_PATH[..PATH_MAX - 1].iter().zip(path) {
            to.store(byte, Relaxed);
        }
        apply(&options);
        if options.map == Some(true)
            && let Some(path) = Options::path(text, "map")
        {
            map::begin(path, options.map_every, options.map_sites);
        }
        if options.trace == Some(true)
            && let Some(path) = Options::path(text, "trace")
        {
            trace::start(path);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = saved };
}

/// What was asked for and cannot be had, one line each.
fn tell_what_does_nothing(options: &Options) {
    let say = |option: &str, text: &[u8], other: &str| {
        let mut line = Line::new();
        for part in [b"spandrel: SPANDREL: ", option.as_bytes(), text, other.as_bytes()] {
            line.push(part);
        }
        line.say();
    };
    for (option, needed) in options.idle() {
        say(option, b" does nothing without ", needed);
    }
    for (limit, option) in [(options.limit, "limit"), (options.soft, "soft")] {
        if matches!(limit, Some(Limit::CgroupShare(_))) && pages().os().memory_limit().is_none() {
            say(
                option,
                b" is a share of the cgroup's limit, and there is none: nothing is limited",
                "",
            );
        }
    }
}

/// The variable's value in an environment.
fn variable(start: *const *const c_char) -> Option<&'static [u8]> {
    for i in 0.. {
        // SAFETY: an environment is an array of strings that ends with a null pointer.
        let entry = unsafe { *start.add(i) };
        if entry.is_null() {
            break;
        }
        // SAFETY: as above.
        let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
        let value = entry.strip_prefix(VARIABLE.as_bytes()).and_then(|e| e.strip_prefix(b"="));
        if value.is_some() {
            return value;
        }
    }
    None
}
