//! A snapshot as named series, for those who collect them.

use super::snapshot::Stats;

/// Whether a series rises and falls, or only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both.
    Gauge,
    /// Only rises.
    Counter,
}

/// One series of a snapshot. Names follow Prometheus's customs.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// As it is called.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Its value.
    pub value: u64,
}

/// One series that there is for every size class.
#[derive(Clone, Copy, Debug)]
pub struct ClassSeries {
    /// As it is called; told apart by the object's size in bytes.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Its value for a class.
    pub value: fn(&super::ClassStats) -> f64,
}

/// The series per class, all gauges.
pub static CLASS_SERIES: [ClassSeries; 7] = [
    ClassSeries {
        name: "spandrel_class_live_objects",
        help: "Objects held by the program",
        value: |class| class.live as f64,
    },
    ClassSeries {
        name: "spandrel_class_cached_objects",
        help: "Free objects in thread caches",
        value: |class| class.cached as f64,
    },
    ClassSeries {
        name: "spandrel_class_transfer_objects",
        help: "Free objects between threads",
        value: |class| class.in_transfer as f64,
    },
    ClassSeries {
        name: "spandrel_class_free_objects",
        help: "Free objects in spans",
        value: |class| class.free_in_spans as f64,
    },
    ClassSeries { name: "spandrel_class_spans", help: "Spans", value: |class| class.spans as f64 },
    ClassSeries {
        name: "spandrel_class_occupancy_ratio",
        help: "The share of its objects that the program holds",
        value: super::ClassStats::occupancy,
    },
    ClassSeries {
        name: "spandrel_class_fragmentation_ratio",
        help: "The share of its objects that lie free in spans the others keep",
        value: super::ClassStats::fragmentation,
    },
];

/// One series that there is for every tag.
#[cfg(all(any(feature = "prometheus", feature = "metrics"), not(spandrel_model)))]
struct TagSeries {
    name: &'static str,
    #[cfg(feature = "prometheus")]
    help: &'static str,
    value: fn(&super::tags::TagStats) -> usize,
}

/// The series per tag, all gauges. There are none before the first tag.
#[cfg(all(any(feature = "prometheus", feature = "metrics"), not(spandrel_model)))]
static TAG_SERIES: [TagSeries; 3] = [
    TagSeries {
        name: "spandrel_tag_live_bytes",
        #[cfg(feature = "prometheus")]
        help: "Put down to the tag",
        value: |tag| tag.live,
    },
    TagSeries {
        name: "spandrel_tag_live_blocks",
        #[cfg(feature = "prometheus")]
        help: "Blocks put down to the tag",
        value: |tag| tag.blocks,
    },
    TagSeries {
        name: "spandrel_tag_peak_bytes",
        #[cfg(feature = "prometheus")]
        help: "The most ever put down to the tag",
        value: |tag| tag.peak,
    },
];

impl Stats {
    /// Every series of the snapshot but those per class.
    pub fn series(&self) -> impl Iterator<Item = Series> {
        let floors = &self.floors;
        let gauge = |name, help, value: usize| Series {
            name,
            help,
            kind: Kind::Gauge,
            value: value as u64,
        };
        let counter = |name, help, value| Series { name, help, kind: Kind::Counter, value };
        [
            gauge("spandrel_mapped_bytes", "Address space mapped", self.mapped),
            gauge("spandrel_live_bytes", "Held by the program", self.live),
            gauge("spandrel_live_large_bytes", "Of these, in large blocks", self.live_large),
            gauge("spandrel_cached_bytes", "Free in thread caches", self.cached),
            gauge("spandrel_transfer_bytes", "Free, between threads", self.in_transfer),
            gauge(
                "spandrel_span_free_bytes",
                "Free objects and tails in spans",
                self.free_in_spans,
            ),
            gauge("spandrel_granule_free_bytes", "Free with memory behind", self.free_granules),
            gauge("spandrel_returned_bytes", "Free without memory behind", self.returned),
            gauge("spandrel_metadata_bytes", "Mapped for records", self.metadata),
            gauge("spandrel_stranded_bytes", "Refused by the system", self.stranded),
            gauge("spandrel_limit_used_bytes", "Counted against the limits", self.limits.used),
            gauge(
                "spandrel_limit_soft_bytes",
                "The soft limit; 0: none",
                self.limits.soft.unwrap_or(0),
            ),
            gauge(
                "spandrel_limit_hard_bytes",
                "The hard limit; 0: none",
                self.limits.hard.unwrap_or(0),
            ),
            gauge("spandrel_caches", "Thread caches", floors.caches),
            gauge("spandrel_idle_caches", "Thread caches without a thread", floors.idle_caches),
            counter(
                "spandrel_limit_refusals_total",
                "Requests over the limit",
                self.limits.refusals,
            ),
            counter("spandrel_soft_crossings_total", "Soft limit crossed", self.limits.crossings),
            counter("spandrel_cache_refills_total", "Bins that ran empty", floors.cache.refills),
            counter("spandrel_cache_spills_total", "Bins that ran full", floors.cache.spills),
            counter("spandrel_transfer_hits_total", "Batches found", floors.transfer_hits()),
            counter("spandrel_transfer_misses_total", "Batches not found", floors.transfer_misses),
            counter("spandrel_transfer_refusals_total", "No room", floors.transfer_refusals),
            counter("spandrel_transfer_retries_total", "Failed exchanges", floors.transfer_retries),
            counter("spandrel_span_begun_total", "Spans begun", floors.span.begun),
            counter("spandrel_span_ended_total", "Spans returned", floors.span.died),
            counter("spandrel_span_retries_total", "Failed exchanges", floors.span.retries),
            counter("spandrel_page_takes_total", "Runs taken", floors.page.takes),
            counter("spandrel_page_gives_total", "Runs given back", floors.page.gives),
            counter("spandrel_page_retries_total", "Failed exchanges", floors.page_retries),
            counter("spandrel_purged_bytes_total", "Returned", floors.page.purged as u64),
            counter("spandrel_shed_bytes_total", "Returned inside spans", floors.page.shed),
            counter(
                "spandrel_refaulted_bytes_total",
                "Returned and taken again",
                self.refaulted as u64,
            ),
            counter("spandrel_collapses_total", "Hugepages mended", floors.page.collapses),
            counter("spandrel_os_maps_total", "Calls of mmap", floors.os.maps),
            counter("spandrel_os_unmaps_total", "Calls of munmap", floors.os.unmaps),
            counter("spandrel_os_purges_total", "Calls that return memory", floors.os.purges),
            counter("spandrel_os_remaps_total", "Calls of mremap", floors.os.remaps),
            counter("spandrel_os_advices_total", "Calls that ask for hugepages", floors.os.advices),
            counter("spandrel_os_failures_total", "Calls that failed", floors.os.failures),
            counter("spandrel_os_nanoseconds_total", "Time in all calls", floors.os.nanos),
        ]
        .into_iter()
    }
}

/// A snapshot as the text that Prometheus reads (`text/plain; version=0.0.4`), and what is put down to each
/// [`tag`](crate::tag) at the moment of writing.
#[cfg(feature = "prometheus")]
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a>(pub &'a Stats);

#[cfg(feature = "prometheus")]
impl core::fmt::Display for Prometheus<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for Series { name, help, kind, value } in self.0.series() {
            let kind = if kind == Kind::Gauge { "gauge" } else { "counter" };
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")?;
        }
        for ClassSeries { name, help, value } in &CLASS_SERIES {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} gauge")?;
            for class in self.0.classes.iter().filter(|class| class.spans != 0) {
                writeln!(f, "{name}{{size=\"{}\"}} {}", class.size, value(class))?;
            }
        }
        let tags = super::tags::tags();
        if tags.is_empty() {
            return Ok(());
        }
        for TagSeries { name, help, value } in &TAG_SERIES {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} gauge")?;
            for tag in &tags {
                writeln!(f, "{name}{{tag=\"{}\"}} {}", escaped(&tag.name), value(tag))?;
            }
        }
        Ok(())
    }
}

/// A label's value as Prometheus reads it.
#[cfg(feature = "prometheus")]
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Hands a snapshot, and what is put down to each [`tag`](crate::tag) now, to the recorder of the `metrics`
/// crate.
#[cfg(feature = "metrics")]
pub fn publish(stats: &Stats) {
    for Series { name, kind, value, .. } in stats.series() {
        match kind {
            Kind::Gauge => metrics::gauge!(name).set(value as f64),
            Kind::Counter => metrics::counter!(name).absolute(value),
        }
    }
    for class in stats.classes.iter().filter(|class| class.spans != 0) {
        for ClassSeries { name, value, .. } in &CLASS_SERIES {
            metrics::gauge!(*name, "size" => class.size.to_string()).set(value(class));
        }
    }
    for tag in super::tags::tags() {
        for TagSeries { name, value, .. } in &TAG_SERIES {
            metrics::gauge!(*name, "tag" => tag.name.clone()).set(value(&tag) as f64);
        }
    }
}
