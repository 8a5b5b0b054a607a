//! Call frame information: what `.eh_frame` says about the frame that a return address lies in.
//!
//! Only what a walk needs is evaluated: the frame's canonical address (CFA), where the return address is,
//! and what becomes of the frame pointer, on which the next CFA may rest. A rule that rests on another
//! register ends the table's say; the caller then tries the frame pointer. Tables are read within their
//! module's bounds and stack words through a reader that checks them, so that a broken table or stack
//! ends the walk and nothing else.

use super::modules::Module;

#[cfg(target_arch = "x86_64")]
mod arch {
    pub const FP: u64 = 6;
    pub const SP: u64 = 7;
    pub const PC: u64 = 16;
}
#[cfg(not(target_arch = "x86_64"))]
mod arch {
    // AArch64's numbers.
    pub const FP: u64 = 29;
    pub const SP: u64 = 31;
    pub const PC: u64 = 32;
}

/// What a walk knows of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Where it goes on.
    pub pc: usize,
    /// The stack pointer.
    pub sp: usize,
    /// The frame pointer.
    pub fp: usize,
    /// The return address, where a register holds it; 0 where none does.
    pub link: usize,
}

/// A piece of bytecode: where, and how long.
type Code = (usize, usize);

/// Where a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cfa {
    /// So far from the stack pointer.
    Sp(i64),
    /// So far from the frame pointer.
    Fp(i64),
    /// As bytecode says.
    Expression(Code),
}

/// What the caller's value of a register was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The one it has.
    Same,
    /// Nobody knows. Of the return address: there is no caller.
    Undefined,
    /// It is stored so far from the CFA.
    At(i64),
    /// It is stored where bytecode says.
    Expression(Code),
}

/// How to get from a frame to its caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the frame begins, which is the caller's stack pointer.
    pub cfa: Cfa,
    /// The frame pointer.
    pub fp: Saved,
    /// The return address.
    pub link: Saved,
    /// Whether a signal interrupted the caller, so that its address is not that of a call.
    pub signal: bool,
}

/// The rule for `pc` by the module's table.
pub fn rule(module: &Module, pc: usize) -> Option<Rule> {
    let (entry, _) = find(module, pc)?;
    let rows = entry.rows(pc)?;
    Some(Rule { cfa: rows.cfa?, fp: rows.fp, link: rows.link, signal: entry.signal })
}

/// First and last address, plus one, of the function that `pc` lies in, by the module's table.
pub fn function(module: &Module, pc: usize) -> Option<(usize, usize)> {
    let (entry, _) = find(module, pc)?;
    Some((entry.start, entry.end))
}

impl Rule {
    /// The caller's registers. `read` answers the word at an address, if there is one. `None`: there is
    /// no caller, or it cannot be told.
    pub fn apply(
        &self,
        frame: &Registers,
        read: &mut impl FnMut(usize) -> Option<usize>,
    ) -> Option<Registers> {
        let cfa = match self.cfa {
            Cfa::Sp(offset) => frame.sp.wrapping_add_signed(offset as isize),
            Cfa::Fp(offset) => frame.fp.wrapping_add_signed(offset as isize),
            Cfa::Expression(code) => evaluate(code, None, frame, read)?,
        };
        let mut value = |saved: Saved, same: usize| match saved {
            Saved::Same => Some(same),
            Saved::Undefined => None,
            Saved::At(offset) => read(cfa.wrapping_add_signed(offset as isize)),
            Saved::Expression(code) => {
                let at = evaluate(code, Some(cfa), frame, read)?;
                read(at)
            }
        };
        let pc = value(self.link, frame.link)?;
        let fp = match self.fp {
            Saved::Undefined => 0,
            saved => value(saved, frame.fp)?,
        };
        Some(Registers { pc: strip(pc), sp: cfa, fp, link: 0 })
    }
}

/// A return address without the signature that AArch64 may keep in its upper bits.
fn strip(pc: usize) -> usize {
    if cfg!(target_arch = "aarch64") { pc & ((1 << 48) - 1) } else { pc }
}

/// Memory between two addresses, read front to back.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    at: usize,
    end: usize,
}

impl Bytes {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.end.checked_sub(self.at)? < N {
            return None;
        }
        // SAFETY: `at..end` lies in a loaded module's readable part, as its loader says.
        let bytes = unsafe { core::ptr::with_exposed_provenance::<[u8; N]>(self.at).read() };
        self.at += N;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take::<1>()?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.take()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take()?))
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn sleb(&mut self) -> Option<i64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7).min(64);
                return Some(value << unused >> unused);
            }
        }
        None
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let left = (self.end - self.at) as u64;
        self.at += usize::try_from(bytes).ok().filter(|_| bytes <= left)?;
        Some(())
    }

    /// A block that begins with its length.
    fn block(&mut self) -> Option<Code> {
        let length = self.uleb()?;
        let at = self.at;
        self.skip(length)?;
        Some((at, length as usize))
    }

    /// A pointer in one of the encodings of `.eh_frame`; `table` is what those relative to the table
    /// of contents start from.
    fn pointer(&mut self, encoding: u8, table: usize) -> Option<usize> {
        let at = self.at;
        let value = match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => self.u64()? as usize,
            0x01 => self.uleb()? as usize,
            0x02 => self.u16()? as usize,
            0x03 => self.u32()? as usize,
            0x09 => self.sleb()? as usize,
            0x0a => self.u16()? as i16 as usize,
            0x0b => self.u32()? as i32 as usize,
            _ => return None,
        };
        match encoding & 0xf0 {
            0x00 => Some(value),
            0x10 => Some(at.wrapping_add(value)),
            0x30 => Some(table.wrapping_add(value)),
            _ => None,
        }
    }

    /// The length of an entry and the bytes it has.
    fn entry(&mut self) -> Option<Self> {
        let length = match self.u32()? {
            0 => return None,
            0xffff_ffff => self.u64()?,
            length => u64::from(length),
        };
        let at = self.at;
        self.skip(length)?;
        Some(Self { at, end: self.at })
    }
}

/// One function's entry.
struct Entry {
    start: usize,
    end: usize,
    signal: bool,
    code_align: u64,
    data_align: i64,
    link: u64,
    /// The instructions shared with others, and its own.
    shared: Bytes,
    own: Bytes,
}

/// Searches the table of contents.
fn find(module: &Module, pc: usize) -> Option<(Entry, usize)> {
    let table = module.table;
    let mut head = Bytes { at: table, end: module.end };
    let [version, frames, count, entries] = head.take()?;
    if version != 1 || entries != 0x3b {
        return None;
    }
    head.pointer(frames, table)?;
    let count = head.pointer(count, table)?;
    let row = |n: usize| -> Option<(usize, usize)> {
        let at = head.at.checked_add(n.checked_mul(8)?)?;
        let mut row = Bytes { at, end: module.end };
        Some((row.pointer(0x3b, table)?, row.pointer(0x3b, table)?))
    };
    // The last row that starts at or before `pc`.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if row(middle)?.0 <= pc { low = middle + 1 } else { high = middle }
    }
    let (_, at) = row(low.checked_sub(1)?)?;
    let entry = Entry::read(module, at)?;
    (entry.start..entry.end).contains(&pc).then_some((entry, at))
}

impl Entry {
    fn read(module: &Module, at: usize) -> Option<Self> {
        if !(module.start..module.end).contains(&at) {
            return None;
        }
        let mut own = Bytes { at, end: module.end }.entry()?;
        let here = own.at;
        let back = own.u32()? as usize;
        let shared =
            here.checked_sub(back).filter(|&shared| back != 0 && shared >= module.start)?;

        let mut shared = Bytes { at: shared, end: module.end }.entry()?;
        if shared.u32()? != 0 {
            return None;
        }
        let version = shared.u8()?;
        let mut letters = shared;
        while shared.u8()? != 0 {}
        if !matches!(version, 1 | 3) {
            return None;
        }
        let code_align = shared.uleb()?;
        let data_align = shared.sleb()?;
        let link = if version == 1 { u64::from(shared.u8()?) } else { shared.uleb()? };
        let (mut encoding, mut signal, mut sized) = (0, false, false);
        let mut instructions = shared;
        loop {
            match letters.u8()? {
                0 => break,
                b'z' => {
                    sized = true;
                    let (at, length) = shared.block()?;
                    instructions = shared;
                    shared = Bytes { at, end: at + length };
                }
                b'L' => drop(shared.u8()?),
                b'P' => {
                    let encoding = shared.u8()?;
                    // Where it points to does not matter here, nor whether that is indirect.
                    shared.pointer(encoding & 0x7f & !0x70, 0)?;
                }
                b'R' => encoding = shared.u8()?,
                b'S' => signal = true,
                b'B' => {}
                _ => return None,
            }
        }
        let start = own.pointer(encoding, module.table)?;
        let length = own.pointer(encoding & 0x0f, 0)?;
        if sized {
            own.block()?;
        }
        let end = start.checked_add(length)?;
        Some(Self { start, end, signal, code_align, data_align, link, shared: instructions, own })
    }

    fn rows(&self, pc: usize) -> Option<Rows> {
        let first = Rows { cfa: None, fp: Saved::Same, link: Saved::Same };
        let initial = self.run(self.shared, first, first, usize::MAX)?;
        self.run(self.own, initial, initial, pc)
    }

    /// Runs instructions as far as they speak of `pc`.
    fn run(&self, mut code: Bytes, mut now: Rows, initial: Rows, pc: usize) -> Option<Rows> {
        let mut at = self.start;
        let mut kept = [now; 8];
        let mut depth = 0;
        while code.at < code.end {
            let byte = code.u8()?;
            let low = u64::from(byte & 0x3f);
            let step = match byte {
                0x40..=0x7f => Some(low),
                0x02 => Some(u64::from(code.u8()?)),
                0x03 => Some(u64::from(code.u16()?)),
                0x04 => Some(u64::from(code.u32()?)),
                _ => None,
            };
            if let Some(step) = step {
                at = at.checked_add(step.checked_mul(self.code_align)? as usize)?;
                if at > pc {
                    break;
                }
                continue;
            }
            match byte {
                0x80..=0xbf => {
                    let offset = self.scaled(code.uleb()? as i64)?;
                    self.save(&mut now, low, Saved::At(offset));
                }
                0xc0..=0xff => self.restore(&mut now, low, &initial),
                0x00 => {}
                0x05 => {
                    let (register, offset) = (code.uleb()?, code.uleb()? as i64);
                    self.save(&mut now, register, Saved::At(self.scaled(offset)?));
                }
                0x06 => self.restore(&mut now, code.uleb()?, &initial),
                0x07 => self.save(&mut now, code.uleb()?, Saved::Undefined),
                0x08 => self.save(&mut now, code.uleb()?, Saved::Same),
                0x09 => {
                    let (register, _) = (code.uleb()?, code.uleb()?);
                    if self.is_known(register) {
                        return None;
                    }
                }
                0x0a => {
                    *kept.get_mut(depth)? = now;
                    depth += 1;
                }
                0x0b => {
                    depth = depth.checked_sub(1)?;
                    now = kept[depth];
                }
                0x0c => now.cfa = from(code.uleb()?, code.uleb()? as i64),
                0x0d => {
                    let offset = match now.cfa {
                        Some(Cfa::Sp(offset) | Cfa::Fp(offset)) => offset,
                        _ => return None,
                    };
                    now.cfa = from(code.uleb()?, offset);
                }
                0x0e => now.offset(code.uleb()? as i64)?,
                0x0f => now.cfa = Some(Cfa::Expression(code.block()?)),
                0x10 => {
                    let register = code.uleb()?;
                    self.save(&mut now, register, Saved::Expression(code.block()?));
                }
                0x11 => {
                    let (register, offset) = (code.uleb()?, code.sleb()?);
                    self.save(&mut now, register, Saved::At(self.scaled(offset)?));
                }
                0x12 => {
                    let (register, offset) = (code.uleb()?, code.sleb()?);
                    now.cfa = from(register, self.scaled(offset)?);
                }
                0x13 => now.offset(self.scaled(code.sleb()?)?)?,
                // The value itself, not where it is stored: of no use to those that are known here.
                0x14 | 0x15 => {
                    let (register, _) = (code.uleb()?, code.uleb()?);
                    if self.is_known(register) {
                        return None;
                    }
                }
                0x16 => {
                    let (register, _) = (code.uleb()?, code.block()?);
                    if self.is_known(register) {
                        return None;
                    }
                }
                // AArch64: the return address is signed from here on, or no longer.
                0x2d => {}
                0x2e => drop(code.uleb()?),
                0x2f => {
                    let (register, offset) = (code.uleb()?, code.uleb()? as i64);
                    self.save(&mut now, register, Saved::At(self.scaled(offset)?.checked_neg()?));
                }
                _ => return None,
            }
        }
        Some(now)
    }

    fn scaled(&self, offset: i64) -> Option<i64> {
        offset.checked_mul(self.data_align)
    }

    fn is_known(&self, register: u64) -> bool {
        register == arch::FP || register == self.link
    }

    fn save(&self, rows: &mut Rows, register: u64, saved: Saved) {
        if register == arch::FP {
            rows.fp = saved;
        } else if register == self.link {
            rows.link = saved;
        }
    }

    fn restore(&self, rows: &mut Rows, register: u64, initial: &Rows) {
        let saved = if register == arch::FP { initial.fp } else { initial.link };
        self.save(rows, register, saved);
    }
}

/// What is known at one place of a function; a CFA that rests on another register is unknown.
#[derive(Clone, Copy)]
struct Rows {
    cfa: Option<Cfa>,
    fp: Saved,
    link: Saved,
}

impl Rows {
    fn offset(&mut self, offset: i64) -> Option<()> {
        self.cfa = match self.cfa? {
            Cfa::Sp(_) => Some(Cfa::Sp(offset)),
            Cfa::Fp(_) => Some(Cfa::Fp(offset)),
            Cfa::Expression(_) => return None,
        };
        Some(())
    }
}

fn from(register: u64, offset: i64) -> Option<Cfa> {
    match register {
        arch::SP => Some(Cfa::Sp(offset)),
        arch::FP => Some(Cfa::Fp(offset)),
        _ => None,
    }
}

/// Runs an expression, as procedure linkage tables, signal frames and realigned stacks have them.
fn evaluate(
    (at, length): Code,
    first: Option<usize>,
    frame: &Registers,
    read: &mut impl FnMut(usize) -> Option<usize>,
) -> Option<usize> {
    let mut code = Bytes { at, end: at + length };
    let mut values = Values { stack: [0; 16], depth: 0 };
    if let Some(first) = first {
        values.push(first)?;
    }
    while code.at < code.end {
        let op = code.u8()?;
        let value = match op {
            0x03 | 0x0e | 0x0f => code.u64()? as usize,
            0x06 => {
                let at = values.pop()?;
                read(at)?
            }
            0x08 => usize::from(code.u8()?),
            0x09 => code.u8()? as i8 as usize,
            0x0a => usize::from(code.u16()?),
            0x0b => code.u16()? as i16 as usize,
            0x0c => code.u32()? as usize,
            0x0d => code.u32()? as i32 as usize,
            0x10 => code.uleb()? as usize,
            0x11 => code.sleb()? as usize,
            0x12 => values.peek(0)?,
            0x13 => {
                values.pop()?;
                continue;
            }
            0x14 => values.peek(1)?,
            0x15 => {
                let n = code.u8()?;
                values.peek(n.into())?
            }
            0x1a..=0x2e => {
                let top = values.pop()?;
                match op {
                    0x1f => top.wrapping_neg(),
                    0x20 => !top,
                    0x23 => top.wrapping_add(code.uleb()? as usize),
                    _ => binary(op, values.pop()?, top)?,
                }
            }
            0x30..=0x4f => usize::from(op - 0x30),
            0x70..=0x8f => {
                let register = match u64::from(op - 0x70) {
                    arch::SP => frame.sp,
                    arch::FP => frame.fp,
                    arch::PC => frame.pc,
                    _ => return None,
                };
                register.wrapping_add_signed(code.sleb()? as isize)
            }
            0x96 => continue,
            _ => return None,
        };
        values.push(value)?;
    }
    values.pop()
}

fn binary(op: u8, left: usize, right: usize) -> Option<usize> {
    let (a, b) = (left as isize, right as isize);
    Some(match op {
        0x1a => left & right,
        0x1c => left.wrapping_sub(right),
        0x1e => left.wrapping_mul(right),
        0x21 => left | right,
        0x22 => left.wrapping_add(right),
        0x24 => left.checked_shl(right.try_into().ok()?).unwrap_or(0),
        0x25 => left.checked_shr(right.try_into().ok()?).unwrap_or(0),
        0x27 => left ^ right,
        0x29 => (a == b).into(),
        0x2a => (a >= b).into(),
        0x2b => (a > b).into(),
        0x2c => (a <= b).into(),
        0x2d => (a < b).into(),
        0x2e => (a != b).into(),
        _ => return None,
    })
}

struct Values {
    stack: [usize; 16],
    depth: usize,
}

impl Values {
    fn push(&mut self, value: usize) -> Option<()> {
        *self.stack.get_mut(self.depth)? = value;
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<usize> {
        self.depth = self.depth.checked_sub(1)?;
        Some(self.stack[self.depth])
    }

    fn peek(&self, below: usize) -> Option<usize> {
        Some(self.stack[self.depth.checked_sub(below + 1)?])
    }
}
