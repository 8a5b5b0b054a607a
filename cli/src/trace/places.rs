//! What the addresses in a trace's stacks belong to.

use super::file::Trace;
use std::fmt::Write;

/// One mapped file that code runs in.
#[derive(Clone, Debug, PartialEq)]
struct Module {
    start: u64,
    end: u64,
    /// The offset in the file at `start`.
    offset: u64,
    name: String,
}

/// The mapped files of a trace's process.
#[derive(Debug, Default)]
pub struct Places {
    modules: Vec<Module>,
}

impl Places {
    pub fn of(trace: &Trace) -> Places {
        // What was mapped at the end beats what was mapped at the start.
        Places {
            modules: trace
                .maps
                .iter()
                .rev()
                .flat_map(|text| text.lines())
                .filter_map(module)
                .collect(),
        }
    }

    /// Where an address lies, as `libx.so+0x1234`; just the address where nothing is known of it.
    pub fn name(&self, address: u64) -> String {
        match self.modules.iter().find(|module| (module.start..module.end).contains(&address)) {
            Some(module) => {
                let file = module.name.rsplit('/').next().unwrap_or(&module.name);
                format!("{file}+{:#x}", address - module.start + module.offset)
            }
            None => format!("{address:#x}"),
        }
    }

    /// A stack in one line, innermost first.
    pub fn stack(&self, trace: &Trace, stack: u32) -> String {
        let Some(frames) = trace.stacks.get(&stack) else { return "no stack".to_owned() };
        let mut text = String::new();
        for (index, &frame) in frames.iter().enumerate() {
            let _ = write!(text, "{}{}", if index == 0 { "" } else { " < " }, self.name(frame));
        }
        text
    }
}

/// A line of /proc/self/maps, `START-END PERMISSIONS OFFSET DEVICE INODE PATH`, of code in a file.
fn module(line: &str) -> Option<Module> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let code = words.next()?.as_bytes().get(2) == Some(&b'x');
    let offset = hex(words.next()?)?;
    let name = words.nth(2)?.to_owned();
    code.then_some(Module { start: hex(start)?, end: hex(end)?, offset, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_named_by_file_and_offset() {
        let maps = "00400000-00452000 r-xp 00001000 08:02 173521 /usr/bin/prog\n\
                    00651000-00652000 r--p 00051000 08:02 173521 /usr/bin/prog\n\
                    7ffd0000-7ffd2000 r-xp 00000000 00:00 0\n";
        let trace = Trace {
            maps: vec![maps.to_owned()],
            stacks: [(3, vec![0x40_0010, 0x65_1000])].into(),
            ..Trace::default()
        };
        let places = Places::of(&trace);
        assert_eq!(places.stack(&trace, 3), "prog+0x1010 < 0x651000");
        assert_eq!(places.stack(&trace, 4), "no stack");
    }
}
