//! Attribution: how much of the heap is whose.
//!
//! ```
//! # #[global_allocator] static A: spandrel::Spandrel = spandrel::Spandrel;
//! spandrel::count_tags(true);
//! let tenant = spandrel::tag("tenant-a");
//! let kept = {
//!     let _scope = tenant.enter();
//!     vec![0u8; 5000]
//! };
//! assert_eq!(spandrel::tags().iter().find(|t| t.name == "tenant-a").unwrap().live, 5000);
//! drop(kept);
//! assert_eq!(spandrel::tags().iter().find(|t| t.name == "tenant-a").unwrap().live, 0);
//! # spandrel::count_tags(false);
//! ```

use crate::watch::{mode, tags};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A name that blocks are put down to. Made by [`tag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u16);

/// The tag with this name, of at most 120 bytes; the same name is the same tag. There is room for some
/// 65,000; further ones count as no tag. Make it once and keep it: looking a name up is not free.
pub fn tag(name: &str) -> Tag {
    Tag(tags::intern(name.as_bytes()))
}

/// Starts or stops counting what is put down to whom; that takes observed mode, in which every call of every
/// thread is somewhat slower. Started anew, all sums begin at zero unless something else keeps the ledger:
/// what was allocated before is nobody's.
pub fn count_tags(on: bool) {
    if on { mode::on(mode::TAGS) } else { mode::off(mode::TAGS) }
}

impl Tag {
    /// Puts down to this tag what the running thread allocates from now on, until the guard is dropped; then
    /// the tag before it is the thread's again.
    pub fn enter(self) -> Entered {
        Entered { before: tags::set(self.0), here: PhantomData }
    }

    /// Puts down to this tag what `future` allocates while it is polled, on whatever thread that is.
    pub fn wrap<F>(self, future: F) -> Tagged<F> {
        Tagged { tag: self, future }
    }
}

/// The running thread has a tag as long as this lives.
#[derive(Debug)]
#[must_use = "the tag is taken away again when this is dropped"]
pub struct Entered {
    before: u16,
    /// A thread's own.
    here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        tags::set(self.before);
    }
}

/// A future whose allocations are put down to a tag. Made by [`Tag::wrap`].
#[derive(Debug)]
pub struct Tagged<F> {
    tag: Tag,
    future: F,
}

impl<F: Future> Future for Tagged<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _scope = self.tag.enter();
        // SAFETY: the future is not moved out of what is pinned, and has no other access.
        unsafe { self.map_unchecked_mut(|tagged| &mut tagged.future) }.poll(context)
    }
}

/// What is put down to one tag, since its counting was started.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagStats {
    /// Its name.
    pub name: String,
    /// Bytes in use, as they were asked for.
    pub live: usize,
    /// Blocks in use.
    pub blocks: usize,
    /// The most bytes that were ever in use.
    pub peak: usize,
}

/// What is put down to each tag, the most in use first. Exact while counting is on, of blocks that no call of
/// another thread is just about to take or give.
pub fn tags() -> Vec<TagStats> {
    let mut all = Vec::with_capacity(64);
    tags::each(|held| {
        all.push(TagStats {
            name: name(held.tag).unwrap_or_default(),
            live: held.bytes,
            blocks: held.blocks,
            peak: held.peak,
        });
    });
    all.sort_by(|a, b| b.live.cmp(&a.live).then_with(|| a.name.cmp(&b.name)));
    all
}

/// A tag's name.
pub(super) fn name(tag: u16) -> Option<String> {
    let mut bytes = [0; tags::LONGEST];
    let length = tags::name(tag, &mut bytes)?;
    Some(String::from_utf8_lossy(&bytes[..length.min(bytes.len())]).into_owned())
}
