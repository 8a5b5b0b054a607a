//! The machine's memory, made ready.
//!
//! A virtual machine gives free memory back to its host, some seconds after it became free and only in
//! large pieces. The next program to touch it waits for the host, page by page: seen here, 3 ms a
//! hugepage instead of 0.2. Who comes first would pay for all who come after, and who asks for hugepages
//! more than who does not. So before each run as much memory as the row needs is touched and freed.

use std::{collections::HashMap, ptr};

use crate::sample::Sample;

/// What is made ready for a row that nobody has run yet, in KiB.
const FIRST: u64 = 256 << 10;
/// The most, in KiB.
const MOST: u64 = 6 << 20;
/// Small pages.
const STEP: usize = 4 << 10;

/// How much each row needs, as far as it is known.
#[derive(Default)]
pub struct Warm(HashMap<String, u64>);

impl Warm {
    /// Makes ready what the row needs.
    pub fn up(&self, row: &str) {
        let needed = self.0.get(row).copied().unwrap_or(FIRST);
        touch((needed + needed / 4).min(MOST) as usize * 1024);
    }

    /// Notes what the row took.
    pub fn note(&mut self, sample: &Sample) {
        let needed = self.0.entry(sample.row.clone()).or_default();
        *needed = (*needed).max(sample.peak_kib);
    }
}

/// Maps, touches and unmaps so many bytes. Failing that, nothing: then it is the first who waits.
fn touch(bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the mapping is `bytes` long, and known only here.
    unsafe {
        libc::madvise(at, bytes, libc::MADV_HUGEPAGE);
        for offset in (0..bytes).step_by(STEP) {
            at.cast::<u8>().add(offset).write_volatile(1);
        }
        libc::munmap(at, bytes);
    }
}
