//! A stack with names: its frames from the caller of the allocator outwards.

use super::symbols::{Frame, Symbols};
use crate::watch::stacks::{self, depot::StackId};
use std::fmt::Write;

/// One call of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// An address inside the calling instruction.
    pub at: usize,
    /// The functions there, the innermost of inlined ones first; none if nothing is known.
    pub frames: Vec<Frame>,
    /// How many of them were left out because they are the allocator's.
    pub left_out: usize,
}

/// The addresses of a stack, innermost first, each inside its calling instruction.
pub fn addresses(id: StackId) -> Vec<usize> {
    let mut frames = [0; stacks::DEPTH];
    let count = stacks::frames(id, &mut frames).min(frames.len());
    // Each is where its function goes on: the call is just before.
    frames[..count].iter().map(|&frame| frame - 1).collect()
}

/// The calls of a stack, innermost first, without those that only pass a request on to the allocator.
pub fn calls(symbols: &Symbols, id: StackId) -> Vec<Call> {
    let mut calls: Vec<Call> = addresses(id)
        .into_iter()
        .map(|at| Call { at, frames: symbols.frames(at), left_out: 0 })
        .collect();
    // If there is nothing else in it, better all than nothing.
    let whole = calls.clone();
    while let Some(first) = calls.first_mut() {
        let passing = first
            .frames
            .iter()
            .take_while(|frame| passes_on(&frame.function) || lies_below(frame))
            .count();
        if first.frames.is_empty() || passing < first.frames.len() {
            first.frames.drain(..passing);
            first.left_out = passing;
            break;
        }
        calls.remove(0);
    }
    if calls.is_empty() { whole } else { calls }
}

/// Whether a function does nothing but ask the allocator on its caller's behalf.
fn passes_on(function: &str) -> bool {
    const NAMES: [&str; 14] = [
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "memalign",
        "aligned_alloc",
        "posix_memalign",
        "valloc",
        "pvalloc",
        "__rust_alloc",
        "__rust_alloc_zeroed",
        "__rust_realloc",
        "__rg_alloc",
        "exchange_malloc",
    ];
    const PREFIXES: [&str; 14] = [
        "operator new",
        "alloc::alloc::",
        "<alloc::alloc::Global",
        "alloc::raw_vec::",
        "<alloc::raw_vec::",
        "__rustc::__r",
        "__rustc[",
        "spandrel::front::",
        "<spandrel::front::",
        "spandrel::watch::",
        "core::alloc::",
        "<core::alloc::",
        "__gnu_cxx::new_allocator<",
        "std::__new_allocator<",
    ];
    let name = function.split('(').next().unwrap_or(function);
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| function.starts_with(prefix))
        || (function.starts_with("std::allocator") && function.contains("allocate"))
}

/// The same for one that was inlined and of which line tables alone tell the bare name: by its file.
fn lies_below(frame: &Frame) -> bool {
    const FILES: [&str; 6] = [
        "library/alloc/src/alloc.rs",
        "library/alloc/src/raw_vec/mod.rs",
        "src/front/mod.rs",
        "src/front/bare.rs",
        "src/front/building.rs",
        "src/front/realloc.rs",
    ];
    !frame.function.contains("::") && FILES.iter().any(|file| frame.file.ends_with(file))
}

/// The name of a call as people read it: functions where they are known, else a place in a file.
pub fn name(symbols: &Symbols, at: usize, frame: Option<&Frame>) -> String {
    match frame {
        Some(frame) if !frame.function.is_empty() => frame.function.clone(),
        _ => symbols.place(at),
    }
}

/// A file of the Rust library without the commit it is of.
fn shortened(file: &str) -> &str {
    let rest = file.strip_prefix("/rustc/").and_then(|rest| rest.split_once('/'));
    rest.map_or(file, |(_, rest)| rest)
}

/// A stack as lines of text, innermost first and as far out as the program goes, at most `most` of them.
pub fn lines(symbols: &Symbols, id: StackId, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    'stack: for call in calls(symbols, id) {
        if call.frames.is_empty() {
            lines.push(symbols.place(call.at));
        }
        for frame in &call.frames {
            if frame.function.contains("__rust_begin_short_backtrace") {
                break 'stack;
            }
            let mut line = name(symbols, call.at, Some(frame));
            if !frame.file.is_empty() {
                let _ = write!(line, "  {}:{}", shortened(&frame.file), frame.line);
            }
            lines.push(line);
            if frame.function == "main" {
                break 'stack;
            }
        }
    }
    if lines.len() > most {
        let left = lines.len() - most;
        lines.truncate(most);
        lines.push(format!("... and {left} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_passes_on() {
        for function in [
            "malloc",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "alloc::alloc::Global::alloc_impl",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "alloc::raw_vec::finish_grow",
            "__rustc::__rust_alloc",
            "__rustc[dfe2]::__rust_alloc",
            "std::allocator_traits<std::allocator<int> >::allocate(std::allocator<int>&, unsigned long)",
            "std::__new_allocator<int>::allocate(unsigned long, void const*)",
        ] {
            assert!(passes_on(function), "{function}");
        }
        for function in
            ["main", "my_malloc", "std::vector<int>::push_back(int)", "alloc::vec::Vec<T>::push"]
        {
            assert!(!passes_on(function), "{function}");
        }
    }

    #[inline(never)]
    fn here() -> StackId {
        // No tail call: that would leave no frame.
        std::hint::black_box(stacks::capture())
    }

    #[test]
    fn a_stack_begins_with_its_caller() {
        let symbols = Symbols::new();
        let id = here();
        let calls = calls(&symbols, id);
        assert!(calls[0].frames[0].function.ends_with("stack_names::tests::here"), "{calls:?}");
        let lines = lines(&symbols, id, 2);
        assert!(lines[1].contains("a_stack_begins_with_its_caller") && lines.len() == 3);
        assert!(lines[1].contains("stack_names.rs:") && lines[2].starts_with("... and "));
        assert!(addresses(0).is_empty());
    }
}
