//! The parser of the `SPANDREL` variable: any bytes, and items that are known to be right.

use arbitrary::{Arbitrary, Unstructured};
use spandrel::{Check, Decay, HugepagePolicy, Limit, Options};
use std::time::Duration;

/// An item that is understood, and what it does.
type Right = (&'static str, fn(Options) -> Options);

/// Of each option the extremes.
const RIGHT: [Right; 21] = [
    ("decay=0", |o| o.decay(Decay::Within(Duration::ZERO))),
    ("decay=never", |o| o.decay(Decay::Never)),
    ("decay=1.25min", |o| o.decay(Decay::Within(Duration::from_secs(75)))),
    ("limit=1MiB", |o| o.limit(Limit::Bytes(1 << 20))),
    ("limit=100%", |o| o.limit(Limit::CgroupShare(100))),
    ("limit=none", |o| o.limit(Limit::None)),
    ("soft=16383TiB", |o| o.soft_limit(Limit::Bytes(16383 << 40))),
    ("soft=1%", |o| o.soft_limit(Limit::CgroupShare(1))),
    ("background=on", |o| o.background(true)),
    ("hugepages=never", |o| o.hugepages(HugepagePolicy::Never)),
    ("stats=exit", |o| o.stats_at_exit(true)),
    ("stats=/a", |o| o.stats_at_exit(true)),
    ("check=off", |o| o.check(Check::Off)),
    ("check=stacks", |o| o.check(Check::Stacks)),
    ("guard=1", |o| o.guard(1)),
    ("guard=off", |o| o.guard(0)),
    ("leaks=on", |o| o.leaks(true)),
    ("leaks=off", |o| o.leaks(false)),
    ("profile=1B", |o| o.profile(1)),
    ("profile=off", |o| o.profile(0)),
    ("tags=on", |o| o.tags(true)),
];

fn parse(text: &[u8]) -> (Options, usize) {
    let mut told = 0;
    let options = Options::parse(text, |problem| {
        let line = problem.line();
        assert!(line.bytes().starts_with(b"spandrel: SPANDREL: "));
        assert!(line.bytes().iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '));
        told += 1;
    });
    (options, told)
}

/// Whatever the bytes are: no panic, every complaint is one printable line, and an item that is right
/// means the same whatever stands around it.
pub fn options(data: &[u8]) {
    let (all, told) = parse(data);
    assert!(told <= data.len());
    assert_eq!(parse(data).0, all, "the same text means the same");

    let Ok(pick) = usize::arbitrary(&mut Unstructured::new(data)) else { return };
    let (right, set) = RIGHT[pick % RIGHT.len()];
    assert_eq!(parse(right.as_bytes()), (set(Options::new()), 0), "{right}");
    // The last item that names an option decides.
    let behind = [data, b",", right.as_bytes()].concat();
    assert_eq!(parse(&behind), (set(all), told), "{right} behind other items");
}
