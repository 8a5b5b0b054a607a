//! A workload as a file that the replaying process maps: nothing is allocated for it there.
//!
//! A head of 64 bytes (threads, blocks, and where each thread's operations begin behind it), then the
//! operations of the first thread, the second, and so on, 24 bytes each.

use crate::trace::workload::{Op, Workload};
use anyhow::Result;
use std::io::{BufWriter, Write};

/// One operation as it lies in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Step {
    /// Bytes wanted.
    pub size: u64,
    pub block: u32,
    /// How many operations on this block come before.
    pub turn: u32,
    pub kind: u8,
    /// log2 of the alignment, 0 for malloc's own.
    pub align: u8,
    /// Whether the operation before on this block is another thread's.
    pub wait: bool,
    /// Whether the next one is.
    pub tell: bool,
    unused: u32,
}

pub const ALLOC: u8 = 0;
pub const FREE: u8 = 1;
pub const RESIZE: u8 = 2;
/// Bytes of the head's fixed part.
pub const HEAD: usize = 16;

/// Writes the plan; `serial`: one thread, in the order of the times.
pub fn write(load: &Workload, serial: bool, to: impl Write) -> Result<()> {
    let threads = if serial { 1 } else { load.threads.max(1) };
    let mut lists: Vec<Vec<Step>> = vec![Vec::new(); threads];
    // Of each block: turns so far, and where its last step is.
    let mut last: Vec<(u32, Option<(usize, usize)>)> = vec![(0, None); load.blocks as usize];
    for &(thread, op) in &load.ops {
        let thread = if serial { 0 } else { usize::from(thread) };
        let (block, mut step) = match op {
            Op::Alloc { block, size, align } => {
                let align = if align > 16 { align.trailing_zeros() as u8 } else { 0 };
                (block, Step { size, kind: ALLOC, align, ..Step::default() })
            }
            Op::Free { block } => (block, Step { kind: FREE, ..Step::default() }),
            Op::Resize { block, size } => (block, Step { size, kind: RESIZE, ..Step::default() }),
        };
        let (turn, before) = &mut last[block as usize];
        (step.block, step.turn) = (block, *turn);
        if let Some((other, index)) = *before {
            step.wait = other != thread;
            lists[other][index].tell = step.wait;
        }
        *turn += 1;
        *before = Some((thread, lists[thread].len()));
        lists[thread].push(step);
    }
    let mut to = BufWriter::new(to);
    to.write_all(&(threads as u64).to_le_bytes())?;
    to.write_all(&u64::from(load.blocks).to_le_bytes())?;
    for list in &lists {
        to.write_all(&(list.len() as u64).to_le_bytes())?;
    }
    for step in lists.iter().flatten() {
        // SAFETY: a plain struct without padding, as long as said.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(step).cast::<u8>(), size_of::<Step>())
        };
        to.write_all(bytes)?;
    }
    Ok(to.flush()?)
}

const _: () = assert!(size_of::<Step>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_for_each_other_where_they_share_a_block() {
        let load = Workload {
            ops: vec![
                (0, Op::Alloc { block: 0, size: 10, align: 64 }),
                (1, Op::Resize { block: 0, size: 20 }),
                (1, Op::Alloc { block: 1, size: 5, align: 0 }),
                (1, Op::Free { block: 1 }),
                (0, Op::Free { block: 0 }),
            ],
            threads: 2,
            blocks: 2,
            ..Workload::default()
        };
        let mut bytes = Vec::new();
        write(&load, false, &mut bytes).unwrap();
        let numbers: Vec<u64> = bytes[..32]
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(numbers, [2, 2, 2, 3]);
        let steps: Vec<(u8, u32, u32, bool, bool)> = bytes[32..]
            .chunks(24)
            .map(|step| (step[16], step[8].into(), step[12].into(), step[18] != 0, step[19] != 0))
            .collect();
        assert_eq!(
            steps,
            [
                (ALLOC, 0, 0, false, true),
                (FREE, 0, 2, true, false),
                (RESIZE, 0, 1, true, true),
                (ALLOC, 1, 0, false, false),
                (FREE, 1, 1, false, false),
            ]
        );
        bytes.clear();
        write(&load, true, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 24 + 5 * 24);
        assert!(
            bytes[24..].chunks(24).all(|step| step[18] == 0 && step[19] == 0),
            "nobody to wait for"
        );
    }
}
