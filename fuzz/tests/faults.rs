//! Every call of a failing system fails in turn: once, three times, for ever; then by chance; then under
//! limits. After each: what is held is intact, what was refused is served when the system is well again,
//! and the books balance.

use fuzz::deadline::running;
use fuzz::floors::{Building, Entry, Hand, Op};
use fuzz::size::Size::{self, Granules, Hugepages, Mapping, Power};
use fuzz::system::{KINDS, Kind};

const fn take(class: u8, count: u8) -> Op {
    Op::Take { class, count }
}

const fn give(which: u16, count: u8) -> Op {
    Op::Give { which, count }
}

const fn large(size: Size, zeroed: bool) -> Op {
    Op::Large { size, align: 3, zeroed }
}

/// Every kind of call, several times.
const WORK: &[Op] = &[
    take(4, 129),
    take(30, 60),
    large(Granules(3, 1), false),
    // Two neighbours: the pages of the first move when it grows.
    large(Hugepages(3, 2), true),
    large(Hugepages(2, 0), false),
    Op::Resize { which: 192, size: Hugepages(9, 1) },
    Op::Resize { which: 191, size: Granules(60, 1) },
    large(Mapping(3, 0), true),
    Op::Resize { which: 194, size: Mapping(20, 1) },
    Op::Resize { which: 194, size: Mapping(1, 1) },
    // Its pages move to a mapping.
    large(Hugepages(4, 1), false),
    Op::Resize { which: 195, size: Mapping(9, 1) },
    give(0, 100),
    Op::Flush,
    Op::Purge,
    Op::Shed,
    take(12, 129),
    // Aligned to 64 MiB and to 1 GiB.
    Op::Large { size: Power(20, 1), align: 26, zeroed: false },
    Op::Large { size: Power(20, 1), align: 30, zeroed: true },
    Op::Advance { ms: 60_000 },
    Op::Tick,
    give(10, 60),
    Op::Books,
    Op::Retire,
    take(49, 40),
    Op::Die,
    take(2, 100),
    Op::Books,
];

/// Does the work on a system that `ail` has made ill, and again on the healed one. Answers how many of
/// its calls failed.
#[track_caller]
fn survive(page_size: usize, small: bool, what: &str, ail: impl Fn(&Building)) -> u64 {
    let _running = running(what);
    let building = Building::new(Entry::Caches, page_size);
    let mut hand = Hand::new(&building);
    if small {
        // No window can be had, so address space comes in many calls.
        hand.step(Op::Longest { mib: 200 }, true);
    }
    ail(&building);
    for (at, &op) in WORK.iter().enumerate() {
        hand.step(op, true);
        if std::env::var_os("FUZZ_TRACE").is_some() {
            println!("{what}: step {at}");
        }
    }
    hand.check_all();
    let failed = building.system().failed();
    hand.step(Op::Heal, true);
    WORK.iter().for_each(|&op| hand.step(op, true));
    hand.check_all();
    hand.give_all();
    hand.retire();
    building.close();
    failed
}

/// Calls of a kind that the work makes while nothing fails.
fn calls(page_size: usize, small: bool, kinds: u8) -> u64 {
    let counted = std::cell::Cell::new(0);
    let building = Building::new(Entry::Caches, page_size);
    let mut hand = Hand::new(&building);
    if small {
        hand.step(Op::Longest { mib: 200 }, true);
    }
    building.system().fail(kinds, u64::MAX, 0);
    WORK.iter().for_each(|&op| hand.step(op, true));
    counted.set(building.system().calls());
    hand.give_all();
    hand.retire();
    building.close();
    counted.get()
}

#[test]
fn every_call_in_turn() {
    let (mut runs, mut faults) = (0u64, 0);
    for (page_size, small) in [(4096, false), (4096, true), (64 << 10, false)] {
        for kind in KINDS {
            let bit = 1 << kind as u8;
            let calls = calls(page_size, small, bit);
            let mut reached = 0;
            for call in 0..calls {
                for count in [1, 3, u64::MAX] {
                    let what = format!("{kind:?} {call} fails {count} times");
                    let failed = survive(page_size, small, &what, |b| {
                        b.system().fail(bit, call, count);
                    });
                    runs += 1;
                    faults += failed;
                    reached += u64::from(failed != 0);
                }
            }
            println!("{kind:?}, pages of {page_size}, small {small}: {calls} calls");
            assert!(calls == 0 || reached > 0, "{kind:?}: no fault was met");
            let never = matches!(kind, Kind::Hook | Kind::Unmap | Kind::Advise);
            assert!(never || calls > 0, "the work makes no call of kind {kind:?}");
        }
    }
    println!("{runs} runs, {faults} faults");
}

#[test]
fn any_call_by_chance() {
    let mut faults = 0;
    for one_in in 1..=16 {
        for kinds in [0xff, 0x01, 0x02, 0x04, 0x70] {
            let what = format!("one in {one_in} of {kinds:#x}");
            faults += survive(4096, one_in % 2 == 0, &what, |b| {
                b.system().fail_by_chance(kinds, one_in);
            });
        }
    }
    println!("{faults} faults");
    assert!(faults > 200);
}

/// No more than so much address space in all: RLIMIT_AS, or a system that does not overcommit.
#[test]
fn any_limit_of_address_space() {
    let mut runs = 0;
    for mib in (0..60).chain((60..2000).step_by(97)) {
        survive(4096, mib % 2 == 0, "a limit", |b| b.system().limit(mib << 20));
        survive(4096, false, "no window", |b| b.system().longest(mib << 20));
        runs += 2;
    }
    println!("{runs} runs");
}

/// The allocator's own limits, in bytes and as a share of a cgroup's.
#[test]
fn any_limit_of_its_own() {
    use spandrel::Limit;
    let mut runs = 0;
    for mib in (1..40).chain((40..700).step_by(61)) {
        for limit in [Limit::Bytes(mib << 20), Limit::CgroupShare(50)] {
            let building = Building::new(Entry::Caches, 4096);
            let mut hand = Hand::new(&building);
            building.system().cgroup(mib << 21);
            building.limit(limit);
            let backed = |b: &Building| b.stats().floors.page.backed;
            for &op in WORK {
                hand.step(op, true);
                assert!(backed(&building) <= mib << 20, "{} over {mib} MiB", backed(&building));
            }
            hand.check_all();
            hand.step(Op::Heal, true);
            WORK.iter().for_each(|&op| hand.step(op, true));
            hand.check_all();
            hand.give_all();
            hand.retire();
            building.close();
            runs += 1;
        }
    }
    println!("{runs} runs");
}

#[test]
fn hugepage_advice_refused() {
    for page_size in [4096, 16 << 10, 64 << 10] {
        survive(page_size, false, "advice", |b| {
            b.system().fail(1 << Kind::Advise as u8, 0, u64::MAX);
        });
    }
}
