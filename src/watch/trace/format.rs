//! The trace file: its layout and its records. Pure: the recorder writes with these functions and the
//! command reads with them (it includes this file), so the two cannot disagree.
//!
//! ```text
//! file    a head of one unit, then chunks, each a whole number of units
//! head    magic, version, unit, process, times, command; how many units were claimed; records lost
//! chunk   a head of 64 bytes (what it holds, thread, its number in the thread, units, the time its
//!         records count from; how many bytes of it are written), then records or text
//! record  a byte of operation and flags, numbers in 7-bit groups, a byte to check the others by
//! ```
//!
//! The recorder maps chunks shared, so a record is in the file as soon as its chunk's head counts it:
//! whatever ends the process, what was recorded is there. Times and addresses are differences to those
//! of the record before in the chunk; the first of a chunk differs from the chunk's own time and 0, so a
//! chunk is read without the ones before. Numbers are little-endian. Every number that can be checked is.

/// The first bytes of a trace.
pub const MAGIC: [u8; 8] = *b"SPNDRLTR";
/// The version of this layout.
pub const VERSION: u32 = 2;
/// The first bytes of a chunk.
pub const CHUNK: u32 = u32::from_le_bytes(*b"CHNK");
/// The smallest unit; it is the page size where that is larger.
pub const UNIT: usize = 4096;
/// Bytes of a chunk's head.
pub const CHUNK_HEAD: usize = 64;
/// Where the command begins in the head; it ends with the first zero byte, its words are divided by 1.
pub const COMMAND_AT: usize = 64;
/// Bytes of the command, its last zero included.
pub const COMMAND_MOST: usize = 960;
/// Where the count of claimed units lies, sealed.
pub const CLAIMED_AT: usize = 48;
/// Where the count of lost records lies, sealed.
pub const LOST_AT: usize = 56;
/// Where, in a chunk, the count of its written bytes lies, sealed.
pub const USED_AT: usize = 40;
/// The most frames of a stack that are kept.
pub const FRAMES_MOST: usize = 96;
/// No record is longer.
pub const RECORD_MOST: usize = 32 + 10 * (FRAMES_MOST + 4);

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Records of one thread.
    Records = 1,
    /// `/proc/self/maps` as it was then, what addresses in stacks belong to; and eight bytes to check it by.
    Maps = 2,
}

impl Kind {
    /// The kind with this number.
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Records),
            2 => Some(Self::Maps),
            _ => None,
        }
    }
}

/// One call, or a stack that calls name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A block was handed out.
    Alloc {
        /// Nanoseconds since the trace began, as all times here.
        time: u64,
        /// Its address.
        at: u64,
        /// Bytes asked for.
        size: u64,
        /// The alignment asked for; 0 where it is at most 16.
        align: u32,
        /// The stack's number, 0 for none.
        stack: u32,
    },
    /// A block is about to be taken back.
    Free {
        /// When.
        time: u64,
        /// Its address.
        at: u64,
        /// The stack's number, 0 for none.
        stack: u32,
    },
    /// A block was resized, where it was or by moving.
    Resize {
        /// When it had its new address for itself.
        time: u64,
        /// When it still had the old one for itself: pages that move are given up before anybody can say so, and
        /// another thread may have been handed the old address since. At most `time`.
        began: u64,
        /// Its address before.
        old: u64,
        /// Its address now.
        at: u64,
        /// Bytes asked for.
        size: u64,
        /// The stack's number, 0 for none.
        stack: u32,
    },
    /// The frames behind a stack's number, innermost first.
    Stack {
        /// The number.
        id: u32,
        /// Return addresses.
        frames: &'a [usize],
    },
}

const ALLOC: u8 = 1;
const FREE: u8 = 2;
const RESIZE: u8 = 3;
const STACK: u8 = 4;
const OPERATION: u8 = 7;
const HAS_STACK: u8 = 8;
/// Of an allocation.
const HAS_ALIGN: u8 = 16;
/// Of a resize: it began before its time.
const HAS_DURATION: u8 = 16;

/// What the next record's numbers differ from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The time of the record before, in nanoseconds.
    pub time: u64,
    /// The address of the block before.
    pub at: u64,
}

/// A count and a check of it, in a word that is stored at once.
pub const fn seal(count: u32) -> u64 {
    (count as u64) << 32 | mix(count) as u64
}

/// The count in a sealed word; none if the word was bent.
pub const fn unseal(word: u64) -> Option<u32> {
    let count = (word >> 32) as u32;
    if mix(count) == word as u32 { Some(count) } else { None }
}

const fn mix(count: u32) -> u32 {
    let mut x = count ^ 0x5eed_7ace;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// What a check of bytes begins with.
pub const UNCHECKED: u64 = 0xcbf2_9ce4_8422_2325;

/// A check of bytes that do not change, FNV-1a, given that of the bytes before them.
pub fn checksum(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Bytes to write to, in order; what does not fit is noted and left out.
#[derive(Debug)]
pub struct Out {
    bytes: [u8; RECORD_MOST],
    len: usize,
}

impl Out {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { bytes: [0; RECORD_MOST], len: 0 }
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    /// An address as its difference to another; most are multiples of 8.
    fn address(&mut self, at: u64, from: u64) {
        let difference = at.wrapping_sub(from) as i64;
        let low = (difference & 7) as u8;
        self.number(zigzag(difference >> 3) << 1 | u64::from(low != 0));
        if low != 0 {
            self.byte(low);
        }
    }
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// A byte that changes with any one byte of a record, and with their order.
fn check(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0xa5, |sum: u8, &byte| sum.rotate_left(3) ^ byte)
}

/// Writes one record.
pub fn encode(record: &Record<'_>, before: &mut Before, out: &mut Out) {
    out.len = 0;
    let stacked = |stack: u32| if stack == 0 { 0 } else { HAS_STACK };
    match *record {
        Record::Alloc { time, at, size, align, stack } => {
            let aligned = if align > 16 { HAS_ALIGN } else { 0 };
            out.byte(ALLOC | aligned | stacked(stack));
            out.number(time.saturating_sub(before.time));
            out.address(at, before.at);
            out.number(size);
            if aligned != 0 {
                out.byte(align.trailing_zeros() as u8);
            }
            push_stack(out, stack);
            *before = Before { time: time.max(before.time), at };
        }
        Record::Free { time, at, stack } => {
            out.byte(FREE | stacked(stack));
            out.number(time.saturating_sub(before.time));
            out.address(at, before.at);
            push_stack(out, stack);
            *before = Before { time: time.max(before.time), at };
        }
        Record::Resize { time, began, old, at, size, stack } => {
            let took = time.saturating_sub(began);
            let lasted = if took != 0 { HAS_DURATION } else { 0 };
            out.byte(RESIZE | lasted | stacked(stack));
            out.number(time.saturating_sub(before.time));
            out.address(old, before.at);
            out.address(at, old);
            out.number(size);
            if lasted != 0 {
                out.number(took);
            }
            push_stack(out, stack);
            *before = Before { time: time.max(before.time), at };
        }
        Record::Stack { id, frames } => {
            out.byte(STACK);
            out.number(u64::from(id));
            let frames = frames.get(..FRAMES_MOST).unwrap_or(frames);
            out.number(frames.len() as u64);
            let mut from = 0;
            for &frame in frames {
                out.number(zigzag((frame as u64).wrapping_sub(from) as i64));
                from = frame as u64;
            }
        }
    }
    let sum = check(out.bytes());
    out.byte(sum);
}

fn push_stack(out: &mut Out, stack: u32) {
    if stack != 0 {
        out.number(u64::from(stack));
    }
}

/// Bytes to read from, in order.
struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl In<'_> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte =
            *self.bytes.get(self.at).ok_or("the record goes on behind the end of its chunk")?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number is longer than 64 bits")
    }

    fn address(&mut self, from: u64) -> Result<u64, &'static str> {
        let number = self.number()?;
        let low = if number & 1 == 0 { 0 } else { self.byte()? };
        if low > 7 {
            return Err("an address is not written as addresses are");
        }
        Ok(from.wrapping_add((unzigzag(number >> 1) << 3) as u64 | u64::from(low)))
    }

    fn small(&mut self, what: &'static str) -> Result<u32, &'static str> {
        u32::try_from(self.number()?).map_err(|_| what)
    }

    fn stack(&mut self, first: u8) -> Result<u32, &'static str> {
        match first & HAS_STACK {
            0 => Ok(0),
            _ => self.small("a stack's number is longer than 32 bits"),
        }
    }
}

/// Reads the first record of `bytes`; frames of a stack go to `frames`. Answers how long it is too.
///
/// # Errors
/// What is wrong with it.
pub fn decode<'a>(
    bytes: &[u8],
    before: &mut Before,
    frames: &'a mut [usize; FRAMES_MOST],
) -> Result<(Record<'a>, usize), &'static str> {
    let mut input = In { bytes, at: 0 };
    let first = input.byte()?;
    let operation = first & OPERATION;
    let allowed = match operation {
        ALLOC => HAS_STACK | HAS_ALIGN,
        FREE => HAS_STACK,
        RESIZE => HAS_STACK | HAS_DURATION,
        STACK => 0,
        _ => return Err("there is no such operation"),
    };
    if first & !OPERATION & !allowed != 0 {
        return Err("the operation has flags it does not take");
    }
    let mut next = *before;
    let record = if operation == STACK {
        let id = input.small("a stack's number is longer than 32 bits")?;
        let count = input.number()? as usize;
        let frames = frames.get_mut(..count).ok_or("a stack has more frames than are ever kept")?;
        let mut from = 0;
        for frame in &mut *frames {
            from = u64::wrapping_add(from, unzigzag(input.number()?) as u64);
            *frame = from as usize;
        }
        Record::Stack { id, frames }
    } else {
        let time =
            before.time.checked_add(input.number()?).ok_or("the time is beyond all times")?;
        let at = input.address(before.at)?;
        next = Before { time, at };
        match operation {
            FREE => Record::Free { time, at, stack: input.stack(first)? },
            ALLOC => {
                let size = input.number()?;
                let align = match first & HAS_ALIGN {
                    0 => 0,
                    _ => 1u32
                        .checked_shl(input.byte()?.into())
                        .ok_or("no address has this alignment")?,
                };
                Record::Alloc { time, at, size, align, stack: input.stack(first)? }
            }
            _ => {
                let old = at;
                next.at = input.address(old)?;
                let size = input.number()?;
                let took = if first & HAS_DURATION == 0 { 0 } else { input.number()? };
                let began = time.checked_sub(took).ok_or("it began before the trace did")?;
                Record::Resize { time, began, old, at: next.at, size, stack: input.stack(first)? }
            }
        }
    };
    let sum = check(bytes.get(..input.at).unwrap_or_default());
    if input.byte()? != sum {
        return Err("its check byte is another: it was changed, or is no record");
    }
    *before = next;
    Ok((record, input.at))
}
