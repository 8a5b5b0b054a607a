//! Reads a trace: all of it or an error that says what is wrong at which byte.

use super::format::{self, Before, CHUNK_HEAD, Kind, Record};
use crate::names::{Module, Names};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// What a call did. In the order in which what has one time is told: a block is free before it is handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// `free`.
    Free,
    /// `realloc` that moves begins: from now on another thread may have the old address. Its end is a [`What::Resize`]
    /// of this thread and the same `old`, or is missing if the process ended before.
    Leave,
    /// `realloc`, done.
    Resize,
    /// `malloc` and its kin.
    Alloc,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// The block; of a resize, where it is now.
    pub at: u64,
    /// Of a resize, where it was.
    pub old: u64,
    /// Bytes asked for; 0 for a free and what leaves.
    pub size: u64,
    /// The alignment asked for; 0 where it is at most 16.
    pub align: u32,
    /// The number of the stack, 0 for none.
    pub stack: u32,
    /// The thread, as the system numbered it.
    pub thread: u32,
    pub what: What,
}

/// A whole trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub process: u32,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// When the trace began, in nanoseconds since 1970.
    pub began: u64,
    /// All calls, in the order of their times.
    pub events: Vec<Event>,
    /// Frames by stack number, innermost first.
    pub stacks: HashMap<u32, Vec<u64>>,
    /// What `/proc/self/maps` said, first and last.
    pub maps: Vec<String>,
    /// Calls that were not recorded, because the file could not grow.
    pub lost: u32,
    /// Units that were claimed and never begun: the process was killed in between.
    pub unfinished: usize,
}

/// Why a file is no trace.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The byte from which it cannot be read.
    pub at: usize,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Broken {}

fn broken<T>(at: usize, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { at, what: what.into() })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no whole trace.
    pub fn open(path: &Path) -> anyhow::Result<Trace> {
        use anyhow::Context;
        let name = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(name)?;
        Trace::read(&bytes).with_context(name)
    }

    /// Names for what its stacks hold.
    pub fn names(&self) -> Names {
        // What was mapped at the end beats what was mapped at the start.
        Names::new(
            self.maps
                .iter()
                .rev()
                .flat_map(|text| text.lines())
                .filter_map(Module::of_line)
                .collect(),
        )
    }

    /// A stack in one line, innermost first.
    pub fn stack(&self, names: &Names, stack: u32) -> String {
        match self.stacks.get(&stack) {
            Some(frames) => names.stack(frames).join(" < "),
            None => "no stack".to_owned(),
        }
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn read(bytes: &[u8]) -> Result<Trace, Broken> {
        if bytes.len() < format::MAGIC.len() || bytes[..8] != format::MAGIC {
            return broken(0, "not a trace: it does not begin as one");
        }
        if bytes.len() < format::UNIT {
            let have = bytes.len();
            return broken(
                have,
                format!("the head of a trace has {} bytes, the file {have}", format::UNIT),
            );
        }
        let version = u32_at(bytes, 8);
        if version != format::VERSION {
            return broken(
                8,
                format!(
                    "a trace of version {version}; this command reads version {}",
                    format::VERSION
                ),
            );
        }
        let command = &bytes[format::COMMAND_AT..format::COMMAND_AT + format::COMMAND_MOST];
        if format::checksum(format::checksum(format::UNCHECKED, &bytes[..40]), command)
            != u64_at(bytes, 40)
        {
            return broken(0, "the head was changed: its check does not match");
        }
        let unit = u32_at(bytes, 12) as usize;
        if !unit.is_power_of_two() || unit < format::UNIT {
            return broken(
                12,
                format!("a unit of {unit} bytes; it is a power of two from {}", format::UNIT),
            );
        }
        let Some(claimed) = format::unseal(u64_at(bytes, format::CLAIMED_AT)) else {
            return broken(
                format::CLAIMED_AT,
                "the count of claimed units was changed: its check does not match",
            );
        };
        let Some(lost) = format::unseal(u64_at(bytes, format::LOST_AT)) else {
            return broken(
                format::LOST_AT,
                "the count of lost records was changed: its check does not match",
            );
        };
        let end = claimed as usize * unit;
        if bytes.len() > end {
            return broken(
                end,
                format!("{} bytes behind the {claimed} units of the trace", bytes.len() - end),
            );
        }
        // A chunk that the file could not grow for is counted as lost.
        if bytes.len() < end && lost == 0 {
            return broken(
                bytes.len(),
                format!("the file ends here; the trace has {claimed} units, {end} bytes"),
            );
        }
        let words = command.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut trace = Trace {
            process: u32_at(bytes, 16),
            command: words
                .split(|&byte| byte == 1)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            began: u64_at(bytes, 24),
            lost,
            ..Trace::default()
        };
        let mut at = unit;
        let mut next = HashMap::new();
        while at + CHUNK_HEAD <= bytes.len() {
            let head = &bytes[at..at + CHUNK_HEAD];
            if head.iter().all(|&byte| byte == 0) {
                trace.unfinished += 1;
                at += unit;
                continue;
            }
            at += trace.chunk(bytes, at, unit, &mut next)?;
        }
        if at < bytes.len() {
            return broken(at, "half a unit at the end");
        }
        trace.events.sort_by_key(|event| (event.time, event.what));
        Ok(trace)
    }

    /// Reads the chunk at `at` and answers how long it is. `next`: of each thread, the number of its next
    /// chunk and the earliest time of its next record.
    fn chunk(
        &mut self,
        bytes: &[u8],
        at: usize,
        unit: usize,
        next: &mut HashMap<u32, u64>,
    ) -> Result<usize, Broken> {
        let head = &bytes[at..at + CHUNK_HEAD];
        if u32_at(head, 0) != format::CHUNK {
            return broken(at, "neither a chunk begins here nor is there nothing");
        }
        if format::checksum(format::UNCHECKED, &head[..32]) != u64_at(head, 32) {
            return broken(at, "the chunk's head was changed: its check does not match");
        }
        if head[48..].iter().any(|&byte| byte != 0) {
            return broken(at + 48, "the chunk's head was changed: what is not used is not zero");
        }
        let Some(kind) = Kind::of(u32_at(head, 4)) else {
            return broken(
                at + 4,
                format!("a chunk of kind {}; there are 1 and 2", u32_at(head, 4)),
            );
        };
        let thread = u32_at(head, 8);
        let units = u32_at(head, 16) as usize;
        let length = units * unit;
        if units == 0 || length > bytes.len() - at {
            return broken(
                at + 16,
                format!("a chunk of {units} units, with {} bytes left", bytes.len() - at),
            );
        }
        let Some(used) = format::unseal(u64_at(head, format::USED_AT)) else {
            return broken(
                at + format::USED_AT,
                "the count of written bytes was changed: its check does not match",
            );
        };
        let used = used as usize;
        if !(CHUNK_HEAD..=length).contains(&used) {
            return broken(
                at + format::USED_AT,
                format!("{used} bytes are written of a chunk of {length}"),
            );
        }
        let body = &bytes[at + CHUNK_HEAD..at + used];
        match kind {
            Kind::Maps => {
                let text = &body[..body.len().saturating_sub(8)];
                let same = body.len() >= 8
                    && format::checksum(format::UNCHECKED, text) == u64_at(body, text.len());
                if !same {
                    return broken(
                        at + CHUNK_HEAD,
                        "the list of mapped files was changed: its check does not match",
                    );
                }
                self.maps.push(String::from_utf8_lossy(text).into_owned());
            }
            Kind::Records => {
                let earliest = next.entry(thread).or_default();
                *earliest = self.records(body, at, thread, u64_at(head, 24), *earliest)?;
            }
        }
        Ok(length)
    }

    fn records(
        &mut self,
        body: &[u8],
        chunk: usize,
        thread: u32,
        time: u64,
        earliest: u64,
    ) -> Result<u64, Broken> {
        let mut before = Before { time, at: 0 };
        let mut frames = [0; format::FRAMES_MOST];
        let (mut at, mut number, mut earliest) = (0, 0usize, earliest);
        while at < body.len() {
            let place = chunk + CHUNK_HEAD + at;
            let (record, length) =
                format::decode(&body[at..], &mut before, &mut frames).map_err(|what| Broken {
                    at: place,
                    what: format!("record {number} of the chunk at byte {chunk}: {what}"),
                })?;
            let zero = Event {
                time: 0,
                at: 0,
                old: 0,
                size: 0,
                align: 0,
                stack: 0,
                thread,
                what: What::Alloc,
            };
            let event = match record {
                Record::Alloc { time, at, size, align, stack } => {
                    Some(Event { time, at, size, align, stack, ..zero })
                }
                Record::Free { time, at, stack } => {
                    Some(Event { time, at, stack, what: What::Free, ..zero })
                }
                Record::Resize { time, began, old, at, size, stack } => {
                    if old != at {
                        let (time, at) = (began, old);
                        self.events.push(Event { time, at, old, stack, what: What::Leave, ..zero });
                    }
                    Some(Event { time, at, old, size, stack, what: What::Resize, ..zero })
                }
                Record::Stack { id, frames } => {
                    self.stacks.insert(id, frames.iter().map(|&frame| frame as u64).collect());
                    None
                }
            };
            if let Some(event) = event {
                if event.time < earliest {
                    return broken(
                        place,
                        format!(
                            "record {number} of the chunk at byte {chunk}: thread {thread} went back in time"
                        ),
                    );
                }
                earliest = event.time;
                self.events.push(event);
            }
            at += length;
            number += 1;
        }
        Ok(earliest)
    }
}

/// Traces made by hand, for tests.
#[cfg(test)]
pub mod forge {
    use super::super::format::{self, Before, CHUNK_HEAD, Kind, Out, Record};

    /// A chunk of `units` units that holds these bytes.
    pub fn chunk(kind: Kind, thread: u32, sequence: u32, time: u64, body: &[u8]) -> Vec<u8> {
        let units = (CHUNK_HEAD + body.len()).div_ceil(format::UNIT) as u32;
        let mut chunk = Vec::new();
        chunk.extend(format::CHUNK.to_le_bytes());
        for number in [kind as u32, thread, sequence, units, 0] {
            chunk.extend(number.to_le_bytes());
        }
        chunk.extend(time.to_le_bytes());
        chunk.extend(format::checksum(format::UNCHECKED, &chunk).to_le_bytes());
        chunk.extend(format::seal((CHUNK_HEAD + body.len()) as u32).to_le_bytes());
        chunk.resize(CHUNK_HEAD, 0);
        chunk.extend(body);
        chunk.resize(units as usize * format::UNIT, 0);
        chunk
    }

    /// A chunk of text.
    pub fn maps(text: &str) -> Vec<u8> {
        let mut body = text.as_bytes().to_vec();
        body.extend(format::checksum(format::UNCHECKED, text.as_bytes()).to_le_bytes());
        chunk(Kind::Maps, 1, 0, 0, &body)
    }

    /// A chunk of records.
    pub fn records(thread: u32, sequence: u32, time: u64, records: &[Record<'_>]) -> Vec<u8> {
        let (mut before, mut out) = (Before { time, at: 0 }, Out::new());
        let mut body = Vec::new();
        for record in records {
            format::encode(record, &mut before, &mut out);
            body.extend(out.bytes());
        }
        chunk(Kind::Records, thread, sequence, time, &body)
    }

    /// A file of these chunks.
    pub fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut head = format::MAGIC.to_vec();
        for number in [format::VERSION, format::UNIT as u32, 77, 0] {
            head.extend(number.to_le_bytes());
        }
        head.extend(1_000_000_000u64.to_le_bytes());
        head.extend(5u64.to_le_bytes());
        let mut command = b"prog\x01-x".to_vec();
        command.resize(format::COMMAND_MOST, 0);
        head.extend(
            format::checksum(format::checksum(format::UNCHECKED, &head), &command).to_le_bytes(),
        );
        let units = 1 + chunks.iter().map(Vec::len).sum::<usize>() / format::UNIT;
        head.extend(format::seal(units as u32).to_le_bytes());
        head.extend(format::seal(0).to_le_bytes());
        head.extend(command);
        head.resize(format::UNIT, 0);
        chunks.iter().for_each(|chunk| head.extend(chunk));
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some(frames: &[usize]) -> Vec<Record<'_>> {
        vec![
            Record::Stack { id: 7, frames },
            Record::Alloc { time: 10, at: 0x7f00_0000_1000, size: 100, align: 0, stack: 7 },
            Record::Alloc { time: 12, at: 0x7f00_0000_1400, size: 5000, align: 64, stack: 0 },
            Record::Resize {
                time: 19,
                began: 14,
                old: 0x7f00_0000_1400,
                at: 0x7f00_0000_8000,
                size: 9000,
                stack: 7,
            },
            Record::Free { time: 300, at: 0x7f00_0000_1000, stack: 0 },
            Record::Free { time: 301, at: 0xdead_beef_dead_beef, stack: 9 },
        ]
    }

    fn sample() -> Vec<u8> {
        let frames = [0x5555_0000_1234, 0x5555_0000_0042, 0x7fff_f000_0001];
        let later = [Record::Free { time: 400, at: 0x7f00_0000_8000, stack: 0 }];
        forge::file(&[
            forge::maps("00400000-00401000 r-xp 0 0 0 /bin/x\n"),
            forge::records(1, 0, 5, &some(&frames)),
            forge::records(2, 0, 350, &later),
        ])
    }

    #[test]
    fn a_trace_reads_as_it_was_written() {
        let trace = Trace::read(&sample()).unwrap();
        assert_eq!((trace.process, trace.lost, trace.unfinished), (77, 0, 0));
        assert_eq!(trace.command, ["prog", "-x"]);
        assert_eq!(trace.stacks[&7], [0x5555_0000_1234, 0x5555_0000_0042, 0x7fff_f000_0001]);
        assert_eq!(trace.maps.len(), 1);
        let times: Vec<_> = trace.events.iter().map(|event| (event.time, event.thread)).collect();
        assert_eq!(times, [(10, 1), (12, 1), (14, 1), (19, 1), (300, 1), (301, 1), (400, 2)]);
        let (leave, resize) = (trace.events[2], trace.events[3]);
        assert_eq!((leave.what, leave.at, leave.size), (What::Leave, 0x7f00_0000_1400, 0));
        assert_eq!(
            (resize.old, resize.at, resize.size),
            (0x7f00_0000_1400, 0x7f00_0000_8000, 9000)
        );
        assert_eq!(trace.events[1].align, 64);
        assert_eq!((trace.events[5].at, trace.events[5].stack), (0xdead_beef_dead_beef, 9));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let says = |bend: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sample();
            bend(&mut bytes);
            Trace::read(&bytes).unwrap_err().to_string()
        };
        assert_eq!(says(&|b| b.truncate(3)), "byte 0: not a trace: it does not begin as one");
        assert_eq!(
            says(&|b| b.truncate(100)),
            "byte 100: the head of a trace has 4096 bytes, the file 100"
        );
        // Of version 1, a resize said only when it was done.
        assert_eq!(
            says(&|b| b[8] = 1),
            "byte 8: a trace of version 1; this command reads version 2"
        );
        assert_eq!(says(&|b| b[30] ^= 1), "byte 0: the head was changed: its check does not match");
        assert_eq!(
            says(&|b| b.truncate(9000)),
            "byte 9000: the file ends here; the trace has 4 units, 16384 bytes"
        );
        assert_eq!(says(&|b| b.push(0)), "byte 16384: 1 bytes behind the 4 units of the trace");
        assert_eq!(
            says(&|b| b[8192] = 0),
            "byte 8192: neither a chunk begins here nor is there nothing"
        );
        assert!(
            says(&|b| b[8192 + 70] ^= 4)
                .starts_with("byte 8256: record 0 of the chunk at byte 8192: ")
        );
        assert!(says(&|b| b[8192 + 44] ^= 4).contains("the count of written bytes was changed"));
    }

    proptest! {
        #[test]
        fn records_survive_any_numbers(
            numbers in proptest::collection::vec((0u8..4, any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()), 1..50),
        ) {
            let frames = [1usize, usize::MAX, 3];
            let mut time = 0u64;
            let records: Vec<_> = numbers.iter().map(|&(what, at, other, size, stack)| {
                time += u64::from(stack);
                match what {
                    0 => Record::Alloc { time, at, size, align: if stack % 3 == 0 { 32 << (stack % 9) } else { 0 }, stack },
                    1 => Record::Free { time, at, stack },
                    2 => Record::Resize { time, began: time - other % (time + 1), old: other, at, size, stack },
                    _ => Record::Stack { id: stack, frames: &frames[..(stack % 4) as usize] },
                }
            }).collect();
            let (mut before, mut out) = (Before::default(), format::Out::new());
            let mut body = Vec::new();
            for record in &records {
                format::encode(record, &mut before, &mut out);
                body.extend(out.bytes());
            }
            let (mut before, mut at, mut room) = (Before::default(), 0, [0; format::FRAMES_MOST]);
            for record in &records {
                let (read, length) = format::decode(&body[at..], &mut before, &mut room).unwrap();
                prop_assert_eq!(&read, record);
                at += length;
            }
            prop_assert_eq!(at, body.len());
        }

        /// A byte that says anything at all is missed: the trace is refused. The others change nothing.
        #[test]
        fn one_changed_byte_is_seen_or_does_not_matter(at in 0usize..4 * format::UNIT, flip in 1u8..) {
            let whole = sample();
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            match Trace::read(&bytes) {
                Err(broken) => prop_assert!(broken.at <= bytes.len()),
                Ok(trace) => prop_assert_eq!(trace, Trace::read(&whole).unwrap(), "byte {}", at),
            }
        }

        #[test]
        fn a_cut_file_is_refused(length in 0usize..4 * format::UNIT) {
            prop_assert!(Trace::read(&sample()[..length]).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3 * format::UNIT)) {
            let _ = Trace::read(&bytes);
            // Behind a good head too.
            let mut file = forge::file(&[vec![0; format::UNIT], vec![0; format::UNIT]]);
            let length = bytes.len().min(2 * format::UNIT);
            file[format::UNIT..format::UNIT + length].copy_from_slice(&bytes[..length]);
            let _ = Trace::read(&file);
            let body = forge::chunk(Kind::Records, 1, 0, 0, &bytes);
            let _ = Trace::read(&forge::file(&[body]));
        }
    }
}
