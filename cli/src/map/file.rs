//! Reads map files: all of it, or an error that says what is wrong in which line.

use crate::names::{Module, Names};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What a file begins with.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Head {
    version: u32,
    pub pid: u32,
    pub command: String,
    /// Bytes of a page, a granule, a hugepage, a window.
    pub page: u64,
    pub granule: u64,
    pub hugepage: u64,
    pub window: u64,
    /// Of each size class: bytes of an object, granules of a span, objects in it.
    pub classes: Vec<[u32; 3]>,
}

/// What adds up to what is mapped, in bytes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Sum {
    pub mapped: u64,
    pub live: u64,
    pub live_large: u64,
    pub cached: u64,
    pub in_transfer: u64,
    pub free_in_spans: u64,
    pub free_granules: u64,
    pub returned: u64,
    pub metadata: u64,
    pub stranded: u64,
}

impl Sum {
    /// The parts, their names and what they are.
    pub fn parts(&self) -> [(&'static str, u64, &'static str); 8] {
        [
            ("live", self.live, "held by the program, rounded up to classes and granules"),
            ("cached", self.cached, "free in thread caches"),
            ("in transfer", self.in_transfer, "free, between threads"),
            (
                "free in spans",
                self.free_in_spans,
                "free objects and tails in spans that others keep",
            ),
            ("free granules", self.free_granules, "free, with memory behind"),
            ("returned", self.returned, "free, never touched or given back"),
            ("metadata", self.metadata, "the allocator's own, as mapped"),
            ("stranded", self.stranded, "refused by the system"),
        ]
    }
}

/// A thread cache.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Thread {
    pub thread: u32,
    pub objects: u64,
    pub bytes: u64,
}

/// A hugepage, or a run of alike ones.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Hugepage {
    pub h: u32,
    pub n: u32,
    /// Free granules, and those of them without memory behind.
    #[serde(deserialize_with = "bits", serialize_with = "hex")]
    pub free: u64,
    #[serde(deserialize_with = "bits", serialize_with = "hex")]
    pub clean: u64,
    /// Granules that were returned and not taken since.
    pub returned: u32,
    #[serde(default)]
    pub sparse: bool,
    #[serde(default)]
    pub advised: bool,
    /// Milliseconds since something came home here.
    pub idle_ms: Option<u32>,
    /// Granule, class, not free in the span, of these in caches, between threads, flags, generation.
    #[serde(default)]
    pub spans: Vec<[u32; 7]>,
    /// Granule and granules.
    #[serde(default)]
    pub blocks: Vec<[u32; 2]>,
    /// Who holds what is alive here, where that is known: stack, tag, bytes, blocks.
    #[serde(default, skip_serializing)]
    pub sites: Vec<[u64; 4]>,
}

/// A window and its hugepages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    pub base: u64,
    pub hugepages: Vec<Hugepage>,
}

/// A block with a mapping of its own.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Mapping {
    pub mapping: u64,
    pub bytes: u64,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    pub number: u32,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub sum: Sum,
    pub floors: BTreeMap<String, u64>,
    pub threads: Vec<Thread>,
    pub windows: Vec<Window>,
    pub mappings: Vec<Mapping>,
    /// Sampled blocks that are alive.
    #[serde(skip_serializing)]
    pub samples: Vec<Sample>,
}

/// A sampled block.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    pub sample: u64,
    pub size: u64,
    pub stack: u32,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Map {
    pub head: Head,
    pub snapshots: Vec<Snapshot>,
    /// Frames of the stacks that sites name, innermost first.
    #[serde(skip_serializing)]
    pub stacks: BTreeMap<u32, Vec<u64>>,
    /// Lines of /proc/self/maps that are of code.
    #[serde(skip_serializing)]
    pub maps: Vec<String>,
    /// Names of tags.
    pub tags: BTreeMap<u32, String>,
}

fn bits<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(&text, 16)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is no word in hexadecimal digits")))
}

fn hex<S: serde::Serializer>(word: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{word:016x}"))
}

/// Why a file is no map.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The line, from 1.
    pub line: usize,
    pub what: String,
    /// Whether all before it is whole: the file was cut, or is still being written.
    pub cut: bool,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Broken {}

/// The first line of a snapshot.
#[derive(Deserialize)]
struct Begin {
    snapshot: u32,
    time_ms: u64,
    sum: Sum,
    floors: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct End {
    end: u32,
    lines: usize,
    check: String,
}

const UNCHECKED: u64 = 0xcbf2_9ce4_8422_2325;

fn checked(before: u64, line: &[u8]) -> u64 {
    line.iter().fold(before, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A file as far as it has been read.
struct Reader {
    map: Map,
    open: Option<Snapshot>,
    lines: usize,
    check: u64,
}

impl Map {
    /// Reads a file; `partial`: of one that was cut, what is whole.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no whole map.
    pub fn open(path: &Path, partial: bool) -> anyhow::Result<Map> {
        use anyhow::Context;
        let name = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(name)?;
        match Map::read(&bytes) {
            (map, Some(broken)) => {
                match map.filter(|map| partial && broken.cut && !map.snapshots.is_empty()) {
                    Some(map) => Ok(map),
                    None => Err(broken).with_context(name),
                }
            }
            (map, None) => map.with_context(name),
        }
    }

    /// Names for what its stacks hold.
    pub fn names(&self) -> Names {
        // What was mapped last counts.
        Names::new(self.maps.iter().rev().filter_map(|line| Module::of_line(line)).collect())
    }

    /// Reads the bytes of a file: what of it is whole, and what is wrong if not all of it is.
    pub fn read(bytes: &[u8]) -> (Option<Map>, Option<Broken>) {
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let head = match head(first) {
            Ok(head) => head,
            Err(what) => return (None, Some(Broken { line: 1, what, cut: false })),
        };
        let map = Map {
            head,
            snapshots: Vec::new(),
            stacks: BTreeMap::new(),
            maps: Vec::new(),
            tags: BTreeMap::new(),
        };
        let mut reader = Reader { map, open: None, lines: 0, check: UNCHECKED };
        let mut number = 1;
        for line in lines {
            number += 1;
            let result = match line.strip_suffix(b"\n") {
                Some(text) => reader.line(text).map_err(|what| (what, false)),
                None => Err(("the file ends inside a line".to_owned(), true)),
            };
            if let Err((what, cut)) = result {
                return (Some(reader.map), Some(Broken { line: number, what, cut }));
            }
            reader.check = checked(reader.check, line);
            reader.lines += 1;
        }
        let broken = match (&reader.open, reader.map.snapshots.is_empty()) {
            (Some(open), _) => Some(format!("the file ends inside snapshot {}", open.number)),
            (None, true) => Some("the file has no snapshot yet".to_owned()),
            (None, false) => None,
        };
        (Some(reader.map), broken.map(|what| Broken { line: number, what, cut: true }))
    }
}

fn head(line: &[u8]) -> Result<Head, String> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let value: serde_json::Value = serde_json::from_slice(text)
        .map_err(|_| "not a map: it does not begin as one".to_owned())?;
    if value.get("spandrel").and_then(|name| name.as_str()) != Some("map") {
        return Err("not a map: it does not begin as one".to_owned());
    }
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(1) => {}
        Some(other) => {
            return Err(format!("a map of version {other}; this command reads version 1"));
        }
        None => return Err("a map without a version".to_owned()),
    }
    let head: Head = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let sizes = [head.page, head.granule, head.hugepage, head.window];
    let sound = sizes.iter().all(|size| size.is_power_of_two())
        && head.granule * 64 == head.hugepage
        && head.hugepage <= head.window
        && head.window < 1 << 48
        && head.classes.iter().all(|&[size, granules, objects]| {
            let room = u64::from(granules) * head.granule;
            (1..=64).contains(&granules) && size > 0 && u64::from(size) * u64::from(objects) <= room
        });
    if sound { Ok(head) } else { Err("the sizes in the head contradict each other".to_owned()) }
}

impl Reader {
    fn line(&mut self, text: &[u8]) -> Result<(), String> {
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let fields = value.as_object().ok_or("not a JSON object")?;
        let has = |name| fields.contains_key(name);
        if has("snapshot") {
            let begin: Begin = parse(value)?;
            if let Some(open) = &self.open {
                return Err(format!("a snapshot begins inside snapshot {}", open.number));
            }
            self.open = Some(Snapshot {
                number: begin.snapshot,
                time_ms: begin.time_ms,
                sum: begin.sum,
                floors: begin.floors,
                threads: Vec::new(),
                windows: Vec::new(),
                mappings: Vec::new(),
                samples: Vec::new(),
            });
            (self.lines, self.check) = (0, UNCHECKED);
            return Ok(());
        }
        let Some(open) = &mut self.open else {
            return Err("no snapshot has begun".to_owned());
        };
        if has("end") {
            let end: End = parse(value)?;
            if end.end != open.number {
                return Err(format!(
                    "the end of snapshot {} inside snapshot {}",
                    end.end, open.number
                ));
            }
            if end.lines != self.lines + 1 {
                return Err(format!(
                    "snapshot {} has {} lines, {} are here",
                    end.end,
                    end.lines,
                    self.lines + 1
                ));
            }
            if u64::from_str_radix(&end.check, 16) != Ok(self.check) {
                return Err(format!("snapshot {} was changed: its check does not match", end.end));
            }
            self.map.snapshots.extend(self.open.take());
        } else if has("thread") {
            open.threads.push(parse(value)?);
        } else if has("window") {
            let base = value["window"].as_u64().ok_or("a window without an address")?;
            open.windows.push(Window { base, hugepages: Vec::new() });
        } else if has("h") {
            let hugepage: Hugepage = parse(value)?;
            sound(&hugepage, &self.map.head)?;
            let window = open.windows.last_mut().ok_or("a hugepage outside of any window")?;
            if window.hugepages.last().is_some_and(|last| last.h + last.n > hugepage.h) {
                return Err(format!("hugepage {} is there twice", hugepage.h));
            }
            window.hugepages.push(hugepage);
        } else if has("mapping") {
            open.mappings.push(parse(value)?);
        } else if has("sample") {
            open.samples.push(parse(value)?);
        } else if has("maps") {
            let line = value["maps"].as_str().ok_or("a line of maps that is no text")?.to_owned();
            if !self.map.maps.contains(&line) {
                self.map.maps.push(line);
            }
        } else if has("stack") {
            let stack: Stack = parse(value)?;
            self.map.stacks.insert(stack.stack, stack.frames);
        } else if has("tag") {
            let tag: Tag = parse(value)?;
            self.map.tags.insert(tag.tag, tag.name);
        }
        // What this version does not know is skipped.
        Ok(())
    }
}

#[derive(Deserialize)]
struct Stack {
    stack: u32,
    frames: Vec<u64>,
}

#[derive(Deserialize)]
struct Tag {
    tag: u32,
    name: String,
}

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn sound(hugepage: &Hugepage, head: &Head) -> Result<(), String> {
    let all = (head.window / head.hugepage) as u32;
    let place = hugepage.h;
    if hugepage.n == 0 || place >= all || hugepage.n > all - place {
        return Err(format!(
            "hugepages {place} to {} of {all}",
            u64::from(place) + u64::from(hugepage.n)
        ));
    }
    if hugepage.clean & !hugepage.free != 0 {
        return Err(format!("hugepage {place}: clean granules are not free"));
    }
    for &[granule, class, live, cached, waiting, ..] in &hugepage.spans {
        let Some(&[_, granules, objects]) = head.classes.get(class as usize) else {
            return Err(format!("hugepage {place}: class {class} of {}", head.classes.len()));
        };
        if granule >= 64
            || granule + granules > 64
            || live > objects
            || u64::from(cached) + u64::from(waiting) > live.into()
        {
            return Err(format!(
                "hugepage {place}: no span of class {class} at granule {granule} can be so"
            ));
        }
    }
    match hugepage
        .blocks
        .iter()
        .find(|&&[granule, granules]| granule >= 64 || granules == 0 || granules > 1 << 20)
    {
        Some([granule, granules]) => {
            Err(format!("hugepage {place}: a block of {granules} granules at granule {granule}"))
        }
        None => Ok(()),
    }
}

/// Map files made by hand, for tests.
#[cfg(test)]
pub mod forge {
    use super::{UNCHECKED, checked};

    pub const HEAD: &str = r#"{"spandrel":"map","version":1,"pid":7,"command":"prog -x","page":4096,"granule":32768,"hugepage":2097152,"window":1073741824,"classes":[[64,1,512],[1024,1,32]]}"#;

    /// A snapshot of these lines, which need no number, time or end.
    pub fn snapshot(number: u32, sum: &str, lines: &[&str]) -> String {
        let mut text = format!(
            "{{\"snapshot\":{number},\"time_ms\":{},\"missed\":false,\"sum\":{{{sum}}},\"floors\":{{\"refills\":3}}}}\n",
            1000 * number
        );
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let check = checked(UNCHECKED, text.as_bytes());
        text.push_str(&format!(
            "{{\"end\":{number},\"lines\":{},\"check\":\"{check:016x}\"}}\n",
            lines.len() + 2
        ));
        text
    }

    pub const SUM: &str = r#""mapped":4194304,"live":66560,"live_large":65536,"cached":64,"in_transfer":0,"free_in_spans":64448,"free_granules":1900544,"returned":2097152,"metadata":65536,"stranded":0"#;

    /// A small file of two snapshots.
    pub fn file() -> String {
        let lines = [
            r#"{"thread":12,"objects":1,"bytes":64}"#,
            r#"{"window":1073741824}"#,
            r#"{"h":0,"n":1,"free":"ffffffffffffffe8","clean":"ff00000000000000","returned":2,"sparse":false,"advised":false,"idle_ms":5,"spans":[[0,0,2,1,0,2,1],[1,1,1,0,0,0,4]],"blocks":[[2,1],[4,1]],"sites":[[1,3,32768,1]]}"#,
            r#"{"h":1,"n":511,"free":"ffffffffffffffff","clean":"ffffffffffffffff","returned":0}"#,
            r#"{"mapping":5368709120,"bytes":268435456}"#,
            r#"{"sample":1073741824,"size":60,"stack":1}"#,
            r#"{"stack":1,"frames":[4195088,6561792]}"#,
            r#"{"maps":"00400000-00452000 r-xp 00001000 08:02 173521 /usr/bin/prog"}"#,
            r#"{"tag":3,"name":"tenant-a"}"#,
            r#"{"later":"versions may add lines"}"#,
        ];
        format!("{HEAD}\n{}{}", snapshot(1, SUM, &lines), snapshot(2, SUM, &lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Map {
        let (map, broken) = Map::read(text.as_bytes());
        assert_eq!(broken, None);
        map.unwrap()
    }

    fn says(text: &str) -> String {
        Map::read(text.as_bytes()).1.expect("it is broken").to_string()
    }

    #[test]
    fn a_map_reads_as_it_was_written() {
        let map = whole(&forge::file());
        assert_eq!((map.head.pid, map.head.command.as_str()), (7, "prog -x"));
        assert_eq!(map.snapshots.len(), 2);
        let snapshot = &map.snapshots[1];
        assert_eq!((snapshot.number, snapshot.time_ms, snapshot.sum.live), (2, 2000, 66560));
        let hugepage = &snapshot.windows[0].hugepages[0];
        assert_eq!((hugepage.free, hugepage.idle_ms), (0xffff_ffff_ffff_ffe8, Some(5)));
        assert_eq!((hugepage.spans.len(), hugepage.blocks.as_slice()), (2, &[[2, 1], [4, 1]][..]));
        assert_eq!(map.stacks[&1], [0x40_0310, 0x64_2000]);
        assert_eq!(map.tags[&3], "tenant-a");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(says(""), "line 1: not a map: it does not begin as one");
        assert_eq!(says("{}\n"), "line 1: not a map: it does not begin as one");
        let other = forge::HEAD.replace("\"version\":1", "\"version\":2");
        assert_eq!(says(&other), "line 1: a map of version 2; this command reads version 1");
        assert_eq!(says(&format!("{}\n", forge::HEAD)), "line 1: the file has no snapshot yet");
        let bent = |from: &str, to: &str| says(&forge::file().replacen(from, to, 1));
        assert_eq!(bent("[0,0,2,1", "[0,9,2,1"), "line 5: hugepage 0: class 9 of 2");
        assert_eq!(
            bent("\"objects\":1,", "\"objects\":2,"),
            "line 13: snapshot 1 was changed: its check does not match"
        );
        assert_eq!(
            bent("{\"h\":0,", "{\"h\":0"),
            "line 5: not JSON: expected `,` or `}` at line 1 column 7"
        );
        assert_eq!(bent("\"n\":511", "\"n\":512"), "line 6: hugepages 1 to 513 of 512");
        assert_eq!(
            bent("ffffffffffffffe8", "xyz"),
            "line 5: \"xyz\" is no word in hexadecimal digits"
        );
        let text = forge::file();
        let cut = &text[..text.len() - 100];
        assert!(says(cut).contains("the file ends inside"), "{}", says(cut));
        let (map, broken) = Map::read(cut.as_bytes());
        assert!(broken.unwrap().cut && map.unwrap().snapshots.len() == 1);
    }

    proptest! {
        #[test]
        fn a_cut_file_is_refused(share in 0.0f64..1.0) {
            let text = forge::file();
            let at = (share * text.len() as f64) as usize;
            let whole_first = text.find("{\"snapshot\":2").unwrap();
            let (_, broken) = Map::read(&text.as_bytes()[..at]);
            // Cut between two snapshots, what is left is a whole file.
            prop_assert_eq!(broken.is_none(), at == whole_first);
        }

        /// One changed byte anywhere behind the head is seen.
        #[test]
        fn one_changed_byte_is_seen(share in 0.0f64..1.0, flip in 1u8..) {
            let mut bytes = forge::file().into_bytes();
            let head = forge::HEAD.len();
            let at = head + (share * (bytes.len() - head) as f64) as usize;
            bytes[at] ^= flip;
            let same = Map::read(&bytes).0.is_some_and(|map| map == whole(&forge::file()));
            let (_, broken) = Map::read(&bytes);
            prop_assert!(broken.is_some() || same, "byte {}", at);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = Map::read(&bytes);
            let mut file = format!("{}\n", forge::HEAD).into_bytes();
            file.extend(bytes);
            let _ = Map::read(&file);
        }
    }
}
