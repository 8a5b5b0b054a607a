//! The recorder: every call of every thread, into a file ([`format`]).
//!
//! Each thread writes into a chunk of the file that it has mapped, shared: nothing waits in memory to be
//! flushed, so whatever ends the process, what was recorded is in the file. No lock, no allocation, no
//! system call but one for the time (and that is none on most systems) until a chunk is full. A record
//! that cannot be written, because the file cannot grow, is counted there.
//!
//! A thread's state is a `Lane`, one a thread cache, in a table beside the caches; only the cache's
//! owner touches it. A thread without a cache, at the end of its life or inside a signal handler that
//! interrupted a record, writes chunks of one record. A child of fork begins a file of its own.

pub mod chunk;
pub mod format;

#[cfg(not(spandrel_model))]
pub use running::{begin, born, dying, end, is_on, moving, resized};

#[cfg(not(spandrel_model))]
mod running {
    use super::chunk::{self, Body};
    use super::format::{self, Before, CHUNK_HEAD, Kind, Out, Record};
    use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
    use crate::base::sync::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64};
    use crate::cache::{ThreadCache, slot};
    use crate::os::file::{File, PATH_MAX, Path, pid};
    use crate::os::{Os, linux::Linux};
    use crate::watch::stacks;
    use core::cell::UnsafeCell;
    use core::ffi::c_int;
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicBool, AtomicUsize};

    /// Its own, so that what the floors account for stays what they mapped.
    static SYSTEM: Linux = Linux::new();

    /// The largest chunk, in bytes; a thread's first is one unit, each next one four times the last.
    const CHUNK_MOST: usize = 1 << 20;
    /// Threads' caches that have lanes.
    const LANES: usize = 1 << 15;
    /// Stacks that are kept apart: the depot's numbers.
    const STACKS: usize = 1 << 24;

    /// The first bytes of a file, mapped.
    #[repr(C)]
    struct Head {
        fixed: [u8; format::CLAIMED_AT],
        claimed: AtomicU64,
        lost: AtomicU64,
    }

    const _: () = assert!(core::mem::offset_of!(Head, claimed) == format::CLAIMED_AT);
    const _: () = assert!(core::mem::offset_of!(Head, lost) == format::LOST_AT);

    /// One process's file.
    struct Session {
        process: u32,
        file: c_int,
        head: *const Head,
        unit: usize,
        /// Where the clock stood.
        began: u64,
        /// The file cannot grow any more.
        full: AtomicBool,
        /// Which stacks have been written.
        stacks: [AtomicU64; STACKS / 64],
    }

    /// The file that is written to; null before the first.
    static SESSION: AtomicPtr<Session> = AtomicPtr::new(ptr::null_mut());
    /// Whether calls are recorded.
    static ON: AtomicBool = AtomicBool::new(false);
    /// The process that is making itself a file.
    static BEGINNING: AtomicU32 = AtomicU32::new(0);
    /// Calls that came in a process before it had one.
    static EARLY: AtomicU32 = AtomicU32::new(0);
    /// The file as it was named.
    static NAMED: [AtomicU8; PATH_MAX] = [const { AtomicU8::new(0) }; PATH_MAX];
    /// The lanes' table; null until the first.
    static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

    /// What a thread writes into.
    struct Lane {
        /// The cache it belongs to; filled once. Any thread.
        key: AtomicUsize,
        /// The owner of that cache.
        state: UnsafeCell<State>,
    }

    struct State {
        /// Whether the thread is inside of a record: a signal handler that allocates finds it so.
        busy: bool,
        session: *const Session,
        thread: u32,
        /// Chunks of this thread so far.
        chunks: u32,
        chunk: *mut u8,
        capacity: usize,
        /// Bytes of records in the chunk.
        written: usize,
        before: Before,
        /// The last time: the next is later.
        last: u64,
    }

    type Table = [Lane; LANES];

    /// Whether calls are recorded.
    #[inline]
    pub fn is_on() -> bool {
        ON.load(Relaxed)
    }

    /// Begins to record into the file at `path`; whether it could.
    pub fn begin(path: &[u8]) -> bool {
        for (to, &byte) in NAMED[..PATH_MAX - 1].iter().zip(path) {
            to.store(byte, Relaxed);
        }
        ON.store(session().is_some(), Relaxed);
        is_on()
    }

    /// The process ends, or records no more: what has been mapped since the beginning is noted.
    pub fn end() {
        if is_on()
            && let Some(session) = session()
        {
            write_maps(session);
        }
    }

    /// This process's file, begun now if it has none yet; `None` while another thread begins it, or if it
    /// cannot be had.
    fn session() -> Option<&'static Session> {
        // SAFETY: null, or a session that is never unmapped.
        let there = unsafe { SESSION.load(Acquire).as_ref() };
        let process = SYSTEM.process();
        if let Some(session) = there.filter(|session| session.process == process) {
            return (!session.head.is_null()).then_some(session);
        }
        if BEGINNING.swap(process, AcqRel) == process {
            return None;
        }
        let session = new_session(process)?;
        SESSION.store(ptr::from_ref(session).cast_mut(), Release);
        if session.head.is_null() {
            return None;
        }
        write_maps(session);
        Some(session)
    }

    /// The pid that a file's head names.
    fn owner(start: &[u8]) -> Option<u32> {
        let pid = start.get(16..20)?.try_into().ok().map(u32::from_le_bytes);
        pid.filter(|_| start.starts_with(&format::MAGIC))
    }

    fn map<T>(bytes: usize) -> Option<NonNull<T>> {
        Some(SYSTEM.map(bytes.next_multiple_of(SYSTEM.page_size()), SYSTEM.page_size())?.cast())
    }

    fn clock(which: libc::clockid_t) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a struct to fill.
        unsafe { libc::clock_gettime(which, &mut time) };
        (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
    }

    /// Makes this process a file. Without one, a session without a head: it is not tried again. Its frame is large, and
    /// no other call's.
    #[cold]
    #[inline(never)]
    fn new_session(process: u32) -> Option<&'static Session> {
        let room = map::<Session>(size_of::<Session>())?;
        let unit = SYSTEM.page_size().max(format::UNIT);
        let began = clock(libc::CLOCK_MONOTONIC);
        let file = new_file(unit, began);
        let head = file.as_ref().map_or(ptr::null(), |(_, head)| *head);
        let file = file.map_or(-1, |(file, _)| file.keep());
        // SAFETY: mapped above and nobody else's; the fields behind these are zeros, which are theirs.
        unsafe {
            let at = room.as_ptr();
            (&raw mut (*at).process).write(process);
            (&raw mut (*at).file).write(file);
            (&raw mut (*at).head).write(head);
            (&raw mut (*at).unit).write(unit);
            (&raw mut (*at).began).write(began);
            Some(room.as_ref())
        }
    }

    fn new_file(unit: usize, began: u64) -> Option<(File, *const Head)> {
        let name: [u8; PATH_MAX] = core::array::from_fn(|i| NAMED[i].load(Relaxed));
        let length = name.iter().position(|&byte| byte == 0)?;
        let path = Path::of(name.get(..length)?)?;
        let (file, _) = File::claim_anew(&path, owner).ok()?;
        if !file.reserve(0, unit) {
            return None;
        }
        let mut head = [0u8; format::COMMAND_AT + format::COMMAND_MOST];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = head.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(0, &format::MAGIC);
        put(8, &format::VERSION.to_le_bytes());
        put(12, &(unit as u32).to_le_bytes());
        put(16, &pid().to_le_bytes());
        put(24, &clock(libc::CLOCK_REALTIME).to_le_bytes());
        put(32, &began.to_le_bytes());
        let mut command = [0u8; format::COMMAND_MOST - 1];
        let length = Path::of(b"/proc/self/cmdline")
            .and_then(|path| File::read_only(&path).ok())
            .map_or(0, |file| file.read(0, &mut command));
        // Words end with zeros there; here the whole does.
        let words = command.get_mut(..length.saturating_sub(1)).unwrap_or_default();
        words.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 1);
        put(format::COMMAND_AT, words);
        let (fixed, command) = head.split_at(40);
        let command = command.get(format::COMMAND_AT - 40..)?;
        let check = format::checksum(format::checksum(format::UNCHECKED, fixed), command);
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = head.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(40, &check.to_le_bytes());
        put(format::CLAIMED_AT, &format::seal(1).to_le_bytes());
        put(format::LOST_AT, &format::seal(EARLY.swap(0, Relaxed)).to_le_bytes());
        let written = file.write_at(0, &head);
        let mapped = file.map_shared(0, unit)?;
        written.then_some((file, mapped.as_ptr().cast_const().cast()))
    }

    impl Session {
        fn head(&self) -> &Head {
            // SAFETY: a session that is handed out has its head mapped, and keeps it.
            unsafe { &*self.head }
        }

        /// A record could not be written.
        fn lose(&self) {
            let _ = chunk::add(&self.head().lost, 1);
        }

        /// Claims room for a chunk and has the system set it aside: where it begins.
        fn claim(&self, bytes: usize) -> Option<u64> {
            if self.full.load(Relaxed) {
                return None;
            }
            let first = chunk::claim(&self.head().claimed, (bytes / self.unit) as u32)?;
            let at = u64::from(first) * self.unit as u64;
            // SAFETY: the session's file, which is never closed; the handle is kept again.
            let file = unsafe { File::kept(self.file) };
            let reserved = file.reserve(at, bytes);
            file.keep();
            if !reserved {
                self.full.store(true, Relaxed);
            }
            reserved.then_some(at)
        }

        fn write_at(&self, at: u64, bytes: &[u8]) -> bool {
            // SAFETY: as in `claim`.
            let file = unsafe { File::kept(self.file) };
            let written = file.write_at(at, bytes);
            file.keep();
            written
        }

        /// What the clock says.
        fn clock(&self) -> u64 {
            clock(libc::CLOCK_MONOTONIC).saturating_sub(self.began)
        }

        /// The time of a record that comes after `last`.
        fn now(&self, last: u64) -> u64 {
            self.clock().max(last + 1)
        }

        /// Whether this stack is written for the first time.
        fn is_new(&self, stack: u32) -> bool {
            let bit = 1 << (stack % 64);
            match self.stacks.get(stack as usize / 64) {
                Some(word) if word.load(Relaxed) & bit == 0 => {
                    word.fetch_or(bit, Relaxed) & bit == 0
                }
                _ => false,
            }
        }
    }

    /// The head of a chunk, but for the count of its bytes.
    fn chunk_head(kind: Kind, thread: u32, number: u32, units: u32, time: u64) -> [u8; 40] {
        let mut head = [0; 40];
        let numbers = [format::CHUNK, kind as u32, thread, number, units, 0];
        for (to, number) in head.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        head[24..32].copy_from_slice(&time.to_le_bytes());
        let check = format::checksum(format::UNCHECKED, &head[..32]);
        head[32..].copy_from_slice(&check.to_le_bytes());
        head
    }

    /// Writes what is mapped into a chunk of its own.
    fn write_maps(session: &Session) {
        let Some(path) = Path::of(b"/proc/self/maps") else { return };
        let Ok(maps) = File::read_only(&path) else { return };
        let mut text = [0; 4096];
        let mut total = 0;
        loop {
            match maps.read(total as u64, &mut text) {
                0 => break,
                read => total += read,
            }
        }
        // It may grow between the two looks.
        let bytes = (CHUNK_HEAD + total + 8 + session.unit).next_multiple_of(session.unit);
        let Some(at) = session.claim(bytes) else { return };
        let room = bytes - CHUNK_HEAD - 8;
        let (mut done, mut check) = (0, format::UNCHECKED);
        while done < room {
            let most = text.len().min(room - done);
            let read = text.get_mut(..most).map_or(0, |text| maps.read(done as u64, text));
            let Some(part) = text.get(..read).filter(|part| !part.is_empty()) else { break };
            check = format::checksum(check, part);
            session.write_at(at + (CHUNK_HEAD + done) as u64, part);
            done += read;
        }
        session.write_at(at + (CHUNK_HEAD + done) as u64, &check.to_le_bytes());
        write_chunk_head(session, at, Kind::Maps, bytes, 0, CHUNK_HEAD + done + 8);
    }

    /// The head of a chunk that is otherwise written.
    fn write_chunk_head(
        session: &Session,
        at: u64,
        kind: Kind,
        bytes: usize,
        time: u64,
        used: usize,
    ) {
        let units = (bytes / session.unit) as u32;
        let mut head = [0; CHUNK_HEAD];
        head[..40].copy_from_slice(&chunk_head(kind, SYSTEM.thread(), 0, units, time));
        head[40..48].copy_from_slice(&format::seal(used as u32).to_le_bytes());
        session.write_at(at, &head);
    }

    /// The running thread's lane.
    fn lane(cache: &ThreadCache) -> Option<&'static Lane> {
        // SAFETY: null, or a table that is never unmapped, of zeros at first: lanes without a cache.
        let table = match unsafe { TABLE.load(Acquire).as_ref() } {
            Some(table) => table,
            None => new_table()?,
        };
        let key = ptr::from_ref(cache).addr();
        let hash = (key as u64 >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        for step in 0..LANES {
            let lane = table.get((hash as usize + step) % LANES)?;
            let there = lane.key.load(Relaxed);
            let taken = there == 0 && lane.key.compare_exchange(0, key, Relaxed, Relaxed).is_ok();
            if taken || there == key {
                return Some(lane);
            }
        }
        None
    }

    #[cold]
    fn new_table() -> Option<&'static Table> {
        let bytes = size_of::<Table>();
        let fresh = map::<Table>(bytes)?;
        let first = TABLE.compare_exchange(ptr::null_mut(), fresh.as_ptr(), AcqRel, Acquire);
        if first.is_err() {
            // SAFETY: mapped above; the race is lost and nobody has seen it.
            unsafe { SYSTEM.unmap(fresh.cast(), bytes.next_multiple_of(SYSTEM.page_size())) };
        }
        // SAFETY: a table, this thread's or the other's; never unmapped.
        unsafe { TABLE.load(Acquire).as_ref() }
    }

    impl State {
        fn body(&self) -> Option<Body<'_>> {
            let at = NonNull::new(self.chunk)?;
            // SAFETY: a chunk that this lane has mapped: its count lies in its head, records behind it.
            unsafe {
                Some(Body {
                    used: at.add(format::USED_AT).cast::<AtomicU64>().as_ref(),
                    head: CHUNK_HEAD,
                    bytes: core::slice::from_raw_parts(
                        at.add(CHUNK_HEAD).as_ptr().cast_const().cast::<AtomicU8>(),
                        self.capacity - CHUNK_HEAD,
                    ),
                })
            }
        }

        /// Another chunk, larger than the last if the thread is still the same.
        fn next_chunk(&mut self, session: &'static Session, thread: u32) -> Option<()> {
            if let Some(old) = NonNull::new(self.chunk) {
                // SAFETY: a mapping of this lane's, in this process or inherited from its parent.
                unsafe { File::unmap(old, self.capacity) };
                self.chunk = ptr::null_mut();
            }
            let same = ptr::eq(self.session, session) && self.thread == thread;
            let bytes = if same { (self.capacity * 4).min(CHUNK_MOST) } else { session.unit };
            let bytes = bytes.max(session.unit);
            self.chunks = if same { self.chunks + 1 } else { 0 };
            (self.session, self.thread, self.capacity) = (session, thread, bytes);
            let at = session.claim(bytes)?;
            // SAFETY: as in `Session::claim`.
            let file = unsafe { File::kept(session.file) };
            let mapped = file.map_shared(at, bytes);
            file.keep();
            let mapped = mapped?;
            let head = chunk_head(
                Kind::Records,
                thread,
                self.chunks,
                (bytes / session.unit) as u32,
                self.last,
            );
            // SAFETY: the chunk's own head, which nobody else writes.
            unsafe { mapped.copy_from_nonoverlapping(NonNull::from(&head).cast(), head.len()) };
            (self.chunk, self.written) = (mapped.as_ptr(), 0);
            self.before = Before { time: self.last, at: 0 };
            self.body()?.push(0, &[]).map(drop)
        }

        /// Writes one record.
        fn write(
            &mut self,
            session: &'static Session,
            thread: u32,
            record: &Record<'_>,
        ) -> Option<()> {
            if self.chunk.is_null() || !ptr::eq(self.session, session) || self.thread != thread {
                if !ptr::eq(self.session, session) {
                    self.last = 0;
                }
                self.next_chunk(session, thread)?;
            }
            let mut out = Out::new();
            for _ in 0..2 {
                let mut before = self.before;
                format::encode(record, &mut before, &mut out);
                if let Some(written) = self.body()?.push(self.written, out.bytes()) {
                    (self.written, self.before) = (written, before);
                    return Some(());
                }
                self.next_chunk(session, thread)?;
            }
            None
        }
    }

    /// Writes what `record` makes of the time, and its stack before it if that is new.
    fn record(record: impl Fn(u64, u32) -> Record<'static>) {
        // SAFETY: errno is this thread's own.
        let saved = unsafe { *libc::__errno_location() };
        match session() {
            Some(session) => {
                let stack = stacks::capture();
                let cache = slot::existing();
                if let Some((lane, cache)) = cache.and_then(|cache| Some((lane(cache)?, cache)))
                    // SAFETY: the lane of a cache that is the running thread's: nobody else is in it
                    // but a handler of a signal that came in here, which sees `busy`.
                    && let state = unsafe { &mut *lane.state.get() }
                    && !state.busy
                {
                    state.busy = true;
                    core::sync::atomic::compiler_fence(Acquire);
                    if state.all(session, cache.thread(), stack, &record).is_none() {
                        session.lose();
                    }
                    core::sync::atomic::compiler_fence(Release);
                    state.busy = false;
                } else if alone(session, stack, &record).is_none() {
                    session.lose();
                }
            }
            None => {
                EARLY.fetch_add(1, Relaxed);
            }
        }
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = saved };
    }

    impl State {
        fn all(
            &mut self,
            session: &'static Session,
            thread: u32,
            stack: u32,
            record: &impl Fn(u64, u32) -> Record<'static>,
        ) -> Option<()> {
            if stack != 0 && session.is_new(stack) {
                let mut room = [0; stacks::DEPTH];
                let count = stacks::frames(stack, &mut room).min(room.len());
                let frames = room.get(..count)?;
                self.write(session, thread, &Record::Stack { id: stack, frames })?;
            }
            if !ptr::eq(self.session, session) {
                self.last = 0;
            }
            let time = session.now(self.last);
            self.write(session, thread, &record(time, stack))?;
            self.last = time;
            Some(())
        }
    }

    /// A record of a thread without a lane, in a chunk of its own.
    fn alone(
        session: &Session,
        stack: u32,
        record: &impl Fn(u64, u32) -> Record<'static>,
    ) -> Option<()> {
        let mut out = Out::new();
        let time = session.now(0);
        let mut before = Before { time, at: 0 };
        format::encode(&record(time, stack), &mut before, &mut out);
        let at = session.claim(session.unit)?;
        let used = CHUNK_HEAD + out.bytes().len();
        // The head last: without it, nothing is there.
        session.write_at(at + CHUNK_HEAD as u64, out.bytes()).then_some(())?;
        write_chunk_head(session, at, Kind::Records, session.unit, time, used);
        Some(())
    }

    /// A block was handed out for `size` bytes at `align`.
    pub fn born(at: NonNull<u8>, size: usize, align: usize) {
        let (at, size) = (at.addr().get() as u64, size as u64);
        let align = u32::try_from(align).unwrap_or(1 << 31);
        let align = if align > 16 { align } else { 0 };
        record(|time, stack| Record::Alloc { time, at, size, align, stack });
    }

    /// A block is about to be taken back.
    pub fn dying(at: NonNull<u8>) {
        let at = at.addr().get() as u64;
        record(|time, stack| Record::Free { time, at, stack });
    }

    /// When a block is about to lose its place, for [`resized`] to say so.
    pub fn moving() -> Option<u64> {
        session().map(Session::clock)
    }

    /// A block has `size` bytes now, and is perhaps somewhere else; where it was is not taken back yet, or, if it
    /// `began` to move before, may have been since then.
    pub fn resized(old: NonNull<u8>, at: NonNull<u8>, size: usize, began: Option<u64>) {
        let (old, at, size) = (old.addr().get() as u64, at.addr().get() as u64, size as u64);
        record(|time, stack| {
            let began = began.unwrap_or(time).min(time);
            Record::Resize { time, began, old, at, size, stack }
        });
    }
}
