//! A snapshot in words and numbers: what is alive, what is free where, and what keeps it.

use super::file::{Head, Hugepage, Map, Snapshot};
use crate::names::Names;
use crate::written::bytes;
use serde::Serialize;

/// Below this share of live bytes a hugepage is under-used.
pub const UNDER_USED: f64 = 0.25;

/// So many under-used hugepages, and so many places of each, are in the text.
const SHOWN: usize = 8;
const SHOWN_SITES: usize = 3;

/// A hugepage that is in use, as numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Use {
    /// Its address.
    pub at: u64,
    /// Bytes that the program holds here.
    pub live: u64,
    /// Free bytes in spans, caches and between threads.
    pub free_in_spans: u64,
    /// Free granules with memory behind them, in bytes.
    pub free_granules: u64,
    /// Whether it is under-used.
    pub under_used: bool,
    /// Whether `sites` is all of it, not samples.
    pub known: bool,
    /// Stack, tag, bytes and blocks of who holds what is alive, most bytes first.
    pub sites: Vec<[u64; 4]>,
}

/// A snapshot's hugepages in use and its text.
#[derive(Clone, Debug, Serialize)]
pub struct Words {
    pub lines: Vec<String>,
    pub uses: Vec<Use>,
}

/// Every hugepage in use of a snapshot.
fn uses(snapshot: &Snapshot, head: &Head) -> Vec<Use> {
    let mut list: Vec<Use> = Vec::new();
    for window in &snapshot.windows {
        // Granules of a block that began in a hugepage before.
        let mut carried = 0u64;
        let mut next = 0;
        for hugepage in &window.hugepages {
            if hugepage.h != next {
                carried = 0;
            }
            next = hugepage.h + hugepage.n;
            if hugepage.free == u64::MAX {
                carried = 0;
                continue;
            }
            list.push(one(hugepage, window.base, head, &mut carried));
        }
    }
    // Samples say it where nothing says all of it.
    for sample in &snapshot.samples {
        let at = sample.sample / head.hugepage * head.hugepage;
        let Ok(place) = list.binary_search_by_key(&at, |one| one.at) else { continue };
        let one = &mut list[place];
        if one.known {
            continue;
        }
        match one.sites.iter_mut().find(|site| site[0] == u64::from(sample.stack)) {
            Some(site) => (site[2], site[3]) = (site[2] + sample.size, site[3] + 1),
            None => one.sites.push([sample.stack.into(), 0, sample.size, 1]),
        }
    }
    for one in &mut list {
        one.sites.sort_by_key(|site| std::cmp::Reverse(site[2]));
    }
    list
}

fn one(hugepage: &Hugepage, window: u64, head: &Head, carried: &mut u64) -> Use {
    let mut live = (*carried).min(64) * head.granule;
    *carried -= (*carried).min(64);
    let mut free_in_spans = 0;
    for &[_, class, taken, cached, waiting, ..] in &hugepage.spans {
        let [size, granules, _] = head.classes[class as usize];
        let held = u64::from(taken - cached - waiting) * u64::from(size);
        live += held;
        free_in_spans += u64::from(granules) * head.granule - held;
    }
    for &[granule, granules] in &hugepage.blocks {
        let here = granules.min(64 - granule);
        live += u64::from(here) * head.granule;
        *carried += u64::from(granules - here);
    }
    Use {
        at: window + u64::from(hugepage.h) * head.hugepage,
        live,
        free_in_spans,
        free_granules: u64::from((hugepage.free & !hugepage.clean).count_ones()) * head.granule,
        under_used: (live as f64) < UNDER_USED * head.hugepage as f64,
        known: !hugepage.sites.is_empty(),
        sites: hugepage.sites.clone(),
    }
}

/// Whoever keeps a site's memory, in one line.
pub fn site(map: &Map, names: &Names, one: &Use, site: &[u64; 4]) -> String {
    let &[stack, tag, size, blocks] = site;
    let frames = map.stacks.get(&(stack as u32)).map(|frames| names.stack(frames));
    let place = match frames.filter(|frames| !frames.is_empty()) {
        Some(frames) => frames.into_iter().take(5).collect::<Vec<_>>().join(" < "),
        None => "an unknown place".to_owned(),
    };
    let tag = match map.tags.get(&(tag as u32)) {
        Some(name) => format!(" [{name}]"),
        None => String::new(),
    };
    let kind = if one.known { "" } else { "sampled " };
    let blocks = match blocks {
        1 => format!("1 {kind}block"),
        _ => format!("{blocks} {kind}blocks"),
    };
    format!("{} in {blocks} from {place}{tag}", bytes(size as f64))
}

/// Explains a snapshot.
pub fn of(map: &Map, names: &Names, snapshot: &Snapshot) -> Words {
    let (sum, head) = (&snapshot.sum, &map.head);
    let uses = uses(snapshot, head);
    let mut lines = vec![format!("{} of address space are mapped:", bytes(sum.mapped as f64))];
    let mut total = 0;
    for (name, part, what) in sum.parts() {
        total += part;
        let share = 100.0 * part as f64 / sum.mapped.max(1) as f64;
        lines.push(format!("  {name:<14}{:>10}  {share:5.1} %  {what}", bytes(part as f64)));
    }
    let difference = i128::from(total) - i128::from(sum.mapped);
    lines.push(match difference {
        0 => "  these add up to what is mapped, exactly".to_owned(),
        off => format!(
            "  these add up to what is mapped but for {off} bytes: others allocated meanwhile"
        ),
    });
    let free = sum.cached + sum.in_transfer + sum.free_in_spans + sum.free_granules;
    let backed = sum.live + free;
    lines.push(format!(
        "{} have memory behind them; {} of it ({:.1} %) is free and not given back: the fragmentation",
        bytes(backed as f64),
        bytes(free as f64),
        100.0 * free as f64 / backed.max(1) as f64
    ));
    let pairs = [
        (sum.cached + sum.in_transfer, "waits in caches for the next request of its size"),
        (sum.free_in_spans, "lies between live objects in spans: only objects of that size fit"),
        (
            sum.free_granules,
            "are free granules: any span or block fits, and they go back when they stay idle",
        ),
    ];
    for (part, what) in pairs {
        lines.push(format!("  {:>10}  {what}", bytes(part as f64)));
    }
    let under: Vec<&Use> = uses.iter().filter(|one| one.under_used).collect();
    let held: u64 = under.iter().map(|one| one.live).sum();
    let kept: u64 = under.iter().map(|one| one.free_in_spans + one.free_granules).sum();
    let in_use = match uses.len() {
        1 => "1 hugepage is in use".to_owned(),
        count => format!("{count} hugepages are in use"),
    };
    lines.push(match (uses.len(), under.len()) {
        (_, 0) => format!("{in_use}; none holds less than a quarter of live bytes"),
        (all, count) => {
            let which = match (all, count) {
                (1, _) => "it holds".to_owned(),
                (_, 1) => "1 of them holds".to_owned(),
                _ => format!("{count} of them hold"),
            };
            let (held, kept) = (bytes(held as f64), bytes(kept as f64));
            format!(
                "{in_use}; {which} less than a quarter of live bytes: {held} alive keep {kept} from going back"
            )
        }
    });
    let mut order = under;
    order.sort_by_key(|one| one.live);
    for one in order.iter().take(SHOWN) {
        lines.push(format!(
            "  {:#x}: {} alive, {} free",
            one.at,
            bytes(one.live as f64),
            bytes((one.free_in_spans + one.free_granules) as f64)
        ));
        for line in one.sites.iter().take(SHOWN_SITES) {
            lines.push(format!("    {}", site(map, names, one, line)));
        }
        if one.sites.len() > SHOWN_SITES {
            lines.push(format!("    … and {} more", one.sites.len() - SHOWN_SITES));
        }
    }
    if order.len() > SHOWN {
        lines.push(format!("  … and {} more", order.len() - SHOWN));
    }
    if order.iter().any(|one| one.live > 0) && uses.iter().all(|one| one.sites.is_empty()) {
        // A file does not say whether blocks were sampled, unless one was.
        let sampled = map.snapshots.iter().any(|snapshot| !snapshot.samples.is_empty());
        let why = if sampled { "no sampled block lies there" } else { "no block was sampled" };
        lines.push(format!(
            "  who holds them is not known: {why}; `spandrel run --map FILE --sites all` notes every block"
        ));
    }
    Words { lines, uses }
}

#[cfg(test)]
mod tests {
    use super::super::file::{Map, forge};
    use super::*;

    #[test]
    fn words_say_what_the_numbers_say() {
        let map = Map::read(forge::file().as_bytes()).0.unwrap();
        let words = of(&map, &map.names(), &map.snapshots[0]);
        let one = &words.uses[0];
        // One live object of 64 bytes (two taken, one of them cached), one of 1024, two granules.
        assert_eq!((words.uses.len(), one.live), (1, 64 + 1024 + 2 * 32768));
        assert_eq!(one.free_in_spans, 2 * 32768 - 64 - 1024);
        assert!(one.under_used);
        let text = words.lines.join("\n");
        assert!(
            text.contains("1 hugepage is in use; it holds less than a quarter of live bytes: "),
            "{text}"
        );
        assert!(
            text.contains("32.0 KiB in 1 block from prog+0x1310 < 0x642000 [tenant-a]"),
            "{text}"
        );
        assert!(text.contains("add up to what is mapped, exactly"), "{text}");
    }

    #[test]
    fn samples_say_it_where_nothing_says_all() {
        let lines = [
            r#"{"window":1073741824}"#,
            r#"{"h":0,"n":1,"free":"fffffffffffffffe","clean":"0","returned":0,"spans":[[0,0,2,0,0,2,1]]}"#,
            r#"{"sample":1073741824,"size":60,"stack":4}"#,
            r#"{"sample":1073741888,"size":61,"stack":4}"#,
            r#"{"sample":5368709120,"size":61,"stack":4}"#,
        ];
        let text = format!("{}\n{}", forge::HEAD, forge::snapshot(1, forge::SUM, &lines));
        let map = Map::read(text.as_bytes()).0.unwrap();
        let words = of(&map, &map.names(), &map.snapshots[0]);
        assert_eq!(words.uses[0].sites, [[4, 0, 121, 2]]);
        assert!(words.lines.join("\n").contains("121 B in 2 sampled blocks from an unknown place"));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let many: Vec<String> = (0..12)
            .map(|h| {
                let sites = if h == 0 { "[1,0,9,1],[2,0,8,1],[3,0,7,1],[4,0,6,1]" } else { "" };
                format!(
                    r#"{{"h":{h},"n":1,"free":"fffffffffffffffe","clean":"0","returned":0,"blocks":[[0,1]],"sites":[{sites}]}}"#
                )
            })
            .collect();
        let mut lines = vec![r#"{"window":1073741824}"#];
        lines.extend(many.iter().map(String::as_str));
        let text = format!("{}\n{}", forge::HEAD, forge::snapshot(1, forge::SUM, &lines));
        let map = Map::read(text.as_bytes()).0.unwrap();
        let text = of(&map, &map.names(), &map.snapshots[0]).lines.join("\n");
        assert!(text.contains("12 hugepages are in use; 12 of them hold less than"), "{text}");
        assert!(
            text.contains("\n    … and 1 more\n") && text.ends_with("\n  … and 4 more"),
            "{text}"
        );
    }

    #[test]
    fn why_nobody_is_named_is_said() {
        let page =
            r#"{"h":0,"n":1,"free":"fffffffffffffffe","clean":"0","returned":0,"blocks":[[0,1]]}"#;
        let words = |lines: &[&str]| {
            let text = format!("{}\n{}", forge::HEAD, forge::snapshot(1, forge::SUM, lines));
            let map = Map::read(text.as_bytes()).0.unwrap();
            of(&map, &map.names(), &map.snapshots[0]).lines.join("\n")
        };
        let window = r#"{"window":1073741824}"#;
        assert!(words(&[window, page]).contains("not known: no block was sampled; `spandrel run"));
        let elsewhere = r#"{"sample":5368709120,"size":61,"stack":4}"#;
        assert!(
            words(&[window, page, elsewhere]).contains("not known: no sampled block lies there")
        );
    }

    #[test]
    fn a_block_reaches_into_the_hugepages_behind_it() {
        let lines = [
            r#"{"window":1073741824}"#,
            r#"{"h":4,"n":1,"free":"1","clean":"0","returned":0,"blocks":[[1,190]]}"#,
            r#"{"h":5,"n":1,"free":"0","clean":"0","returned":0}"#,
            r#"{"h":6,"n":1,"free":"8000000000000000","clean":"0","returned":0}"#,
        ];
        let text = format!("{}\n{}", forge::HEAD, forge::snapshot(1, forge::SUM, &lines));
        let map = Map::read(text.as_bytes()).0.unwrap();
        let live: Vec<u64> = of(&map, &map.names(), &map.snapshots[0])
            .uses
            .iter()
            .map(|one| one.live / 32768)
            .collect();
        assert_eq!(live, [63, 64, 63]);
    }
}
