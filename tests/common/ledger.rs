//! Who holds which bytes: one bit for every eight bytes of address space, set while a test holds
//! them. A block that is handed out while another still holds a part of it is found at that moment,
//! by whoever comes second, without a lock that would keep the threads from meeting.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::AcqRel, Ordering::Acquire};

/// Every address the allocator gives out is a multiple of this, so no two blocks share a unit.
const UNIT: usize = 8;
const WINDOW_SHIFT: u32 = 30;
const WORDS: usize = (1 << WINDOW_SHIFT) / UNIT / 64;
const WINDOWS: usize = 1 << (48 - WINDOW_SHIFT);

type Row = [AtomicU64; WORDS];

/// One row of bits for each gibibyte of address space, mapped when it is first needed.
static ROWS: [AtomicPtr<Row>; WINDOWS] = [const { AtomicPtr::new(ptr::null_mut()) }; WINDOWS];

/// Bytes that [`prepare`] maps.
pub const PREPARED: usize = 8 * size_of::<Row>();

/// Maps the rows for addresses near this process's next mappings, so that a test may use the ledger
/// when no more can be mapped. A few pages of the rows are touched later; that needs no call.
pub fn prepare() {
    let here = row_number(map_row().addr());
    for number in here - 5..here + 2 {
        row(number);
    }
}

/// Notes that `bytes` at `addr` are held. `Err` is the first address of them that is held already.
pub fn claim(addr: usize, bytes: usize) -> Result<(), usize> {
    each(addr, bytes, |word, mask| {
        let old = word.fetch_or(mask, AcqRel);
        (old & mask == 0).then_some(()).ok_or((old & mask).trailing_zeros())
    })
}

/// Notes that they are not any more. `Err` is the first address of them that was not held.
pub fn release(addr: usize, bytes: usize) -> Result<(), usize> {
    each(addr, bytes, |word, mask| {
        let old = word.fetch_and(!mask, AcqRel);
        (old & mask == mask).then_some(()).ok_or((!old & mask).trailing_zeros())
    })
}

fn each(
    addr: usize,
    bytes: usize,
    f: impl Fn(&AtomicU64, u64) -> Result<(), u32>,
) -> Result<(), usize> {
    let mut unit = addr / UNIT;
    let end = (addr + bytes.max(1)).div_ceil(UNIT);
    while unit < end {
        let here = (64 - unit % 64).min(end - unit);
        let mask = (u64::MAX >> (64 - here)) << (unit % 64);
        let row = row(row_number(unit * UNIT));
        f(&row[unit / 64 % WORDS], mask).map_err(|bit| (unit / 64 * 64 + bit as usize) * UNIT)?;
        unit += here;
    }
    Ok(())
}

fn row_number(addr: usize) -> usize {
    addr >> WINDOW_SHIFT
}

fn row(number: usize) -> &'static Row {
    let mut row = ROWS[number].load(Acquire);
    if row.is_null() {
        let fresh = map_row();
        match ROWS[number].compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire) {
            Ok(_) => row = fresh,
            Err(winner) => {
                row = winner;
                // SAFETY: mapped here, and nobody was told of it.
                unsafe { libc::munmap(fresh.cast(), size_of::<Row>()) };
            }
        }
    }
    // SAFETY: a mapping of zeroes is a row, and it is never unmapped once it is in the table.
    unsafe { &*row }
}

fn map_row() -> *mut Row {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing.
    let at = unsafe { libc::mmap(ptr::null_mut(), size_of::<Row>(), access, kind, -1, 0) };
    assert!(at != libc::MAP_FAILED, "no address space for the ledger");
    at.cast()
}
