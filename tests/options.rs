//! Options: from the allocator's own const, from code, from the environment, in that order of weakness.
//! Each in a child of its own, because a process reads its environment once.

mod common;

use common::child;
use spandrel::front::{building::pages, config};
use spandrel::os::Os;
use spandrel::{Configured, Decay, HugepagePolicy, Options};
use std::time::Duration;

const OWN: Decay = Decay::Within(Duration::from_millis(1234));

#[global_allocator]
static A: Configured = Configured::new(Options::new().decay(OWN));

#[test]
fn the_allocators_own_options_are_in_force_from_the_start() {
    assert_eq!(pages().policy().decay(), OWN);
    assert_eq!(pages().policy().hugepages(), HugepagePolicy::Auto);
    assert!(!config::stats_at_exit());
}

#[test]
fn the_environment_overrules_what_it_names_and_nothing_else() {
    const NAME: &str = "the_environment_overrules_what_it_names_and_nothing_else";
    if child::is(NAME) {
        assert_eq!(pages().policy().decay(), Decay::Within(Duration::from_millis(2500)));
        assert!(config::stats_at_exit());
        let code = Options::new().decay(Decay::Never).stats_at_exit(false);
        spandrel::configure(&code.hugepages(HugepagePolicy::Never));
        assert_eq!(pages().policy().decay(), Decay::Within(Duration::from_millis(2500)));
        assert!(config::stats_at_exit());
        assert_eq!(pages().policy().hugepages(), HugepagePolicy::Never);
        return;
    }
    let (_, errors) = child::passes_with(NAME, "decay=2.5s, stats=exit");
    assert_eq!(errors, "");
}

#[test]
fn what_is_not_understood_is_said_once_and_changes_nothing() {
    const NAME: &str = "what_is_not_understood_is_said_once_and_changes_nothing";
    if child::is(NAME) {
        assert_eq!(pages().policy().decay(), OWN);
        assert_eq!(pages().policy().hugepages(), HugepagePolicy::Always);
        std::thread::spawn(|| drop(vec![1])).join().expect("no panic");
        return;
    }
    let (_, errors) = child::passes_with(NAME, "decay=soon,huge=1,hugepages=always");
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with("spandrel: SPANDREL: bad value `soon` of decay"), "{errors}");
    assert!(lines[1].starts_with("spandrel: SPANDREL: unknown option `huge`; there are: decay"));
}

#[test]
fn code_may_change_its_mind() {
    const NAME: &str = "code_may_change_its_mind";
    if child::is(NAME) {
        for decay in [Decay::Never, Decay::Within(Duration::ZERO)] {
            spandrel::configure(&Options::new().decay(decay));
            assert_eq!(pages().policy().decay(), decay);
        }
        return;
    }
    child::passes_with(NAME, "");
}

/// A share of nothing limits nothing: that is said where there is no limit to have a share of, and only there.
#[test]
fn a_share_of_no_limit_is_told() {
    const NAME: &str = "a_share_of_no_limit_is_told";
    if child::is(NAME) {
        drop(vec![1]);
        return;
    }
    let (_, errors) = child::passes_with(NAME, "soft=75%");
    let told = "spandrel: SPANDREL: soft is a share of the cgroup's limit, and there is none: nothing is limited\n";
    let limited = pages().os().memory_limit().is_some();
    assert_eq!(errors, if limited { "" } else { told });
}
