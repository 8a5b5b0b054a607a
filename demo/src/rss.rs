//! What the kernel says this process cost: resident memory, processor time, page faults.

use anyhow::{Context, Result};
use procfs::process::Process;

/// Costs up to the moment it was taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// The most memory that was ever resident at once (`VmHWM`).
    pub peak_rss_kib: u64,
    /// Memory resident now (`VmRSS`).
    pub rss_kib: u64,
    /// Seconds of processor time in the program itself.
    pub user_s: f64,
    /// Seconds of processor time in the kernel on its behalf.
    pub system_s: f64,
    /// Page faults served without reading a file.
    pub minor_faults: u64,
}

impl Usage {
    /// Reads `/proc/self`.
    ///
    /// # Errors
    /// When `/proc` is not there, or not as Linux has it.
    pub fn now() -> Result<Self> {
        let process = Process::myself().context("cannot read /proc/self")?;
        let status = process.status().context("cannot read /proc/self/status")?;
        let stat = process.stat().context("cannot read /proc/self/stat")?;
        #[allow(clippy::cast_precision_loss)] // ticks of 10 ms: exact for millions of years
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        // Statistics of a kernel that keeps them lazily can show a peak below the present: the present counts too.
        let rss_kib = status.vmrss.context("no VmRSS in /proc/self/status")?;
        Ok(Self {
            peak_rss_kib: status.vmhwm.context("no VmHWM in /proc/self/status")?.max(rss_kib),
            rss_kib,
            user_s: seconds(stat.utime),
            system_s: seconds(stat.stime),
            minor_faults: stat.minflt,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_shows_up_and_goes_again() {
        let before = Usage::now().unwrap();
        let block = std::hint::black_box(vec![1_u8; 256 << 20]);
        let during = Usage::now().unwrap();
        drop(block);
        assert!(during.rss_kib >= before.rss_kib + (128 << 10), "{before:?} {during:?}");
        assert!(during.minor_faults > before.minor_faults);
        assert!(Usage::now().unwrap().peak_rss_kib >= during.rss_kib - (4 << 10));
    }
}
