//! Attribution: whom a block is put down to, a number of 16 bits that the running thread carries.
//!
//! Names are interned like stacks; a tag's number is where its name lies in a table, so both ways are
//! short and nothing is ever removed. A block's tag is kept in the ledger, not in the block. The sums of a
//! tag are exact while tags are on: what was counted when a block was born is taken off when that block
//! dies, whoever frees it and whatever the thread's tag is then. Tag 0 is nobody's and has no sums.
//!
//! A sum is of one [`Session`] of the ledger, whose number is in the same word: whoever counts in another session
//! begins it anew, unless that session is the one that is over. So nobody has to be waited for when one begins.

use super::ledger::Entry;
use super::mode::Session;
use super::stacks::depot::Depot;
use crate::cache::slot;
use crate::front::building::Visit;
use crate::os::linux::Linux;
use crate::os::{Os, Zeroed};
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// The longest name, in bytes; what is longer is cut off.
pub const LONGEST: usize = 120;

const WORD: usize = size_of::<usize>();
const TAGS: usize = 1 << 16;
/// Places a tag may have, from the one its name's hash says.
const REACH: usize = 64;

/// One tag's blocks.
#[derive(Debug)]
struct Sum {
    /// The name's number in the depot; 0 while nobody has this place.
    name: AtomicU32,
    /// Live blocks, their bytes as they were asked for, and the most there ever were of these.
    blocks: Count,
    bytes: Count,
    peak: Count,
}

/// Bits 0..48 a count, 48..64 the lower ones of its session's number.
#[derive(Debug)]
struct Count(AtomicU64);

impl Count {
    const BITS: u32 = 48;

    fn mark(session: Session) -> u64 {
        u64::from(session.number()) << Self::BITS
    }

    /// What it is in a session.
    fn get(&self, session: Session) -> usize {
        let word = self.0.load(Relaxed);
        if (word ^ Self::mark(session)) >> Self::BITS == 0 { Self::of(word) } else { 0 }
    }

    const fn of(word: u64) -> usize {
        (word & ((1 << Self::BITS) - 1)) as usize
    }

    /// Changes it, from 0 if it is of another session, and answers what it is now. If `session` is over and the
    /// count not of it, the answer is 0 and nothing changes.
    fn change(&self, session: Session, to: impl Fn(usize) -> usize) -> usize {
        let mark = Self::mark(session);
        // Acquire: who counted in a later session has seen it begin, and now this thread does. Its mark is not
        // one that comes back by itself, so the exchange fails if anybody has counted since.
        let mut word = self.0.load(Acquire);
        loop {
            let count = if (word ^ mark) >> Self::BITS == 0 {
                Self::of(word)
            } else if Session::now() == session {
                0
            } else {
                return 0;
            };
            let count = to(count) as u64 & ((1 << Self::BITS) - 1);
            match self.0.compare_exchange_weak(word, mark | count, AcqRel, Acquire) {
                Ok(_) => return count as usize,
                Err(now) => word = now,
            }
        }
    }
}

#[derive(Debug)]
struct Table([Sum; TAGS]);

// SAFETY: atomics are zero when their bytes are.
unsafe impl Zeroed for Table {}

/// Its own, so that what the floors account for stays what they mapped.
static SYSTEM: Linux = Linux::new();
static NAMES: Depot<{ 1 << 17 }, { 1 << 20 }> = Depot::new();
/// Null until the first name. Any thread.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

fn table() -> Option<&'static Table> {
    // SAFETY: null, or a table that is never unmapped.
    unsafe { TABLE.load(Acquire).as_ref() }
}

fn table_made() -> Option<&'static Table> {
    if table().is_none() {
        let fresh = SYSTEM.metadata::<Table>()?;
        if TABLE.compare_exchange(ptr::null_mut(), fresh.as_ptr(), AcqRel, Acquire).is_err() {
            let bytes = crate::os::metadata_bytes::<Table>(SYSTEM.page_size());
            // SAFETY: the race is lost, so no other thread has seen this one.
            unsafe { SYSTEM.unmap(fresh.cast(), bytes) };
        }
    }
    table()
}

/// The number of the tag with this name, a new one if there is none; 0 if there is no room for one more.
pub fn intern(name: &[u8]) -> u16 {
    let name = &name[..name.len().min(LONGEST)];
    // The length, so that names which end in zeros differ, then the bytes.
    let mut words = [0; LONGEST / WORD + 2];
    words[0] = name.len();
    for (word, bytes) in words[1..].iter_mut().zip(name.chunks(WORD)) {
        let mut whole = [0; WORD];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = usize::from_le_bytes(whole);
    }
    let (Some(table), id) =
        (table_made(), NAMES.insert(&SYSTEM, &words[..name.len().div_ceil(WORD) + 1]))
    else {
        return 0;
    };
    if id == 0 {
        return 0;
    }
    for step in 0..REACH {
        // Place 0 is nobody's.
        let place =
            (id.wrapping_mul(0x9e37_79b1) as usize >> 8).wrapping_add(step) % (TAGS - 1) + 1;
        let owner = &table.0[place].name;
        let found = match owner.load(Acquire) {
            0 => owner.compare_exchange(0, id, AcqRel, Acquire).err().unwrap_or(id),
            found => found,
        };
        if found == id {
            return place as u16;
        }
    }
    0
}

/// Writes the name of a tag as far as there is room, and answers its length; `None` for nobody's.
pub fn name(tag: u16, out: &mut [u8]) -> Option<usize> {
    let id = table()?.0[usize::from(tag)].name.load(Acquire);
    let mut words = [0; LONGEST / WORD + 2];
    if id == 0 || NAMES.frames(id, &mut words) == 0 {
        return None;
    }
    let bytes = words[1..].iter().flat_map(|word| word.to_le_bytes());
    for (out, byte) in out.iter_mut().zip(bytes).take(words[0]) {
        *out = byte;
    }
    Some(words[0])
}

/// The running thread's tag.
pub fn current() -> u16 {
    slot::existing().map_or(0, |cache| cache.beside().tag.load(Relaxed))
}

/// Gives the running thread another tag, and answers the one it had. A thread that is ending, or for
/// which there is no memory, has none.
pub fn set(tag: u16) -> u16 {
    let known = slot::existing().or_else(|| Visit::begin(false).cache());
    known.map_or(0, |cache| {
        let was = cache.beside().tag.load(Relaxed);
        cache.beside().tag.store(tag, Relaxed);
        was
    })
}

/// What the ledger knew is forgotten, so nothing is counted. By who began this session; others may count in it
/// already.
pub(super) fn begin(session: Session) {
    let Some(table) = table_made() else { return };
    for sum in table.0.iter().filter(|sum| sum.name.load(Relaxed) != 0) {
        for count in [&sum.blocks, &sum.bytes, &sum.peak] {
            count.change(session, |count| count);
        }
    }
}

/// A block of `size` bytes was put down to `tag`.
pub(super) fn born(session: Session, tag: u16, size: usize) {
    let Some(table) = table() else { return };
    let sum = &table.0[usize::from(tag)];
    sum.blocks.change(session, |blocks| blocks + 1);
    let bytes = sum.bytes.change(session, |bytes| bytes.wrapping_add(size));
    if bytes > sum.peak.get(session) {
        sum.peak.change(session, |peak| peak.max(bytes));
    }
}

/// A block of which this was known is gone.
pub(super) fn died(session: Session, entry: &Entry) {
    if let Some(table) = table()
        && entry.tag != 0
    {
        let sum = &table.0[usize::from(entry.tag)];
        sum.blocks.change(session, |blocks| blocks.wrapping_sub(1));
        sum.bytes.change(session, |bytes| bytes.wrapping_sub(entry.size));
    }
}

/// What is put down to one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The tag's number.
    pub tag: u16,
    /// Live blocks.
    pub blocks: usize,
    /// Their bytes, as they were asked for.
    pub bytes: usize,
    /// The most that `bytes` ever was.
    pub peak: usize,
}

/// Every tag there is.
pub fn each(mut see: impl FnMut(Held)) {
    let Some(table) = table() else { return };
    let session = Session::now();
    let of = |count: &Count| match session {
        // Off, it is what it was.
        Session::NONE => Count::of(count.0.load(Relaxed)),
        _ => count.get(session),
    };
    for (tag, sum) in table.0.iter().enumerate() {
        if sum.name.load(Acquire) != 0 {
            see(Held {
                tag: tag as u16,
                blocks: of(&sum.blocks),
                bytes: of(&sum.bytes),
                peak: of(&sum.peak),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let mut numbers: Vec<u16> =
            (0..1000).map(|n| intern(format!("tenant-{n}").as_bytes())).collect();
        for (n, &tag) in numbers.iter().enumerate() {
            let mut out = [0; LONGEST];
            let length = name(tag, &mut out).unwrap();
            assert_eq!(out[..length], *format!("tenant-{n}").as_bytes());
            assert_eq!(intern(format!("tenant-{n}").as_bytes()), tag);
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() == 1000 && numbers[0] != 0);
        // Zeros at the end are part of a name, and so is nothing at all.
        let odd = [&b""[..], b"\0", b"a", b"a\0", &[7; 200]].map(intern);
        assert!(odd.iter().all(|&tag| tag != 0));
        assert!((0..5).all(|i| (0..i).all(|j| odd[i] != odd[j])));
        assert_eq!(name(odd[4], &mut []), Some(LONGEST));
        assert_eq!(name(0, &mut [0; 8]), None);
    }

    #[test]
    fn a_thread_carries_a_tag() {
        let (a, b) = (intern(b"carried a"), intern(b"carried b"));
        assert_eq!((set(a), current(), set(b), current(), set(0)), (0, a, a, b, b));
        set(a);
        // Each thread its own, and none begins with another's.
        assert_eq!(
            std::thread::spawn(|| (current(), set(7), current())).join().unwrap(),
            (0, 0, 7)
        );
        assert_eq!(std::thread::spawn(current).join().unwrap(), 0);
        assert_eq!(set(0), a);
    }
}
