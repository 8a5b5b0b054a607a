//! M13: whether an object is held, in a byte of its window's shadow. `src/page/shadow.rs`.
#![cfg(spandrel_model)]

use loom_tests::{Model, red};
use spandrel::base::sync::AtomicUsize;
use spandrel::base::sync::Ordering::{Acquire, Release};
use spandrel::base::units::{WINDOW, WINDOW_SHIFT};
use spandrel::os::fake::Fake;
use spandrel::page::shadow::{SHIFT, Said, Shadow};

/// One window and the objects in it.
struct Desk {
    os: Fake,
    shadow: Shadow<1>,
    /// Where the program keeps a pointer to an object; 0 before it has one.
    kept: AtomicUsize,
}

const FIRST: usize = WINDOW + 32;
const SECOND: usize = WINDOW + 48;

impl Desk {
    fn new() -> Self {
        Self { os: Fake::new(true), shadow: Shadow::new(), kept: AtomicUsize::new(0) }
    }

    fn begin(&self) -> (usize, usize) {
        self.shadow.begin(&self.os, WINDOW >> WINDOW_SHIFT)
    }

    fn hold(&self, addr: usize) {
        // SAFETY: an address in the window.
        unsafe { self.shadow.hold(addr) };
    }

    fn let_go(&self, addr: usize) -> bool {
        // SAFETY: an address in the window.
        unsafe { self.shadow.byte(addr >> SHIFT) }.is_some_and(|byte| byte.let_go())
    }

    fn look(&self, addr: usize) -> Said {
        // SAFETY: an address in the window.
        unsafe { self.shadow.look(addr) }
    }
}

/// A window begins, and its first object goes out and is kept where others find it.
fn hand_out(desk: &Desk) -> Option<bool> {
    desk.begin();
    desk.hold(FIRST);
    desk.kept.store(FIRST, Release);
    None
}

/// Frees what is kept, if anything is: whether it was held.
fn free(desk: &Desk) -> Option<bool> {
    let kept = desk.kept.load(Acquire);
    (kept != 0).then(|| desk.let_go(kept))
}

/// How many frees there were, and how many of them saw a held object.
fn freed(desk: &Desk, answers: &[Option<bool>]) -> (usize, usize) {
    let frees = answers.iter().flatten().count();
    let held = answers.iter().flatten().filter(|held| **held).count();
    assert!(frees == 0 || held > 0, "a held object is not known");
    let late = desk.let_go(FIRST);
    assert_eq!(late, frees == 0, "an object that was freed is held");
    (frees, held)
}

static FREE_TWICE: Model<Desk, Option<bool>, (usize, usize)> = Model {
    name: "M13 free twice",
    setup: Desk::new,
    threads: &[("hand out", hand_out), ("free", free), ("free", free)],
    crowd: &[("hand out", hand_out), ("free", free), ("free", free), ("free", free)],
    outcome: freed,
    // Two at the same moment may both see it held: that is their span's to see.
    expected: &[(0, 0), (1, 1), (2, 1), (2, 2)],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn a_free_that_follows_another_is_seen() {
    FREE_TWICE.holds();
}

red!(red_when_what_is_freed_stays_held: FREE_TWICE, HeldForEver, "an object that was freed is held");

/// Begins the window, and then has an object of its own go out and come back.
fn begin(desk: &Desk, addr: usize) -> bool {
    let (mapped, _) = desk.begin();
    desk.hold(addr);
    assert!(desk.look(addr) == Said::Held, "a held object is not known");
    assert!(desk.let_go(addr), "a held object is not known");
    mapped != 0
}

static BEGIN: Model<Desk, bool, bool> = Model {
    name: "M13 begin",
    setup: Desk::new,
    threads: &[("first", |desk| begin(desk, FIRST)), ("second", |desk| begin(desk, SECOND))],
    crowd: &[
        ("first", |desk| begin(desk, FIRST)),
        ("second", |desk| begin(desk, SECOND)),
        ("third", |desk| begin(desk, WINDOW + 64)),
    ],
    outcome: |desk, mapped| {
        assert_eq!(mapped.iter().filter(|m| **m).count(), 1, "one shadow for a window");
        assert!(desk.look(FIRST) == Said::Free && desk.look(SECOND) == Said::Free);
        mapped[0]
    },
    expected: &[false, true],
    bound: None,
    long: None,
    schedules: 10_000,
};

#[test]
fn a_window_has_one_shadow() {
    BEGIN.holds();
}

red!(red_when_a_shadow_is_published_by_a_store: BEGIN, ShadowByStore,
    "a held object is not known" | "one shadow for a window" | "Causality violation");
#[cfg(spandrel_loom)]
red!(red_when_a_shadow_is_not_released: BEGIN, ShadowRelaxed, "Causality violation");
