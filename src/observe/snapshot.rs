//! A snapshot: where every mapped byte is.
//!
//! While no other thread allocates, the parts add up to what is mapped, exactly
//! ([`Stats::accounted`]). While others do, each part is read at its own moment, and the sum is off
//! by at most what moved between the floors meanwhile.

use crate::base::classes::{CLASSES, Class, Use};
use crate::base::sync::Ordering::Relaxed;
use crate::base::units::*;
use crate::cache::{CacheCounts, Caches};
use crate::os::{Os, OsCounts};
use crate::page::{Limits, PageCounts};
use crate::span::{Span, SpanCounts, SpanTable, Spans};
use crate::transfer::Transfer;

/// One moment of the allocator. All sizes in bytes.
///
/// `live + cached + in_transfer + free_in_spans + free_granules + returned + metadata + stranded ==
/// mapped`, exactly, while no other thread allocates or frees.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
pub struct Stats {
    /// Address space mapped from the system, as its floor counted it.
    pub mapped: usize,
    /// Held by the program, rounded up to classes, granules and pages.
    pub live: usize,
    /// Of `live`: whole granules, and mappings of their own.
    pub live_large: usize,
    /// Free objects in thread caches.
    pub cached: usize,
    /// Free objects waiting in the transfer cache.
    pub in_transfer: usize,
    /// Free objects in spans, and the tails that no object fits.
    pub free_in_spans: usize,
    /// Free granules with memory behind them.
    pub free_granules: usize,
    /// Free granules that read as zero: never touched, or returned to the system. No memory is behind
    /// them, unless a hugepage was put behind their neighbours.
    pub returned: usize,
    /// The allocator's own records, as mapped; most of it is never touched.
    pub metadata: usize,
    /// Address space that the system refused to take back.
    pub stranded: usize,
    /// Of what was returned to the system so far, what was taken again.
    pub refaulted: usize,
    /// Per size class.
    #[cfg_attr(feature = "serde", serde(serialize_with = "used"))]
    pub classes: [ClassStats; CLASSES],
    /// The limits and what counts against them.
    pub limits: Limits,
    /// What each floor did so far.
    pub floors: Floors,
}

/// Classes that have spans.
#[cfg(feature = "serde")]
fn used<S: serde::Serializer>(
    classes: &[ClassStats; CLASSES],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        class: &'a ClassStats,
        occupancy: f64,
        fragmentation: f64,
    }
    let used = classes.iter().filter(|class| class.spans != 0);
    serializer.collect_seq(used.map(|class| Shown {
        class,
        occupancy: class.occupancy(),
        fragmentation: class.fragmentation(),
    }))
}

impl ClassStats {
    /// Objects its spans have room for.
    pub fn objects(&self) -> usize {
        self.live + self.cached + self.in_transfer + self.free_in_spans
    }

    /// The share of its objects that the program holds, 0 to 1.
    pub fn occupancy(&self) -> f64 {
        share(self.live, self.objects())
    }

    /// The share of its objects that lie free in spans the others keep, 0 to 1.
    pub fn fragmentation(&self) -> f64 {
        share(self.free_in_spans, self.objects())
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Floors {
    /// Takes from the transfer cache that found a batch: every refill asks there once.
    pub fn transfer_hits(&self) -> u64 {
        self.cache.refills.saturating_sub(self.transfer_misses)
    }
}

/// One size class at one moment. Counts of objects, not bytes.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassStats {
    /// Bytes of one object.
    pub size: usize,
    /// Held by the program.
    pub live: usize,
    /// Free in thread caches.
    pub cached: usize,
    /// Free in the transfer cache.
    pub in_transfer: usize,
    /// Free in spans.
    pub free_in_spans: usize,
    /// Spans of the class.
    pub spans: usize,
}

/// What each floor did so far.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Floors {
    /// Thread caches there are.
    pub caches: usize,
    /// Of these, without a thread.
    pub idle_caches: usize,
    /// The thread caches' slow calls.
    pub cache: CacheCounts,
    /// Takes that found no batch in the transfer cache.
    pub transfer_misses: u64,
    /// Gives that found no room in the transfer cache.
    pub transfer_refusals: u64,
    /// Exchanges in the transfer cache that another thread made fail.
    pub transfer_retries: u64,
    /// The same in the page heap.
    pub page_retries: u64,
    /// The span floor.
    pub span: SpanCounts,
    /// The page heap.
    pub page: PageCounts,
    /// The system.
    pub os: OsCounts,
    /// Windows of address space.
    pub windows: usize,
}

impl Stats {
    /// A snapshot of a whole building.
    pub fn of<O: Os>(building: &Caches<Transfer<Spans<O>>>) -> Self {
        let transfer = building.below();
        let spans = transfer.below();
        let pages = spans.pages();
        let mut stats = Self {
            mapped: 0,
            live: 0,
            live_large: 0,
            cached: 0,
            in_transfer: 0,
            free_in_spans: 0,
            free_granules: 0,
            returned: 0,
            metadata: 0,
            stranded: 0,
            refaulted: 0,
            classes: [ClassStats::default(); CLASSES],
            limits: Limits::default(),
            floors: Floors::default(),
        };
        for window in pages.windows() {
            stats.floors.windows += 1;
            stats.floors.page_retries += window.retries.get();
            stats.add_window(window);
        }
        stats.add_caches(building);
        stats.add_transfer(transfer);

        let page = pages.counts();
        let os = pages.os().counts();
        stats.live_large += page.huge;
        stats.live += stats.live_large;
        for class in &mut stats.classes {
            // So far `live` is what spans count as not free.
            class.live = class.live.saturating_sub(class.cached + class.in_transfer);
            stats.live += class.live * class.size;
        }
        stats.metadata = page.metadata + building.metadata() + transfer.metadata();
        stats.stranded = page.stranded + os.untrimmed;
        stats.mapped = os.mapped;
        stats.refaulted = page.purged.saturating_sub(stats.refaulted);
        stats.limits = pages.limits();
        stats.floors.span = spans.counts();
        stats.floors.page = page;
        stats.floors.os = os;
        stats
    }

    /// The sum of all parts; equals `mapped` while no other thread allocates or frees.
    pub fn accounted(&self) -> usize {
        self.live
            + self.cached
            + self.in_transfer
            + self.free_in_spans
            + self.free_granules
            + self.returned
            + self.metadata
            + self.stranded
    }

    fn add_window(&mut self, window: &crate::page::Window<SpanTable>) {
        for index in 0..HUGEPAGES_PER_WINDOW as u32 {
            if !window.owns(Hugepage(index)) {
                continue;
            }
            let view = window.look(Hugepage(index));
            let clean = view.clean.count_ones() as usize;
            self.returned += clean * GRANULE;
            // What of it was returned once; taken off what was returned in all, below.
            self.refaulted += window.returned(Hugepage(index)) as usize * GRANULE;
            self.free_granules += (view.free.count_ones() as usize - clean) * GRANULE;
            if view.whole {
                continue;
            }
            for bit in 0..GRANULES_PER_HUGEPAGE as u32 {
                let granule = Hugepage(index).granule(bit);
                match window.usage(granule) {
                    Use::Large => self.live_large += window.length(granule) * GRANULE,
                    Use::Span(class) => {
                        let span = Span::at(window, window.address(granule), class);
                        if span.start() == window.address(granule) {
                            self.add_span(span);
                        }
                    }
                    // Counted by the page heap; it lies in no hugepage of ours.
                    Use::Mapping | Use::None => {}
                }
            }
        }
    }

    fn add_span(&mut self, span: Span<'_>) {
        let shape = span.class().shape();
        let class = &mut self.classes[span.class().index()];
        let live = span.state(Relaxed).live().min(shape.objects);
        class.spans += 1;
        class.live += live as usize;
        class.free_in_spans += (shape.objects - live) as usize;
        self.free_in_spans += span.class().span_bytes() - (live * shape.size) as usize;
    }

    fn add_caches<B: crate::span::Objects>(&mut self, building: &Caches<B>) {
        (self.floors.caches, self.floors.idle_caches) = building.registry().counts();
        for cache in building.registry().iter() {
            for class in Class::all() {
                let objects = cache.held(class);
                self.classes[class.index()].cached += objects;
                self.cached += objects * class.size();
            }
            let (sum, one) = (&mut self.floors.cache, cache.counts());
            sum.refills += one.refills;
            sum.refilled += one.refilled;
            sum.spills += one.spills;
            sum.spilled += one.spilled;
            sum.sweeps += one.sweeps;
        }
    }

    fn add_transfer<B: crate::span::Objects>(&mut self, transfer: &Transfer<B>) {
        self.floors.transfer_retries = transfer.empty_retries();
        for class in Class::all() {
            let shelf = transfer.counts(class);
            self.classes[class.index()].size = class.size();
            self.classes[class.index()].in_transfer = shelf.objects;
            self.in_transfer += shelf.objects * class.size();
            self.floors.transfer_misses += shelf.misses;
            self.floors.transfer_refusals += shelf.refusals;
            self.floors.transfer_retries += shelf.retries;
        }
    }
}
