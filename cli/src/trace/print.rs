//! A trace as text.

use super::file::{Event, Trace, What};
use crate::written::{bytes, count, quietly, seconds};
use anyhow::Result;
use std::collections::HashSet;
use std::io::Write;

/// How many calls there were and what they asked for.
pub fn summary(trace: &Trace, out: &mut impl Write) -> Result<()> {
    let events = &trace.events;
    let of = |what| events.iter().filter(move |event| event.what == what);
    let threads: HashSet<u32> = events.iter().map(|event| event.thread).collect();
    let span = events.last().map_or(0, |last| last.time) as f64 / 1e9;
    let asked: u64 = events.iter().map(|event| event.size).sum();
    let load = super::workload::Workload::of(trace)?;
    quietly((|| {
        writeln!(out, "process {}: {}", trace.process, trace.command.join(" "))?;
        writeln!(
            out,
            "{} allocations, {} frees, {} resizes by {} threads in {}",
            count(of(What::Alloc).count() as f64),
            count(of(What::Free).count() as f64),
            count(of(What::Resize).count() as f64),
            threads.len(),
            seconds(span)
        )?;
        writeln!(
            out,
            "{} asked for, at most {} alive at a time, {} stacks",
            bytes(asked as f64),
            bytes(load.peak_live as f64),
            trace.stacks.len()
        )?;
        if trace.unfinished > 0 {
            writeln!(out, "{} pages of the file were claimed and not begun", trace.unfinished)?;
        }
        out.flush()
    })())
}

/// Every call, a line each; and behind them the stacks.
pub fn all(trace: &Trace, out: &mut impl Write) -> Result<()> {
    let names = trace.names();
    quietly((|| {
        writeln!(out, "# process {}: {}", trace.process, trace.command.join(" "))?;
        writeln!(out, "#     seconds   thread  call")?;
        // A call is told when it is done.
        for event in trace.events.iter().filter(|event| event.what != What::Leave) {
            line(event, out)?;
        }
        let mut stacks: Vec<u32> = trace.stacks.keys().copied().collect();
        stacks.sort_unstable();
        for stack in stacks {
            writeln!(out, "#{stack} {}", trace.stack(&names, stack))?;
        }
        out.flush()
    })())
}

fn line(event: &Event, out: &mut impl Write) -> std::io::Result<()> {
    write!(out, "{:13.9} {:8}  ", event.time as f64 / 1e9, event.thread)?;
    match event.what {
        What::Alloc if event.align > 0 => {
            write!(out, "{:#x} = aligned_alloc({}, {})", event.at, event.align, event.size)?
        }
        What::Alloc => write!(out, "{:#x} = malloc({})", event.at, event.size)?,
        What::Resize => write!(out, "{:#x} = realloc({:#x}, {})", event.at, event.old, event.size)?,
        What::Free | What::Leave => write!(out, "free({:#x})", event.at)?,
    }
    if event.stack != 0 {
        write!(out, "  #{}", event.stack)?;
    }
    writeln!(out)
}
