//! The process's memory as the kernel lists it, and reading it without touching what was never touched.

use super::apart::Apart;
use crate::base::units::{GRANULE, HUGEPAGE, HUGEPAGES_PER_WINDOW, Hugepage};
use crate::front::building::{BUILDING, pages};
use crate::os::{Os, metadata_bytes};
use crate::page::Window;
use crate::span::SpanTable;
use crate::watch;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// From the first address to the last, plus one.
pub type Range = (usize, usize);

/// Everything the program can write to and read, but for this allocator's heap and records: its variables,
/// stacks, thread-local storage, and what it mapped by itself; and for what lies in `apart`. Lowest first.
pub fn writable(apart: &[Range]) -> Vec<Range> {
    let mut text = Vec::with_capacity(1 << 16);
    if File::open("/proc/self/maps").and_then(|mut maps| maps.read_to_end(&mut text)).is_err() {
        return Vec::new();
    }
    let own = own(apart);
    let mut ranges = Vec::with_capacity(256);
    for line in text.split(|&byte| byte == b'\n') {
        let Some((range, path)) = parse(line) else { continue };
        // What a device does when it is read is its own affair; shared memory is memory.
        if path.starts_with(b"/dev/")
            && !path.starts_with(b"/dev/shm/")
            && !path.starts_with(b"/dev/zero")
            || path.starts_with(b"[v")
        {
            continue;
        }
        subtract(range, &own, &mut ranges);
    }
    ranges
}

/// Adds what each module could write until it was set up, and can only read since: the addresses of blocks from
/// that time may lie there. Asks the loader, which may take its lock.
pub fn sealed(out: &mut Apart<Range>) {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
        // SAFETY: the loader's description of a module, which stays while this runs, and our list.
        let (info, out) = unsafe { (&*info, &mut *out.cast::<Apart<Range>>()) };
        for n in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: the module has so many headers.
            let header = unsafe { &*info.dlpi_phdr.add(n) };
            if header.p_type == libc::PT_GNU_RELRO {
                let start = info.dlpi_addr.wrapping_add(header.p_vaddr) as usize;
                out.push((start, start + header.p_memsz as usize));
            }
        }
        0
    }
    // SAFETY: `note` gets what it expects, and the list outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note), std::ptr::from_mut(out).cast()) };
}

/// A line of `/proc/PID/maps`, if it is of memory that may be read and written: the range, and the path.
fn parse(line: &[u8]) -> Option<(Range, &[u8])> {
    let mut words = line.splitn(6, |&byte| byte == b' ');
    let range = std::str::from_utf8(words.next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    if !words.next()?.starts_with(b"rw") {
        return None;
    }
    let path = words.nth(3).unwrap_or_default().trim_ascii();
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    Some(((number(start)?, number(end)?), path))
}

/// What of `range` is in none of `holes`, which are sorted and do not overlap.
fn subtract((mut start, end): Range, holes: &[Range], out: &mut Vec<Range>) {
    let first = holes.partition_point(|hole| hole.1 <= start);
    for &(from, to) in &holes[first..] {
        if from >= end {
            break;
        }
        if from > start {
            out.push((start, from));
        }
        start = start.max(to);
    }
    if start < end {
        out.push((start, end));
    }
}

/// The heap itself and every record of it.
fn own(apart: &[Range]) -> Vec<Range> {
    let page = pages().os().page_size();
    let mut own = Vec::with_capacity(256);
    own.extend_from_slice(apart);
    for window in pages().windows() {
        for hugepage in (0..HUGEPAGES_PER_WINDOW as u32).map(Hugepage) {
            if window.owns(hugepage) {
                let start = window.address(hugepage.granule(0));
                own.push((start, start + HUGEPAGE));
            }
        }
        let at = std::ptr::from_ref(window).addr();
        own.push((at, at + metadata_bytes::<Window<SpanTable>>(page)));
    }
    BUILDING.each_record(|at, bytes| own.push((at, at + bytes)));
    BUILDING.below().each_record(|at, bytes| own.push((at, at + bytes)));
    watch::each_record(|at, bytes| own.push((at, at + bytes)));
    own.sort_unstable();
    // Of two that overlap one.
    let mut merged: Vec<Range> = Vec::with_capacity(own.len());
    for (start, end) in own {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Reads memory a page at a time, but for pages that nothing is behind.
#[derive(Debug)]
pub struct Reader {
    page: usize,
    /// Which pages there are; none if the system does not say.
    present: Option<File>,
    /// Room for a copy.
    copy: Vec<usize>,
    /// The kernel refuses to copy: pages that it says are there are read as they are.
    refused: bool,
}

/// Bytes looked at together.
const STEP: usize = 64 * GRANULE;

impl Reader {
    /// A reader of this process.
    pub fn new() -> Self {
        let page = pages().os().page_size();
        let present = File::open("/proc/self/pagemap").ok();
        let mut copy = vec![0; page.max(1 << 16) / size_of::<usize>()];
        let probe = (&raw const page).addr();
        let refused = copied(&mut copy, (probe, probe + size_of::<usize>()), &mut |_| ()) == 0;
        Self { page, present, copy, refused }
    }

    /// Calls `see` with every aligned word between two addresses. What cannot be read is passed over.
    pub fn words(&mut self, (start, end): Range, see: &mut impl FnMut(usize)) {
        let (mut at, end) = (start.next_multiple_of(size_of::<usize>()), end & !7);
        while at < end {
            let stop = end.min((at + 1).next_multiple_of(STEP));
            self.part((at, stop), see);
            at = stop;
        }
    }

    fn part(&mut self, (start, end): Range, see: &mut impl FnMut(usize)) {
        let first = start / self.page;
        let count = end.div_ceil(self.page) - first;
        let mut entries = [0u8; STEP / 4096 * 8 + 8];
        let entries = &mut entries[..count * 8];
        let known = self
            .present
            .as_ref()
            .is_some_and(|file| file.read_exact_at(entries, first as u64 * 8).is_ok());
        // Present, or swapped out.
        let there = |n: usize| !known || entries[n * 8 + 7] & 0xc0 != 0;
        let mut n = 0;
        while n < count {
            let run = (n..count).take_while(|&n| there(n)).count();
            if run > 0 {
                let from = start.max((first + n) * self.page);
                let to = end.min((first + n + run) * self.page);
                if !self.refused {
                    copied(&mut self.copy, (from, to), see);
                } else if known {
                    direct((from, to), see);
                }
            }
            n += run.max(1);
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// Through the kernel, which refuses what is not there instead of stopping the process. Answers how many
/// bytes there were.
fn copied(copy: &mut [usize], (mut at, end): Range, see: &mut impl FnMut(usize)) -> usize {
    let mut read = 0;
    while at < end {
        let bytes = (end - at).min(size_of_val(copy));
        let local = libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: bytes };
        let remote =
            libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(at), iov_len: bytes };
        // SAFETY: there is room for the copy; what is to be copied the kernel checks.
        let got = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        match usize::try_from(got) {
            Ok(got) if got >= size_of::<usize>() => {
                copy[..got / size_of::<usize>()].iter().for_each(|&word| see(word));
                at += got & !7;
                read += got & !7;
            }
            // Not here: perhaps on the next page.
            _ => at = (at + 1).next_multiple_of(4096),
        }
    }
    read
}

/// Where the kernel copies nothing for anybody, as in some containers.
fn direct((start, end): Range, see: &mut impl FnMut(usize)) {
    for at in (start..end).step_by(size_of::<usize>()) {
        // SAFETY: the page is there and may be read, as the kernel said a moment ago; who could take it away
        // stands still.
        see(unsafe { std::ptr::with_exposed_provenance::<usize>(at).read_volatile() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list() {
        let line = b"7f00-8000 rw-p 00000000 00:00 0                          [stack]";
        assert_eq!(parse(line), Some(((0x7f00, 0x8000), &b"[stack]"[..])));
        let line = b"7f00-8000 rw-s 00001000 08:01 1234   /a b";
        assert_eq!(parse(line), Some(((0x7f00, 0x8000), &b"/a b"[..])));
        assert_eq!(parse(b"7f00-8000 rw-p 00000000 00:00 0 "), Some(((0x7f00, 0x8000), &b""[..])));
        for none in ["", "7f00-8000 r--p 00000000 00:00 0", "7f00-8000", "x-y rw-p 0 0 0"] {
            assert_eq!(parse(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn ranges_less_holes() {
        let less = |range, holes: &[Range]| {
            let mut out = Vec::new();
            subtract(range, holes, &mut out);
            out
        };
        assert_eq!(less((10, 20), &[]), [(10, 20)]);
        assert_eq!(less((10, 20), &[(0, 10), (20, 30)]), [(10, 20)]);
        assert_eq!(less((10, 20), &[(5, 12), (14, 16), (19, 40)]), [(12, 14), (16, 19)]);
        assert_eq!(less((10, 20), &[(0, 40)]), []);
    }

    #[test]
    fn variables_are_listed_and_the_heap_is_not() {
        static mut VARIABLE: usize = 3;
        let (local, heap) = (0usize, Box::new(0usize));
        let ranges = writable(&[]);
        let holds = |at: usize| ranges.iter().any(|&(start, end)| (start..end).contains(&at));
        assert!(holds((&raw const VARIABLE).addr()) && holds((&raw const local).addr()));
        assert!(!holds((&raw const *heap).addr()));
    }

    #[test]
    fn words_are_read_as_far_as_there_are_any() {
        let mut reader = Reader::new();
        let mut block = vec![0usize; 1 << 20];
        (block[3], block[(1 << 20) - 1]) = (7, 8);
        let start = block.as_ptr().addr();
        let (mut sum, mut count) = (0, 0);
        reader.words((start, start + (8 << 20)), &mut |word| {
            sum += word;
            count += 1;
        });
        // Two pages have been touched, and hardly more are there.
        assert!(sum == 15 && count >= 1024, "{sum} {count}");
        reader.words((8, 1 << 16), &mut |word| sum += word);
        assert_eq!(sum, 15);
        reader.words((start + 1, start + 25), &mut |_| sum += 1);
        assert_eq!(sum, 17);
    }
}
