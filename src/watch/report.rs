//! What a death in checked mode has to say besides its cause: the block, and the stacks.
//!
//! Nothing here allocates or takes a lock: addresses are told from the modules they lie in by what the
//! kernel says (`/proc/self/maps`), as `file+0xoffset`. With `check=stacks`, and where binutils' `addr2line` is
//! installed, that program is started to name the inner ones: this process's own heap has no part in it.

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

/// Frames in the allocator's own library, where it is one, say nothing, and neither does the library of the sized
/// deletes, which calls it.
fn say_frames(frames: &[usize]) {
    let own = place(say_frames as *const () as usize);
    let mine = |frame: &&usize| {
        let its = place(**frame - 1);
        let path = &its.path[..its.len];
        path == &own.path[..own.len]
            || path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(SIZED))
    };
    let inner = if own.is_program() { 0 } else { frames.iter().take_while(mine).count() };
    for (i, &frame) in frames[inner..].iter().enumerate() {
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
        if i < NAMED && mode::has(mode::CHECK_STACKS) {
            place.say_name();
        }
    }
}

/// How the file of the sized deletes is called.
const SIZED: &[u8] = b"libspandrel_sized";

/// Frames of a stack that are named: each costs a process.
const NAMED: usize = 12;

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
    /// Function, file and line, from `addr2line`, on a line of its own.
    fn say_name(&self) {
        const TOOL: &core::ffi::CStr = c"/usr/bin/addr2line";
        // SAFETY: a path that ends with a zero.
        let there = unsafe { libc::access(TOOL.as_ptr(), libc::X_OK) } == 0;
        let Some(offset) = self.offset.filter(|_| there && self.path[0] == b'/') else { return };
        let (mut path, mut at) = ([0u8; 201], [0u8; 19]);
        path[..self.len].copy_from_slice(&self.path[..self.len]);
        let mut digits = Line::new();
        digits.push(b"0x");
        digits.push_hex(offset);
        at[..digits.bytes().len()].copy_from_slice(digits.bytes());
        let arguments = [
            TOOL.as_ptr().cast_mut(),
            c"-fCpse".as_ptr().cast_mut(),
            path.as_mut_ptr().cast(),
            at.as_mut_ptr().cast(),
            core::ptr::null_mut(),
        ];
        // Without this process's variables: it is not to be preloaded.
        let nothing = [core::ptr::null_mut()];
        let indent = b"      ";
        // SAFETY: strings that end with zeros, lists that end with null pointers. Nothing here allocates: what
        // would redirect the output of the child alone does, so that of the process goes where its last
        // words go.
        unsafe {
            libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO);
            libc::write(libc::STDERR_FILENO, indent.as_ptr().cast(), indent.len());
            let mut child = 0;
            let started = libc::posix_spawn(
                &mut child,
                TOOL.as_ptr(),
                core::ptr::null(),
                core::ptr::null(),
                arguments.as_ptr(),
                nothing.as_ptr(),
            );
            if started == 0 {
                libc::waitpid(child, core::ptr::null_mut(), 0);
            } else {
                libc::write(libc::STDERR_FILENO, c"\n".as_ptr().cast(), 1);
            }
        }
    }

    /// Whether it is the file that the process was started from.
    fn is_program(&self) -> bool {
        let mut path = [0u8; 200];
        // SAFETY: a path that ends with a zero, and room for as many bytes as said.
        let got = unsafe {
            libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast(), path.len())
        };
        // What cannot be told is taken for it: then nothing is left out.
        usize::try_from(got).is_ok_and(|got| path[..got.min(200)] == self.path[..self.len])
            || got < 0
    }

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
                // A program that is linked to lie where it does has its addresses for offsets.
                base = if path.starts_with(b"/") && mapping.is_fixed() {
                    0
                } else {
                    mapping.start - mapping.offset.min(mapping.start)
                };
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
    readable: bool,
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// Whether an ELF file of type EXEC begins here.
    fn is_fixed(&self) -> bool {
        const TYPE: usize = 16;
        if self.offset != 0 || !self.readable {
            return false;
        }
        let at = core::ptr::with_exposed_provenance::<u8>(self.start);
        // SAFETY: a page of a file that the kernel has just listed as readable; nothing but the program
        // itself unmaps its files.
        let head = unsafe { core::slice::from_raw_parts(at, TYPE + 2) };
        head.starts_with(b"\x7fELF") && head[TYPE..] == [2, 0]
    }

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
        let readable = field(b' ')?.starts_with(b"r");
        let offset = hex(field(b' ')?)?;
        field(b' ')?;
        // Without a path the inode ends the line.
        let path = if field(b' ').is_some() { rest } else { b"" };
        Some(Self { start, end, offset, readable, path })
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
