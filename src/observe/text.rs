//! A snapshot as text.

use super::snapshot::Stats;
use core::fmt;

/// A size in bytes for people; a width pads the number.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..1024 => ("B  ", 0),
            1024..1_048_576 => ("KiB", 10),
            1_048_576..1_073_741_824 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        let number = self.0 as f64 / (1u64 << shift) as f64;
        write!(f, "{number:width$.1} {unit}", width = f.width().unwrap_or(0))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("live", self.live, "held by the program"),
            ("cached", self.cached, "free in thread caches"),
            ("in transfer", self.in_transfer, "free, between threads"),
            ("free in spans", self.free_in_spans, "free objects and tails"),
            ("free granules", self.free_granules, "free, with memory behind"),
            ("returned", self.returned, "free, never touched or given back"),
            ("metadata", self.metadata, "the allocator's own, as mapped"),
            ("stranded", self.stranded, "refused by the system"),
        ];
        writeln!(f, "spandrel: where {} of address space are", Bytes(self.mapped))?;
        for (name, bytes, what) in parts {
            writeln!(f, "  {name:<14}{:8}  {what}", Bytes(bytes))?;
        }
        let difference = self.accounted() as i128 - self.mapped as i128;
        writeln!(f, "  {:<14}{:8}  off by {difference} B", "sum", Bytes(self.accounted()))?;

        let floors = &self.floors;
        writeln!(f, "floors")?;
        writeln!(
            f,
            "  caches        {} ({} idle), {} refills of {:.1} objects, {} spills of {:.1}, {} sweeps",
            floors.caches,
            floors.idle_caches,
            floors.cache.refills,
            mean(floors.cache.refilled, floors.cache.refills),
            floors.cache.spills,
            mean(floors.cache.spilled, floors.cache.spills),
            floors.cache.sweeps
        )?;
        writeln!(
            f,
            "  transfer      {} hits, {} misses, {} refusals, {} retries",
            floors.transfer_hits(),
            floors.transfer_misses,
            floors.transfer_refusals,
            floors.transfer_retries
        )?;
        writeln!(
            f,
            "  spans         {} begun, {} ended, {} last resorts, {} retries",
            floors.span.begun, floors.span.died, floors.span.last_resorts, floors.span.retries
        )?;
        writeln!(
            f,
            "  page heap     {} takes, {} gives, {} windows, {} blocks with a mapping of their own, {} retries",
            floors.page.takes,
            floors.page.gives,
            floors.windows,
            floors.page.huge_blocks,
            floors.page_retries
        )?;
        writeln!(
            f,
            "  returned      {} in all, {} of it taken again, {} inside spans, {} hugepages mended",
            Bytes(floors.page.purged),
            Bytes(self.refaulted),
            Bytes(floors.page.shed as usize),
            floors.page.collapses
        )?;
        writeln!(
            f,
            "  system        {} maps, {} unmaps, {} purges, {} remaps, {} failures, {:.1} ms in all",
            floors.os.maps,
            floors.os.unmaps,
            floors.os.purges,
            floors.os.remaps,
            floors.os.failures,
            floors.os.nanos as f64 / 1e6
        )?;
        writeln!(
            f,
            "classes  size      live    cached  in transfer  free in spans  spans  occupancy  fragmentation"
        )?;
        for class in self.classes.iter().filter(|class| class.spans != 0) {
            writeln!(
                f,
                "        {:5} {:9} {:9} {:12} {:14} {:6} {:9.1}% {:13.1}%",
                class.size,
                class.live,
                class.cached,
                class.in_transfer,
                class.free_in_spans,
                class.spans,
                class.occupancy() * 100.0,
                class.fragmentation() * 100.0
            )?;
        }
        Ok(())
    }
}

fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}
