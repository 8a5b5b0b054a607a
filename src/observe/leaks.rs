//! Leaks: every block that is still live, by where it was allocated, and whether anything leads to it.
//!
//! All other threads are held still for the moment (`threads`). Then every word of the program's
//! variables, stacks, registers and mappings (`memory`) that could be a pointer is taken for one, to the
//! start of a block or into it; what it leads to is *reachable*, and so is what can be reached from there.
//! The rest is *lost*: no word of the program names it any more. The look is conservative the safe way
//! round: a number that happens to look like an address hides a leak, but nothing in use is called lost,
//! unless the program keeps its pointers in another form than as they are.

use super::apart::Apart;
use super::memory::{self, Range, Reader};
use super::threads::Held;
use crate::base::classes::Use;
use crate::watch::stacks::depot::StackId;
use crate::watch::{ledger, mode};
use std::collections::HashMap;

/// Whether anything leads to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Nothing does.
    Lost,
    /// Only lost blocks do.
    LostThrough,
    /// The program can still get at it.
    Reachable,
}

/// The blocks of one place that are alike in reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Whether anything leads to them.
    pub reach: Reach,
    /// Where they were allocated ([`watch::stacks`](crate::watch)); 0 if that is not known.
    pub stack: StackId,
    /// How many there are.
    pub blocks: usize,
    /// Their bytes, as they were asked for.
    pub bytes: usize,
    /// Of lost blocks: further blocks that only they lead to, and the bytes of those.
    pub through: (usize, usize),
    /// The address of one of them.
    pub example: usize,
}

/// What is still live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// By place; what is lost first, and of each kind the most bytes first.
    pub groups: Vec<Group>,
    /// Threads that could not be held: what only their registers lead to is called lost.
    pub unheld: usize,
    /// Whether all was looked at. Without memory for the list of blocks some are missing.
    pub complete: bool,
}

/// Why nobody looked for leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoLeaks {
    /// Leaks are not watched: the option `leaks` is off.
    NotWatched,
    /// Another thread is looking at this moment.
    Busy,
    /// The program uses every real-time signal, one of which would hold its threads still.
    NoSignal,
}

impl std::fmt::Display for NoLeaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotWatched => {
                "leaks are not watched: set the option leaks=on, or call watch_leaks(true)"
            }
            Self::Busy => "another thread is looking for leaks",
            Self::NoSignal => "no real-time signal is free to hold the threads with",
        })
    }
}

impl std::error::Error for NoLeaks {}

/// Starts or stops keeping, of every block that is allocated from now on, where that was. Takes observed
/// mode, and a walk up the stack with every allocation.
pub fn watch_leaks(on: bool) {
    if on { mode::on(mode::LEAKS) } else { mode::off(mode::LEAKS) }
}

/// Every block that was allocated since leaks are watched and is still live, and whether anything leads to
/// it. Holds all other threads still while it looks, which may interrupt a system call of theirs. Blocks that
/// only the caller's own frame's dead variables lead to may count as reachable.
///
/// # Errors
/// See [`NoLeaks`].
#[inline(never)]
pub fn leaks() -> Result<Leaks, NoLeaks> {
    if !mode::has(mode::LEAKS) {
        return Err(NoLeaks::NotWatched);
    }
    let registers = registers();
    let here = (&raw const registers).addr();
    let found = look(here);
    std::hint::black_box(&registers);
    found
}

/// The registers that a called function keeps for its caller: the caller's only pointer may be in one.
#[inline(always)]
fn registers() -> [usize; 12] {
    let mut kept = [0; 12];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stores registers into an array with room for them.
    unsafe {
        std::arch::asm!(
            "mov [{kept}], rbx", "mov [{kept} + 8], rbp", "mov [{kept} + 16], r12",
            "mov [{kept} + 24], r13", "mov [{kept} + 32], r14", "mov [{kept} + 40], r15",
            kept = in(reg) kept.as_mut_ptr(), options(nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: stores registers into an array with room for them.
    unsafe {
        std::arch::asm!(
            "stp x19, x20, [{kept}]", "stp x21, x22, [{kept}, 16]", "stp x23, x24, [{kept}, 32]",
            "stp x25, x26, [{kept}, 48]", "stp x27, x28, [{kept}, 64]", "str x29, [{kept}, 80]",
            kept = in(reg) kept.as_mut_ptr(), options(nostack, preserves_flags),
        );
    }
    kept
}

/// A live block.
#[derive(Clone, Copy)]
struct Live {
    start: usize,
    bytes: usize,
    size: usize,
    stack: StackId,
    reach: Reach,
    /// Of what is lost through another block: that block.
    through: u32,
}

/// Nothing that is kept while it looks may lie in the heap: it would be seen.
#[inline(never)]
fn look(here: usize) -> Result<Leaks, NoLeaks> {
    // While the loader can still be asked: a thread held still may have its lock.
    let mut sealed = Apart::new();
    memory::sealed(&mut sealed);
    let held = Held::all()?;
    let mut heap = Heap { blocks: Apart::new(), found: Apart::new(), complete: true };
    // Blocks with a mapping of their own are on the kernel's list, and are no roots.
    let mut mappings = Apart::new();
    ledger::each_live(|block, entry| {
        if block.usage == Use::Mapping {
            mappings.push((block.start, block.start + block.bytes));
        }
        heap.complete &= heap.blocks.push(Live {
            start: block.start,
            bytes: block.bytes,
            size: entry.size,
            stack: entry.birth,
            reach: Reach::Lost,
            through: u32::MAX,
        });
    });
    // From here on the heap may be used: what is allocated now is not on the list.
    heap.blocks.sort_unstable_by_key(|block| block.start);
    let mut reader = Reader::new();
    let mut apart = vec![heap.blocks.range(), held.range(), mappings.range(), sealed.range()];
    apart.extend_from_slice(&mappings);
    let stacks: Vec<usize> = held.stacks().into_iter().chain([here]).collect();
    for range in memory::writable(&apart) {
        heap.mark(&mut reader, live_part(range, &stacks));
    }
    for &range in sealed.iter() {
        heap.mark(&mut reader, range);
    }
    // Blocks from before the ledger was begun may lead anywhere.
    ledger::each_unknown(|block| {
        heap.mark(&mut reader, (block.start, block.start + block.bytes));
    });
    heap.flood(&mut reader, Reach::Reachable, u32::MAX);
    for at in 0..heap.blocks.len() {
        if heap.blocks[at].reach == Reach::Lost {
            heap.found.push(at as u32);
            heap.flood(&mut reader, Reach::LostThrough, at as u32);
        }
    }
    let unheld = held.silent();
    drop(held);
    Ok(Leaks { groups: heap.groups(), unheld, complete: heap.complete })
}

/// Of a mapping that one known stack lies in, the part that is in use.
fn live_part((start, end): Range, stacks: &[usize]) -> Range {
    let mut inside = stacks.iter().filter(|&&stack| (start..end).contains(&stack));
    match (inside.next(), inside.next()) {
        (Some(&stack), None) => (stack & !7, end),
        _ => (start, end),
    }
}

struct Heap {
    /// Sorted by address.
    blocks: Apart<Live>,
    /// Blocks that were reached and not looked into yet.
    found: Apart<u32>,
    complete: bool,
}

impl Heap {
    /// The block that `word` leads to.
    fn at(blocks: &[Live], word: usize) -> Option<usize> {
        let (first, last) = (blocks.first()?, blocks.last()?);
        if word < first.start || word >= last.start + last.bytes {
            return None;
        }
        let at = blocks.partition_point(|block| block.start <= word).checked_sub(1)?;
        (word < blocks[at].start + blocks[at].bytes).then_some(at)
    }

    /// What the words of a root lead to is reachable.
    fn mark(&mut self, reader: &mut Reader, range: Range) {
        let (blocks, found, complete) = (&mut self.blocks, &mut self.found, &mut self.complete);
        reader.words(range, &mut |word| {
            if let Some(at) = Self::at(blocks, word)
                && blocks[at].reach != Reach::Reachable
            {
                blocks[at].reach = Reach::Reachable;
                *complete &= found.push(at as u32);
            }
        });
    }

    /// Whatever the found blocks lead to is found too, and is reached as `reach` says: from the roots, or
    /// through the lost block `from`.
    fn flood(&mut self, reader: &mut Reader, reach: Reach, from: u32) {
        while let Some(next) = self.found.pop() {
            let block = self.blocks[next as usize];
            let (blocks, found, complete) = (&mut self.blocks, &mut self.found, &mut self.complete);
            reader.words((block.start, block.start + block.bytes), &mut |word| {
                let Some(at) = Self::at(blocks, word) else { return };
                let target = &mut blocks[at];
                if target.reach == Reach::Lost && at as u32 != from {
                    target.reach = reach;
                    target.through = from;
                    // Lost blocks are gone through by address: one before this was looked into.
                    if reach == Reach::Reachable || at as u32 > from {
                        *complete &= found.push(at as u32);
                    }
                }
            });
        }
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups: HashMap<(Reach, StackId), Group> = HashMap::new();
        let mut add = |reach, block: &Live, (blocks, bytes), (through, through_bytes)| {
            let group = groups.entry((reach, block.stack)).or_insert(Group {
                reach,
                stack: block.stack,
                blocks: 0,
                bytes: 0,
                through: (0, 0),
                example: block.start,
            });
            group.blocks += blocks;
            group.bytes += bytes;
            group.through.0 += through;
            group.through.1 += through_bytes;
        };
        for block in self.blocks.iter() {
            add(block.reach, block, (1, block.size), (0, 0));
            if block.reach == Reach::LostThrough {
                let mut root = block;
                while let Some(next) = self.blocks.get(root.through as usize) {
                    root = next;
                }
                add(Reach::Lost, root, (0, 0), (1, block.size));
            }
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        let most = |group: &Group| std::cmp::Reverse(group.bytes + group.through.1);
        groups.sort_by_key(|group| (group.reach, most(group), group.stack));
        groups
    }
}

impl Leaks {
    /// Blocks and bytes of one reach.
    pub fn sum(&self, reach: Reach) -> (usize, usize) {
        let groups = self.groups.iter().filter(|group| group.reach == reach);
        groups.fold((0, 0), |(n, bytes), group| (n + group.blocks, bytes + group.bytes))
    }

    /// Whether nothing is lost.
    pub fn is_clean(&self) -> bool {
        self.groups.iter().all(|group| group.reach == Reach::Reachable)
    }
}
