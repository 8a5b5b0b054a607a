//! The free that went twice.

use super::file::{Event, Trace, What};
use crate::written::quietly;
use anyhow::Result;
use std::collections::HashMap;
use std::io::Write;

/// A block that was freed while it was free.
#[derive(Debug, PartialEq, Eq)]
pub struct Double {
    /// Who got the block, if the trace saw it.
    pub alloc: Option<Event>,
    /// Who freed it first.
    pub first: Event,
    /// Who freed it again.
    pub second: Event,
}

/// All of them, in the order of the second frees.
pub fn find(trace: &Trace) -> Vec<Double> {
    let mut alive: HashMap<u64, Event> = HashMap::new();
    let mut freed: HashMap<u64, (Option<Event>, Event)> = HashMap::new();
    let mut found = Vec::new();
    for event in &trace.events {
        let gone = match event.what {
            What::Alloc => None,
            What::Free | What::Leave => Some(event.at),
            What::Resize if event.old != event.at => None,
            What::Resize => Some(event.at),
        };
        if let Some(at) = gone {
            match (alive.remove(&at), freed.get(&at)) {
                (None, Some(&(alloc, first))) => {
                    found.push(Double { alloc, first, second: *event })
                }
                (alloc, _) => {
                    freed.insert(at, (alloc, *event));
                }
            }
        }
        if matches!(event.what, What::Alloc | What::Resize) {
            alive.insert(event.at, *event);
            freed.remove(&event.at);
        }
    }
    found
}

/// Says what was found.
pub fn report(trace: &Trace, found: &[Double], out: &mut impl Write) -> Result<()> {
    let names = trace.names();
    quietly((|| {
        if found.is_empty() {
            writeln!(out, "no block was freed twice")?;
        }
        for Double { alloc, first, second } in found {
            let size = alloc.map(|alloc| format!(", {} bytes", alloc.size)).unwrap_or_default();
            writeln!(out, "double free of {:#x}{size}", second.at)?;
            let calls = [
                ("handed out", alloc.as_ref()),
                ("freed", Some(first)),
                ("freed again", Some(second)),
            ];
            for (what, event) in calls {
                let Some(event) = event else {
                    writeln!(out, "  {what:11}  before the trace began")?;
                    continue;
                };
                writeln!(
                    out,
                    "  {what:11} {:13.9} s  thread {}  {}",
                    event.time as f64 / 1e9,
                    event.thread,
                    trace.stack(&names, event.stack)
                )?;
            }
        }
        out.flush()
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: u64, what: What, at: u64) -> Event {
        Event { time, at, old: at, size: 48, align: 0, stack: 0, thread: 1, what }
    }

    #[test]
    fn only_frees_of_free_blocks_are_found() {
        let events = vec![
            event(1, What::Alloc, 0x10),
            event(2, What::Free, 0x10),
            event(3, What::Alloc, 0x10),
            event(4, What::Free, 0x10),
            event(5, What::Free, 0x10),
            event(6, What::Free, 0x20),
            event(7, What::Alloc, 0x30),
            event(8, What::Leave, 0x30),
            Event { old: 0x30, ..event(8, What::Resize, 0x40) },
            event(9, What::Free, 0x40),
            event(10, What::Free, 0x30),
        ];
        let trace = Trace { events: events.clone(), ..Trace::default() };
        let found = find(&trace);
        let times: Vec<_> = found
            .iter()
            .map(|double| {
                (double.alloc.map(|alloc| alloc.time), double.first.time, double.second.time)
            })
            .collect();
        // 0x20 was handed out before the trace began; 0x30 went with the resize.
        assert_eq!(times, [(Some(3), 4, 5), (Some(7), 8, 10)]);
        let mut text = Vec::new();
        report(&trace, &found[..1], &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "double free of 0x10, 48 bytes\n  handed out    0.000000003 s  thread 1  no stack\n  \
             freed         0.000000004 s  thread 1  no stack\n  freed again   0.000000005 s  thread 1  no stack\n"
        );
    }
}
