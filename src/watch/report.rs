//! What a death in checked mode has to say besides its cause: the block, and the stacks.
//!
//! Nothing here allocates or takes a lock: addresses are told from the modules they lie in by what the
//! kernel says (`/proc/self/maps`), as `file+0xoffset`, which `addr2line -e file 0xoffset` names.

use super::ledger::{Entry, Life};
use super::{mode, stacks};
use crate::base::line::Line;
use crate::front::building::pages;
use crate::os::Os;

/// ` of 100 bytes`, and where it is, and what became of it.
pub fn block(line: &mut Line, start: usize, entry: &Entry) {
    line.push(b"a block of ");
    line.push_number(entry.size);
    line.push(if entry.size == 1 { b" byte at 0x" } else { b" bytes at 0x" });
    line.push_hex(start);
    line.push(b", ");
    let mine = entry.thread == pages().os().thread();
    line.push(match (entry.life, mine) {
        (Life::Unknown, _) => b"allocated before anybody watched".as_slice(),
        (Life::Live, _) => b"live",
        (_, true) => b"freed by this thread",
        (_, false) => b"freed by another thread",
    });
}

/// The stacks of a block's allocation and of its free, as far as they are known, and that of this call.
pub fn stacks(entry: &Entry, here: &[u8]) {
    let mut frames = [0; stacks::DEPTH];
    if entry.birth == 0 && entry.death == 0 && !mode::has(mode::CHECK_STACKS) {
        return;
    }
    for (id, what) in [(entry.birth, b"  allocated".as_slice()), (entry.death, b"  freed")] {
        if id != 0 {
            say(what);
            let count = stacks::frames(id, &mut frames).min(frames.len());
            say_frames(&frames[..count]);
        }
    }
    say(here);
    let count = stacks::fill(&mut frames);
    say_frames(&frames[..count]);
}

fn say(what: &[u8]) {
    let mut line = Line::new();
    line.push(what);
    line.say();
}

fn say_frames(frames: &[usize]) {
    for &frame in frames {
        let mut line = Line::new();
        line.push(b"    0x");
        // A frame is where its function goes on: the call is just before.
        line.push_hex(frame - 1);
        let place = place(frame - 1);
        if let Some(offset) = place.offset {
            line.push(b" ");
            line.push(&place.path[..place.len]);
            line.push(b"+0x");
            line.push_hex(offset);
        }
        line.say();
    }
}

/// `3 bytes into `, and what else there is to be counted.
pub fn distance(line: &mut Line, bytes: usize, what: &[u8]) {
    line.push_number(bytes);
    line.push(if bytes == 1 { b" byte " } else { b" bytes " });
    line.push(what);
}

/// Where an address lies, as the kernel has it.
pub struct Place {
    /// The file, or what the kernel calls the mapping; cut off where it is long.
    path: [u8; 200],
    len: usize,
    /// How far behind the first address of that file; `None`: the address is not mapped.
    offset: Option<usize>,
}

impl Place {
    /// ` in [stack]`, for what is no block.
    pub fn tell(&self, line: &mut Line) {
        match (self.offset, self.len) {
            (None, _) => line.push(b"not mapped"),
            (Some(_), 0) => line.push(b"in a mapping of the program's"),
            _ => {
                line.push(b"in ");
                line.push(&self.path[..self.len]);
            }
        }
    }
}

/// Reads `/proc/self/maps` until it comes to the address.
pub fn place(addr: usize) -> Place {
    let mut found = Place { path: [0; 200], len: 0, offset: None };
    let errno = errno();
    // SAFETY: a path that ends with a zero.
    let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if maps < 0 {
        return found;
    }
    let (mut buffer, mut line) = ([0u8; 1024], [0u8; 320]);
    let (mut length, mut base, mut behind) = (0, 0, 0);
    'all: loop {
        // SAFETY: the buffer has that many bytes.
        let got = unsafe { libc::read(maps, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(got @ 1..) = usize::try_from(got) else { break };
        for &byte in &buffer[..got] {
            if byte != b'\n' {
                if let Some(slot) = line.get_mut(length) {
                    *slot = byte;
                    length += 1;
                }
                continue;
            }
            let Some(mapping) = Mapping::read(&line[..length]) else { break 'all };
            length = 0;
            let path = &mapping.path[..mapping.path.len().min(found.path.len())];
            // What is behind a file's pages without a gap is its data that begins as zero.
            let continues = path.is_empty() && mapping.start == behind;
            behind = mapping.end;
            if !continues && path != &found.path[..found.len] {
                found.path[..path.len()].copy_from_slice(path);
                found.len = path.len();
                base = mapping.start.wrapping_sub(mapping.offset);
            }
            if (mapping.start..mapping.end).contains(&addr) {
                found.offset = Some(addr.wrapping_sub(base));
                break 'all;
            }
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(maps) };
    set_errno(errno);
    found
}

struct Mapping<'a> {
    start: usize,
    end: usize,
    offset: usize,
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// `start-end perms offset device inode path`.
    fn read(line: &'a [u8]) -> Option<Self> {
        let mut rest = line;
        let mut field = |end: u8| {
            let at = rest.iter().position(|&byte| byte == end)?;
            let field = &rest[..at];
            rest = rest[at + 1..].trim_ascii_start();
            Some(field)
        };
        let (start, end) = (hex(field(b'-')?)?, hex(field(b' ')?)?);
        field(b' ')?;
        let offset = hex(field(b' ')?)?;
        field(b' ')?;
        // Without a path the inode ends the line.
        let path = if field(b' ').is_some() { rest } else { b"" };
        Some(Self { start, end, offset, path })
    }
}

fn hex(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0usize, |value, digit| {
        Some(value << 4 | char::from(*digit).to_digit(16)? as usize)
    })
}

fn errno() -> i32 {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() }
}

fn set_errno(to: i32) {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = to };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let line = b"7f00aa000000-7f00aa021000 r-xp 00001000 08:01 131  /usr/lib/x y.so";
        let mapping = Mapping::read(line).unwrap();
        assert_eq!((mapping.start, mapping.end), (0x7f00_aa00_0000, 0x7f00_aa02_1000));
        assert_eq!((mapping.offset, mapping.path), (0x1000, b"/usr/lib/x y.so".as_slice()));
        let bare = Mapping::read(b"1000-2000 rw-p 00000000 00:00 0").unwrap();
        assert_eq!((bare.start, bare.path), (0x1000, b"".as_slice()));
    }

    #[test]
    fn places() {
        let function = place(place as *const () as usize);
        assert!(function.path[..function.len].starts_with(b"/") && function.offset.is_some());
        let local = 0;
        let stack = place(&raw const local as usize);
        assert!(stack.offset.is_some());
        assert!(place(0).offset.is_none() && place(usize::MAX).offset.is_none());
    }
}
