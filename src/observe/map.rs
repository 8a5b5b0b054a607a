//! The map: where everything lies, as a file of JSON lines.
//!
//! ```text
//! {"spandrel":"map","version":1,"pid":P,...}   once, at the start of the file; the size classes
//! {"snapshot":N,...}                           a snapshot begins: what adds up to what is mapped
//! {"thread":T,...}                             a thread cache and what it holds
//! {"window":A}                                 a window begins: the hugepages that follow lie in it
//! {"h":I,"n":1,...}                            a hugepage: free and clean granules, spans, blocks
//! {"mapping":A,"bytes":B}                      a block with a mapping of its own
//! {"sample":A,"size":S,"stack":K,...}          a sampled block that is alive, where samples are taken
//! {"stack":K,"frames":[...]}                   the addresses behind a stack's number
//! {"tag":T,"name":"..."}                       a tag's name
//! {"maps":"..."}                               a line of /proc/self/maps that is of code
//! {"end":N,"lines":L,"check":C}                the snapshot is whole; C: FNV-1a of its lines before
//! ```
//!
//! Written with plain system calls from memory of its own: from any thread, from a signal handler, at
//! exit. Nothing is stopped meanwhile, so what moves is seen at its own moment, as in [`Stats`]. One
//! snapshot is written at a time; who comes meanwhile is told so and goes on. The command `spandrel map`
//! reads the file; a reader that knows this version may skip fields and lines that it does not know.

use super::snapshot::Stats;
use crate::base::classes::{CLASSES, Class, Use};
use crate::base::sync::Ordering::{AcqRel, Relaxed, Release};
use crate::base::units::*;
use crate::cache::Caches;
use crate::os::Os;
use crate::os::file::{File, pid};
use crate::page::{Grain, Window};
use crate::span::{Span, SpanTable, Spans};
use crate::transfer::Transfer;
use crate::watch::{ledger, mode, sample, stacks, tags};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64};

/// The version of the lines.
pub const VERSION: u32 = 1;

/// Text on its way to a file.
struct Out<'a> {
    file: &'a File,
    buffer: &'a mut [u8; BUFFER],
    len: usize,
    lines: u32,
    /// Of what was written since it was set.
    check: u64,
    failed: bool,
}

/// What a check begins with: FNV-1a.
const UNCHECKED: u64 = 0xcbf2_9ce4_8422_2325;

const BUFFER: usize = 16 << 10;

impl Out<'_> {
    fn flush(&mut self) {
        let text = self.buffer.get(..self.len).unwrap_or_default();
        self.failed |= !self.file.write(text);
        self.len = 0;
    }

    fn end_line(&mut self) -> fmt::Result {
        self.lines += 1;
        self.write_str("\n")
    }
}

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.check = (self.check ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            if self.len == BUFFER {
                self.flush();
            }
            if let Some(slot) = self.buffer.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        if self.failed { Err(fmt::Error) } else { Ok(()) }
    }
}

/// What one snapshot at a time works with.
struct Workspace {
    buffer: UnsafeCell<[u8; BUFFER]>,
    /// Objects of the span that begins at a granule that lie in thread caches.
    cached: [AtomicU16; GRANULES_PER_WINDOW],
    /// The same, between threads.
    waiting: [AtomicU16; GRANULES_PER_WINDOW],
    /// Which stacks and which tags have been named in this snapshot.
    stacks: [AtomicU64; STACKS / 64],
    tags: [AtomicU64; TAGS / 64],
    /// Of one hugepage: who holds what is alive there.
    sites: UnsafeCell<[Site; SITES]>,
}

/// Numbers that stacks and tags have.
const STACKS: usize = 1 << 24;
const TAGS: usize = 1 << 16;
/// Sites of one hugepage that are told apart; the rest is nobody's.
const SITES: usize = 256;

/// Whoever holds blocks.
#[derive(Clone, Copy)]
struct Site {
    stack: u32,
    tag: u16,
    blocks: u32,
    bytes: usize,
}

const NO_SITE: Site = Site { stack: 0, tag: 0, blocks: 0, bytes: 0 };

// SAFETY: `buffer` and `sites` are touched only by who has set `BUSY`; the rest is atomic.
unsafe impl Sync for Workspace {}

static WORKSPACE: Workspace = Workspace {
    buffer: UnsafeCell::new([0; BUFFER]),
    cached: [const { AtomicU16::new(0) }; GRANULES_PER_WINDOW],
    waiting: [const { AtomicU16::new(0) }; GRANULES_PER_WINDOW],
    stacks: [const { AtomicU64::new(0) }; STACKS / 64],
    tags: [const { AtomicU64::new(0) }; TAGS / 64],
    sites: UnsafeCell::new([NO_SITE; SITES]),
};
/// The process in which a snapshot is being written; 0 for none.
static BUSY: AtomicU32 = AtomicU32::new(0);
/// Snapshots so far.
static NUMBER: AtomicU32 = AtomicU32::new(0);
/// Whether a snapshot was wanted while another was written.
static MISSED: AtomicBool = AtomicBool::new(false);

/// Why no snapshot was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another one is being written.
    Busy,
    /// The file could not be written to.
    NotWritten,
}

/// Writes a snapshot at the end of a file, and what every file begins with if it is empty.
///
/// # Errors
/// Why there is none, or only part of one.
pub fn write<O: Os>(building: &Caches<Transfer<Spans<O>>>, file: &File) -> Result<(), Refused> {
    alone(file, |out| snapshot(out, building))
}

/// Writes what every file begins with, so that it can be told whose it is.
///
/// # Errors
/// As [`write()`].
pub fn begin(file: &File, page_size: usize) -> Result<(), Refused> {
    alone(file, |out| head(out, page_size))
}

/// Runs `f` unless another thread is in here.
fn alone(file: &File, f: impl FnOnce(&mut Out<'_>) -> fmt::Result) -> Result<(), Refused> {
    let process = pid();
    let busy = BUSY.load(Relaxed);
    // A child of fork does not have the thread that was writing.
    if busy == process || BUSY.compare_exchange(busy, process, AcqRel, Relaxed).is_err() {
        MISSED.store(true, Relaxed);
        return Err(Refused::Busy);
    }
    // SAFETY: the exchange let this thread through alone.
    let buffer = unsafe { &mut *WORKSPACE.buffer.get() };
    let mut out = Out { file, buffer, len: 0, lines: 0, check: 0, failed: false };
    let written = f(&mut out);
    out.flush();
    let failed = out.failed || written.is_err();
    BUSY.store(0, Release);
    if failed { Err(Refused::NotWritten) } else { Ok(()) }
}

/// The process that a file belongs to, by how it begins.
pub fn owner(start: &[u8]) -> Option<u32> {
    const BEFORE: &[u8] = b"{\"spandrel\":\"map\",\"version\":1,\"pid\":";
    let digits = start.strip_prefix(BEFORE)?;
    let mut digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits
        .try_fold(0u32, |number, &digit| number.checked_mul(10)?.checked_add((digit - b'0').into()))
}

fn head(out: &mut Out<'_>, page: usize) -> fmt::Result {
    let process = pid();
    write!(out, "{{\"spandrel\":\"map\",\"version\":{VERSION},\"pid\":{process},\"command\":\"")?;
    command(out)?;
    write!(
        out,
        "\",\"page\":{page},\"granule\":{GRANULE},\"hugepage\":{HUGEPAGE},\"window\":{WINDOW},\"classes\":["
    )?;
    for class in Class::all() {
        let comma = if class.index() == 0 { "" } else { "," };
        let shape = class.shape();
        write!(out, "{comma}[{},{},{}]", shape.size, 1 << shape.span_order, shape.objects)?;
    }
    write!(out, "]}}")?;
    out.end_line()
}

/// The program and its arguments, divided by spaces, as far as they are plain text.
fn command(out: &mut Out<'_>) -> fmt::Result {
    let Some(path) = crate::os::file::Path::of(b"/proc/self/cmdline") else { return Ok(()) };
    let Ok(file) = File::read_only(&path) else { return Ok(()) };
    let mut text = [0; 512];
    let length = file.read(0, &mut text);
    let text = text.get(..length).unwrap_or_default();
    plain(out, text.strip_suffix(&[0]).unwrap_or(text))
}

fn snapshot<O: Os>(out: &mut Out<'_>, building: &Caches<Transfer<Spans<O>>>) -> fmt::Result {
    let pages = building.below().below().pages();
    if out.file.length() == 0 {
        head(out, pages.os().page_size())?;
    }
    let number = NUMBER.fetch_add(1, Relaxed) + 1;
    let from = out.lines;
    out.check = UNCHECKED;
    sums(out, &Stats::of(building), number)?;
    for cache in building.registry().iter().filter(|cache| cache.in_use()) {
        let held = |class: Class| (cache.held(class), class.size());
        let (objects, bytes) = Class::all()
            .map(held)
            .fold((0, 0), |(n, bytes), (held, size)| (n + held, bytes + held * size));
        write!(out, "{{\"thread\":{},\"objects\":{objects},\"bytes\":{bytes}}}", cache.thread())?;
        out.end_line()?;
    }
    let now = pages.os().now_ms() as u32;
    for window in pages.windows() {
        count_free(building, window);
        write!(out, "{{\"window\":{}}}", window.base())?;
        out.end_line()?;
        hugepages(out, window, now)?;
    }
    for (at, bytes) in pages.mappings() {
        write!(out, "{{\"mapping\":{at},\"bytes\":{bytes}}}")?;
        out.end_line()?;
    }
    if mode::has(mode::PROFILE) {
        samples(out)?;
    }
    if mode::has(mode::PROFILE | mode::LEDGER) {
        names(out)?;
    }
    let (lines, check) = (out.lines - from + 1, out.check);
    write!(out, "{{\"end\":{number},\"lines\":{lines},\"check\":\"{check:016x}\"}}")?;
    out.end_line()
}

/// What adds up to what is mapped, and what the floors did.
fn sums(out: &mut Out<'_>, stats: &Stats, number: u32) -> fmt::Result {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a struct to fill.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    let millis = time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
    let missed = MISSED.swap(false, Relaxed);
    write!(out, "{{\"snapshot\":{number},\"time_ms\":{millis},\"missed\":{missed},\"sum\":{{")?;
    let parts = [
        ("mapped", stats.mapped),
        ("live", stats.live),
        ("live_large", stats.live_large),
        ("cached", stats.cached),
        ("in_transfer", stats.in_transfer),
        ("free_in_spans", stats.free_in_spans),
        ("free_granules", stats.free_granules),
        ("returned", stats.returned),
        ("metadata", stats.metadata),
        ("stranded", stats.stranded),
    ];
    for (index, (name, bytes)) in parts.into_iter().enumerate() {
        write!(out, "{}\"{name}\":{bytes}", if index == 0 { "" } else { "," })?;
    }
    let floors = &stats.floors;
    let parts = [
        ("refills", floors.cache.refills),
        ("spills", floors.cache.spills),
        ("transfer_misses", floors.transfer_misses),
        ("transfer_refusals", floors.transfer_refusals),
        ("spans_begun", floors.span.begun),
        ("spans_ended", floors.span.died),
        ("page_takes", floors.page.takes),
        ("page_gives", floors.page.gives),
        ("returned_ever", floors.page.purged as u64),
    ];
    write!(out, "}},\"floors\":{{")?;
    for (index, (name, count)) in parts.into_iter().enumerate() {
        write!(out, "{}\"{name}\":{count}", if index == 0 { "" } else { "," })?;
    }
    write!(out, "}}}}")?;
    out.end_line()
}

/// Counts, for every span of a window, its objects that lie free in caches and between threads.
fn count_free<O: Os>(building: &Caches<Transfer<Spans<O>>>, window: &Window<SpanTable>) {
    let count = |counts: &[AtomicU16; GRANULES_PER_WINDOW], class: Class, at: usize| {
        let first = Granule::of(at & !(class.span_bytes() - 1));
        // A pointer that was read too late may be another class's.
        if at >> WINDOW_SHIFT == window.base() >> WINDOW_SHIFT
            && window.usage(first) == Use::Span(class)
            && let Some(count) = counts.get(first.index())
        {
            count.fetch_add(1, Relaxed);
        }
    };
    for counts in [&WORKSPACE.cached, &WORKSPACE.waiting] {
        counts.iter().for_each(|count| count.store(0, Relaxed));
    }
    for class in Class::all() {
        for cache in building.registry().iter() {
            cache.look(class, |at| count(&WORKSPACE.cached, class, at));
        }
        building.below().look(class, |at| count(&WORKSPACE.waiting, class, at));
    }
}

fn hugepages(out: &mut Out<'_>, window: &Window<SpanTable>, now: u32) -> fmt::Result {
    let mut index = 0;
    while index < HUGEPAGES_PER_WINDOW as u32 {
        let hugepage = Hugepage(index);
        let view = window.look(hugepage);
        let returned = window.returned(hugepage);
        let idle = |index: u32| {
            let (hugepage, view) = (Hugepage(index), window.look(Hugepage(index)));
            let alike = view.whole && view.clean == WHOLE && window.returned(hugepage) == returned;
            window.owns(hugepage) && alike
        };
        // Those that nobody uses and nothing is behind are many and alike: one line for a run of them.
        let alike = (index..HUGEPAGES_PER_WINDOW as u32).take_while(|&index| idle(index)).count();
        if !window.owns(hugepage) {
            index += 1;
            continue;
        }
        let count = alike.max(1);
        write!(
            out,
            "{{\"h\":{index},\"n\":{count},\"free\":\"{:x}\",\"clean\":\"{:x}\",\"returned\":{returned}",
            view.free, view.clean
        )?;
        if alike == 0 {
            let sparse = window.grain(hugepage) == Grain::Sparse;
            let advised = window.advised(hugepage);
            write!(out, ",\"sparse\":{sparse},\"advised\":{advised}")?;
            if view.freed_at != 0 {
                write!(out, ",\"idle_ms\":{}", now.wrapping_sub(view.freed_at))?;
            }
            if !view.whole {
                contents(out, window, hugepage)?;
            }
        }
        write!(out, "}}")?;
        out.end_line()?;
        index += count as u32;
    }
    Ok(())
}

/// Spans, as `[granule, class, not free in the span, of these in caches, between threads, flags,
/// generation]`, and large blocks, as `[granule, granules]`. Flags: 1 owned, 2 listed.
fn contents(out: &mut Out<'_>, window: &Window<SpanTable>, hugepage: Hugepage) -> fmt::Result {
    let granules = || (0..GRANULES_PER_HUGEPAGE as u32).map(|bit| (bit, hugepage.granule(bit)));
    write!(out, ",\"spans\":[")?;
    let mut comma = "";
    for (bit, granule) in granules() {
        let Use::Span(class) = window.usage(granule) else { continue };
        let span = Span::at(window, window.address(granule), class);
        if span.start() != window.address(granule) {
            continue;
        }
        let state = span.state(Relaxed);
        let live = state.live().min(class.shape().objects);
        let cached = u32::from(WORKSPACE.cached[granule.index()].load(Relaxed)).min(live);
        let waiting =
            u32::from(WORKSPACE.waiting[granule.index()].load(Relaxed)).min(live - cached);
        let flags = u32::from(state.owned()) | u32::from(state.listed()) << 1;
        write!(
            out,
            "{comma}[{bit},{},{live},{cached},{waiting},{flags},{}]",
            class.index(),
            state.generation()
        )?;
        comma = ",";
    }
    write!(out, "],\"blocks\":[")?;
    comma = "";
    for (bit, granule) in granules() {
        if window.usage(granule) == Use::Large {
            write!(out, "{comma}[{bit},{}]", window.length(granule))?;
            comma = ",";
        }
    }
    write!(out, "]")?;
    if mode::has(mode::LEDGER) {
        sites(out, window, hugepage)?;
    }
    Ok(())
}

/// Remembers that a stack or a tag has to be named.
fn note(bits: &[AtomicU64], number: usize) {
    if let Some(word) = bits.get(number / 64) {
        word.fetch_or(1 << (number % 64), Relaxed);
    }
}

/// Who holds what is alive in a hugepage, as the ledger knows it: `[stack, tag, bytes, blocks]`. A block
/// counts where it begins.
fn sites(out: &mut Out<'_>, window: &Window<SpanTable>, hugepage: Hugepage) -> fmt::Result {
    // SAFETY: whoever is in here has set `BUSY`, and is in here once.
    let sites = unsafe { &mut *WORKSPACE.sites.get() };
    sites.fill(NO_SITE);
    let mut add = |at: usize| {
        let Some(entry) = ledger::find(at).and_then(|block| block.live()) else { return };
        let hash = (entry.birth ^ u32::from(entry.tag) << 7).wrapping_mul(0x9e37_79b1) >> 8;
        // The last place is everybody's for whom there is no other.
        let places = (0..SITES).map(|step| (hash as usize + step) % SITES);
        for (tries, place) in places.enumerate() {
            let site = &mut sites[place];
            let its = site.stack == entry.birth && site.tag == entry.tag;
            if site.blocks == 0 || its || tries + 1 == SITES {
                (site.stack, site.tag) = (entry.birth, entry.tag);
                site.blocks += 1;
                site.bytes += entry.size;
                return;
            }
        }
    };
    for granule in (0..GRANULES_PER_HUGEPAGE as u32).map(|bit| hugepage.granule(bit)) {
        let start = window.address(granule);
        match window.usage(granule) {
            Use::Span(class) if Span::at(window, start, class).start() == start => {
                let shape = class.shape();
                (0..shape.objects).for_each(|i| add(start + (i * shape.size) as usize));
            }
            Use::Large => add(start),
            _ => {}
        }
    }
    write!(out, ",\"sites\":[")?;
    let mut comma = "";
    for site in sites.iter().filter(|site| site.blocks > 0) {
        write!(out, "{comma}[{},{},{},{}]", site.stack, site.tag, site.bytes, site.blocks)?;
        comma = ",";
        note(&WORKSPACE.stacks, site.stack as usize);
        note(&WORKSPACE.tags, site.tag.into());
    }
    write!(out, "]")
}

/// Sampled blocks that are alive.
fn samples(out: &mut Out<'_>) -> fmt::Result {
    let mut result = Ok(());
    sample::each_live(|at, size, stack| {
        note(&WORKSPACE.stacks, stack as usize);
        result = result
            .and_then(|()| write!(out, "{{\"sample\":{at},\"size\":{size},\"stack\":{stack}}}"))
            .and_then(|()| out.end_line());
    });
    result
}

/// The names of what was noted, and what their addresses belong to.
fn names(out: &mut Out<'_>) -> fmt::Result {
    let mut frames = [0; stacks::DEPTH];
    for id in noted(&WORKSPACE.stacks) {
        let count = stacks::frames(id as u32, &mut frames).min(frames.len());
        write!(out, "{{\"stack\":{id},\"frames\":[")?;
        for (index, frame) in frames.iter().take(count).enumerate() {
            write!(out, "{}{frame}", if index == 0 { "" } else { "," })?;
        }
        write!(out, "]}}")?;
        out.end_line()?;
    }
    let mut name = [0; 256];
    for tag in noted(&WORKSPACE.tags) {
        let Some(length) = tags::name(tag as u16, &mut name) else { continue };
        write!(out, "{{\"tag\":{tag},\"name\":\"")?;
        plain(out, name.get(..length).unwrap_or_default())?;
        write!(out, "\"}}")?;
        out.end_line()?;
    }
    let Some(path) = crate::os::file::Path::of(b"/proc/self/maps") else { return Ok(()) };
    let Ok(maps) = File::read_only(&path) else { return Ok(()) };
    let (mut text, mut at) = ([0; 4096], 0);
    loop {
        let read = maps.read(at, &mut text);
        let text = text.get(..read).unwrap_or_default();
        // A line longer than all of this is none that is wanted.
        let Some(end) = text.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        at += end as u64 + 1;
        for line in text[..end].split(|&byte| byte == b'\n') {
            let mut words = line.split(|&byte| byte == b' ');
            let code = words.nth(1).is_some_and(|rights| rights.get(2) == Some(&b'x'));
            if code && !line.ends_with(b"]") {
                write!(out, "{{\"maps\":\"")?;
                plain(out, line)?;
                write!(out, "\"}}")?;
                out.end_line()?;
            }
        }
    }
}

/// The numbers that were noted, each once: they are forgotten.
fn noted(bits: &[AtomicU64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(index, word)| {
        let mut left = if word.load(Relaxed) == 0 { 0 } else { word.swap(0, Relaxed) };
        core::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(index * 64 + bit as usize)
        })
    })
}

/// Text that may stand in quotes.
fn plain(out: &mut Out<'_>, text: &[u8]) -> fmt::Result {
    text.iter().try_for_each(|&byte| match byte {
        0 => out.write_char(' '),
        b'"' | b'\\' => out.write_char('\''),
        0x20..0x7f => out.write_char(byte as char),
        _ => out.write_char('?'),
    })
}

const _: () = assert!(CLASSES <= u8::MAX as usize);
