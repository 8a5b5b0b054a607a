//! A memory control group for one process: made, joined, read and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, bail};

/// Removed when it is dropped.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    /// The file that tells the most it was ever charged.
    peak: &'static str,
}

impl Group {
    /// One below the root that allows `bytes` of memory and no swap: of version 1 where that has the memory
    /// controller, else of version 2.
    ///
    /// # Errors
    /// When the system has no memory controller or does not let this process make groups.
    pub fn make(bytes: usize) -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("spandrel-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let old = Path::new("/sys/fs/cgroup/memory");
        let new = Path::new("/sys/fs/cgroup");
        let has_memory = fs::read_to_string(new.join("cgroup.subtree_control"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|it| it == "memory"));
        let (root, peak, limit, swap, swap_limit) = if old.join("memory.limit_in_bytes").exists() {
            // The second limit is of memory and swap together.
            let swap = "memory.memsw.limit_in_bytes";
            (old, "memory.max_usage_in_bytes", "memory.limit_in_bytes", swap, bytes)
        } else if has_memory {
            (new, "memory.peak", "memory.max", "memory.swap.max", 0)
        } else {
            bail!("the system has no control groups of memory in /sys/fs/cgroup");
        };
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let group = Self { path, peak };
        group.write(limit, bytes)?;
        // Not there where the kernel does not account swap.
        if group.path.join(swap).exists() {
            group.write(swap, swap_limit)?;
        }
        Ok(group)
    }

    /// A command that runs `program` in it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        let enter = "echo $$ >\"$1\" && shift && exec \"$@\"";
        command.args(["-c", enter, "sh"]).arg(self.path.join("cgroup.procs")).arg(program);
        command
    }

    /// The most bytes that it was ever charged.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn peak(&self) -> Result<usize> {
        let path = self.path.join(self.peak);
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        text.trim().parse().with_context(|| format!("{} says {text}", path.display()))
    }

    fn write(&self, file: &str, value: usize) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value.to_string())
            .with_context(|| format!("cannot write {value} to {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may need a moment to see the last process gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("cannot remove {}", self.path.display());
    }
}
