//! A heap profile as files: protobuf for `pprof`, and flame graphs.
//!
//! The messages are those of `profile.proto`, which pprof documents, written out by hand.

use super::profile::{Blocks, LIFETIMES, Place, Profile};
use super::stack_names::{self, Call};
use super::symbols::Symbols;
use crate::watch::sample::Quiet;
use prost::Message;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Which figure of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Bytes in use.
    InUse,
    /// Bytes allocated since the start.
    Allocated,
    /// Bytes in use when the heap was largest.
    Peak,
}

impl Figure {
    fn of(self, place: &Place) -> u64 {
        match self {
            Figure::InUse => place.in_use.bytes,
            Figure::Allocated => place.allocated.bytes,
            Figure::Peak => place.peak.bytes,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Figure::InUse => "Heap in use",
            Figure::Allocated => "Allocated",
            Figure::Peak => "Heap at its peak",
        }
    }
}

/// The figures of a sample, and their units, in the order in which they are written. The first four are those
/// of Go's heap profiles. The last two come in samples of their own, with how long the blocks lived as a label.
const TYPES: [(&str, &str); 8] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("peak_objects", "count"),
    ("peak_space", "bytes"),
    ("freed_objects", "count"),
    ("lifetime", "nanoseconds"),
];

impl Profile {
    /// The profile for `pprof` and all that reads its format: protobuf, compressed with gzip. Names are looked
    /// up now; where there are none, pprof can find them later by the modules' build ids.
    pub fn pprof(&self) -> Vec<u8> {
        let _own = Quiet::begin();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let written = gzip.write_all(&self.message(&Symbols::new()).encode_to_vec());
        // A vector takes all it is given.
        written.and_then(|()| gzip.finish()).unwrap_or_default()
    }

    fn message(&self, symbols: &Symbols) -> proto::Profile {
        let mut out = Writer::new(symbols);
        let sample_type = TYPES.map(|(kind, unit)| out.value_type(kind, unit)).to_vec();
        let period_type = Some(out.value_type("space", "bytes"));
        let default_sample_type = out.string("inuse_space");
        let (tag, lifetime) = (out.string("tag"), out.string("lifetime"));
        let mut sample = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let calls = stack_names::calls(symbols, place.stack);
            let location_id: Vec<u64> = calls.iter().map(|call| out.location(call)).collect();
            let label = |key, str| proto::Label { key, str, ..Default::default() };
            let tagged = place.tag.as_ref().map(|name| label(tag, out.string(name)));
            let Blocks { count, bytes } = place.allocated;
            let (in_use, peak) = (place.in_use, place.peak);
            let value = [count, bytes, in_use.count, in_use.bytes, peak.count, peak.bytes, 0, 0];
            sample.push(proto::Sample {
                location_id: location_id.clone(),
                value: value.map(signed).to_vec(),
                label: tagged.into_iter().collect(),
            });
            for (lived, name) in place.lifetimes.iter().zip(LIFETIMES) {
                if lived.freed == 0 {
                    continue;
                }
                let nanoseconds = u64::try_from(lived.lived.as_nanos()).unwrap_or(u64::MAX);
                sample.push(proto::Sample {
                    location_id: location_id.clone(),
                    value: [0, 0, 0, 0, 0, 0, lived.freed, nanoseconds].map(signed).to_vec(),
                    label: tagged.into_iter().chain([label(lifetime, out.string(name))]).collect(),
                });
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let comment = match self.dropped {
            0 => Vec::new(),
            n => vec![out.string(&format!("{n} samples found no room and are missing"))],
        };
        proto::Profile {
            sample_type,
            sample,
            mapping: out.mappings(),
            location: out.locations,
            function: out.functions,
            string_table: out.strings,
            time_nanos: now.as_nanos() as i64,
            duration_nanos: self.duration.as_nanos() as i64,
            period_type,
            period: self.interval as i64,
            comment,
            default_sample_type,
            ..Default::default()
        }
    }

    /// One line a stack, outermost function first, and a figure: what flame graph tools read.
    pub fn folded(&self, figure: Figure) -> Vec<String> {
        let _own = Quiet::begin();
        let symbols = Symbols::new();
        let mut lines = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let bytes = figure.of(place);
            if bytes == 0 {
                continue;
            }
            let mut names: Vec<String> = Vec::new();
            for call in stack_names::calls(&symbols, place.stack) {
                if call.frames.is_empty() {
                    names.push(symbols.place(call.at));
                }
                names.extend(
                    call.frames.iter().map(|f| stack_names::name(&symbols, call.at, Some(f))),
                );
            }
            names.extend(place.tag.iter().map(|tag| format!("[{tag}]")));
            names.reverse();
            let folded: Vec<String> = names.iter().map(|name| name.replace(';', ":")).collect();
            lines.push(format!("{} {bytes}", folded.join(";")));
        }
        lines
    }

    /// A flame graph as an SVG picture, for any browser. A tag, where there is one, is the outermost frame.
    ///
    /// # Errors
    /// Those of `out`; and that there is nothing to draw.
    pub fn flame_graph(&self, figure: Figure, out: impl Write) -> io::Result<()> {
        let _own = Quiet::begin();
        let lines = self.folded(figure);
        if lines.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the profile holds no sample"));
        }
        let mut options = inferno::flamegraph::Options::default();
        options.title = figure.title().into();
        options.count_name = "bytes".into();
        options.colors = inferno::flamegraph::color::Palette::Basic(
            inferno::flamegraph::color::BasicPalette::Mem,
        );
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Strings, functions and places are written once and named by number.
struct Writer<'a> {
    symbols: &'a Symbols,
    strings: Vec<String>,
    string_numbers: HashMap<String, i64>,
    functions: Vec<proto::Function>,
    function_numbers: HashMap<(i64, i64), u64>,
    locations: Vec<proto::Location>,
    location_numbers: HashMap<(usize, usize), u64>,
    /// Modules with a place in them, and whether any of those has a name.
    used: HashMap<usize, bool>,
}

impl<'a> Writer<'a> {
    fn new(symbols: &'a Symbols) -> Self {
        Self {
            symbols,
            // The first string is the empty one.
            strings: vec![String::new()],
            string_numbers: HashMap::from([(String::new(), 0)]),
            functions: Vec::new(),
            function_numbers: HashMap::new(),
            locations: Vec::new(),
            location_numbers: HashMap::new(),
            used: HashMap::new(),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.string_numbers.get(text) {
            return number;
        }
        let number = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        self.string_numbers.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> proto::ValueType {
        proto::ValueType { r#type: self.string(kind), unit: self.string(unit) }
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.string(name), self.string(file));
        let functions = &mut self.functions;
        *self.function_numbers.entry((name, filename)).or_insert_with(|| {
            let id = functions.len() as u64 + 1;
            functions.push(proto::Function {
                id,
                name,
                system_name: name,
                filename,
                start_line: 0,
            });
            id
        })
    }

    fn location(&mut self, call: &Call) -> u64 {
        let key = (call.at, call.left_out);
        if let Some(&number) = self.location_numbers.get(&key) {
            return number;
        }
        let line = call
            .frames
            .iter()
            .map(|frame| proto::Line {
                function_id: self.function(&frame.function, &frame.file),
                line: frame.line.into(),
                column: 0,
            })
            .collect();
        let module = self.symbols.module(call.at).map(|(at, _)| at);
        if let Some(module) = module {
            *self.used.entry(module).or_default() |= !call.frames.is_empty();
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.push(proto::Location {
            id,
            mapping_id: module.map_or(0, |at| at as u64 + 1),
            address: call.at as u64,
            line,
            is_folded: false,
        });
        self.location_numbers.insert(key, id);
        id
    }

    fn mappings(&mut self) -> Vec<proto::Mapping> {
        let symbols = self.symbols;
        let mut mappings = Vec::new();
        // pprof takes the first one for the program: it is always there.
        for (at, module) in symbols.modules().enumerate() {
            let named = self.used.get(&at).copied();
            if at != 0 && named.is_none() {
                continue;
            }
            let named = named.unwrap_or(false);
            mappings.push(proto::Mapping {
                id: at as u64 + 1,
                memory_start: module.start as u64,
                memory_limit: module.end as u64,
                file_offset: module.offset as u64,
                filename: self.string(&module.path.to_string_lossy()),
                build_id: self.string(&module.build_id_hex()),
                has_functions: named,
                has_filenames: named,
                has_line_numbers: named,
                has_inline_frames: named,
            });
        }
        mappings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::profile::Lifetime;
    use crate::watch::stacks;
    use std::io::Read;
    use std::time::Duration;

    fn profile() -> Profile {
        let blocks = |count, bytes| Blocks { count, bytes };
        let mut lifetimes = [Lifetime::default(); LIFETIMES.len()];
        lifetimes[2] = Lifetime { freed: 5, lived: Duration::from_millis(1) };
        lifetimes[3] = Lifetime { freed: 1, lived: Duration::from_millis(2) };
        let place = Place {
            stack: stacks::capture(),
            tag: Some("tenant".to_owned()),
            allocated: blocks(10, 1000),
            in_use: blocks(4, 400),
            peak: blocks(7, 700),
            lifetimes,
        };
        let untagged = Place { tag: None, ..place.clone() };
        Profile {
            places: vec![place, untagged],
            interval: 512 << 10,
            samples: 10,
            dropped: 2,
            duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&profile().pprof()[..]).read_to_end(&mut bytes).unwrap();
        let message = proto::Profile::decode(&bytes[..]).unwrap();
        let text = |at: i64| message.string_table[at as usize].as_str();
        assert_eq!(text(0), "");
        let types: Vec<_> =
            message.sample_type.iter().map(|t| (text(t.r#type), text(t.unit))).collect();
        assert_eq!(types, TYPES);
        assert_eq!((text(message.default_sample_type), message.period), ("inuse_space", 512 << 10));
        assert!(text(message.comment[0]).starts_with("2 samples"));
        assert_eq!(message.duration_nanos, 1_000_000_000);

        let [tagged, short, long, untagged, ..] = &message.sample[..] else {
            panic!("{}", message.sample.len())
        };
        assert_eq!(tagged.value, [10, 1000, 4, 400, 7, 700, 0, 0]);
        for (lived, value, name) in
            [(short, [5, 1_000_000], "100 us to 1 ms"), (long, [1, 2_000_000], "1 ms to 10 ms")]
        {
            assert_eq!((&lived.value[..6], &lived.value[6..]), (&[0; 6][..], &value[..]));
            assert_eq!(lived.location_id, tagged.location_id);
            let labels: Vec<_> =
                lived.label.iter().map(|label| (text(label.key), text(label.str))).collect();
            assert_eq!(labels, [("tag", "tenant"), ("lifetime", name)]);
        }
        assert_eq!(tagged.label.len(), 1);
        assert_eq!((text(tagged.label[0].key), text(tagged.label[0].str)), ("tag", "tenant"));
        assert!(untagged.label.is_empty() && untagged.location_id == tagged.location_id);
        let place = |id: u64| &message.location[id as usize - 1];
        let first = place(tagged.location_id[0]);
        let function = &message.function[first.line[0].function_id as usize - 1];
        assert!(text(function.name).ends_with("profile"), "{}", text(function.name));
        assert!(text(function.filename).ends_with("pprof.rs") && first.line[0].line > 100);
        // Every place lies in a mapping that says which build it is of.
        for &id in &tagged.location_id {
            let place = place(id);
            let mapping = message.mapping.iter().find(|m| m.id == place.mapping_id).unwrap();
            assert!((mapping.memory_start..mapping.memory_limit).contains(&place.address));
            assert!(!text(mapping.filename).is_empty());
        }
        let program = &message.mapping[0];
        assert!(program.has_functions && program.id == 1);
        assert_eq!(text(program.filename), std::env::current_exe().unwrap().to_str().unwrap());
    }
}

/// `profile.proto`.
mod proto {
    /// The whole of it.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "7")]
        pub drop_frames: i64,
        #[prost(int64, tag = "8")]
        pub keep_frames: i64,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
        #[prost(int64, repeated, tag = "13")]
        pub comment: Vec<i64>,
        #[prost(int64, tag = "14")]
        pub default_sample_type: i64,
    }

    /// What a figure means.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub r#type: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }

    /// A stack and its figures.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub label: Vec<Label>,
    }

    /// Something more about a sample.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(int64, tag = "1")]
        pub key: i64,
        #[prost(int64, tag = "2")]
        pub str: i64,
        #[prost(int64, tag = "3")]
        pub num: i64,
        #[prost(int64, tag = "4")]
        pub num_unit: i64,
    }

    /// A module's code.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub file_offset: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
        #[prost(bool, tag = "8")]
        pub has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub has_inline_frames: bool,
    }

    /// An address, and the functions there.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
        #[prost(bool, tag = "5")]
        pub is_folded: bool,
    }

    /// A line of a function.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
        #[prost(int64, tag = "3")]
        pub column: i64,
    }

    /// A function.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        #[prost(int64, tag = "3")]
        pub system_name: i64,
        #[prost(int64, tag = "4")]
        pub filename: i64,
        #[prost(int64, tag = "5")]
        pub start_line: i64,
    }
}
