//! Nodes: 512-byte records that carry a batch of object pointers, apart from the objects.
//!
//! A node is named by a 22-bit index and never unmapped, so a thread that read a stale index may
//! still look at the node it names; the head's tag tells it that it was too late.

use crate::base::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::sync::{AtomicPtr, AtomicU32, Tally, UnsafeCell};
use crate::base::units::BATCH;
use crate::os::{Os, Zeroed, metadata_bytes};
use core::num::NonZeroU32;
use core::ptr;

/// Bits of a node index; index 0 names none.
pub const INDEX_BITS: u32 = 22;
/// Nodes that are mapped at a time: 256 KiB of them.
const CHUNK: usize = if cfg!(spandrel_model) { 4 } else { 512 };
const CHUNKS: usize = if cfg!(spandrel_model) { 2 } else { (1 << INDEX_BITS) / CHUNK };

/// A batch node. `next` belongs to the stack it is on, the rest to who holds it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Node {
    /// The node below on a stack. Written by who pushes, read by anyone who may be too late.
    pub(super) next: AtomicU32,
    /// Objects it carries. Written by its holder; reports read it while they walk.
    len: AtomicU32,
    objects: UnsafeCell<[*mut u8; BATCH]>,
}

// SAFETY: `next` and `len` are atomic; `objects` is touched only through a `Batch`, of which there
// is one a node.
unsafe impl Sync for Node {}

#[cfg(not(spandrel_model))]
const _: () = assert!(core::mem::size_of::<Node>() == 512);

#[derive(Debug)]
struct Chunk([Node; CHUNK]);

// SAFETY: zero is a node that is on no stack and carries nothing.
unsafe impl Zeroed for Chunk {
    #[cfg(spandrel_model)]
    fn zeroed() -> Self {
        Self(array![
            Node {
                next: AtomicU32::new(0),
                len: AtomicU32::new(0),
                objects: UnsafeCell::new([ptr::null_mut(); BATCH]),
            };
            CHUNK
        ])
    }
}

/// Names a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(pub NonZeroU32);

/// All nodes there are.
#[derive(Debug)]
pub struct Nodes {
    /// Set once each, from the front. Any thread.
    chunks: [AtomicPtr<Chunk>; CHUNKS],
    /// Nodes made so far.
    made: AtomicU32,
    /// Chunks that came second and that the system would not take back.
    lost: Tally,
}

/// The right to one node's load: held by whoever popped or made it. Moved, never copied.
#[derive(Debug)]
#[must_use]
pub struct Batch<'a> {
    node: &'a Node,
    id: NodeId,
}

impl Nodes {
    const_fn! {
        /// No nodes yet; all zero bits.
        pub fn new() -> Self {
            Self {
                chunks: array![AtomicPtr::new(ptr::null_mut()); CHUNKS],
                made: AtomicU32::new(0),
                lost: Tally::new(),
            }
        }
    }

    /// The node with this name.
    #[inline]
    pub(super) fn node(&self, id: NodeId) -> &Node {
        let index = id.0.get() as usize - 1;
        // Relaxed: who has a name has acquired its chunk, from a stack's head or in `make`.
        let chunk = self.chunks[index / CHUNK].load(Relaxed);
        #[cfg(spandrel_model)]
        assert!(!chunk.is_null(), "a node's name is known before its chunk is");
        // SAFETY: a name is handed out after its chunk was published, and chunks are never unmapped.
        unsafe { &(*chunk).0[index % CHUNK] }
    }

    /// Has the processor fetch a node that will be used soon.
    #[cfg(not(spandrel_model))]
    #[inline]
    pub(super) fn fetch(&self, id: NodeId) {
        let node = core::ptr::from_ref(self.node(id)).cast::<u8>();
        for line in (0..core::mem::size_of::<Node>()).step_by(64) {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: a hint, which reads nothing and faults at no address.
            unsafe {
                use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(node.wrapping_add(line).cast());
            }
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            let _ = (node, line);
        }
    }

    /// The right to a node's load.
    ///
    /// # Safety
    /// The caller has just popped or made this node, so nobody else holds it.
    pub(super) unsafe fn hold(&self, id: NodeId) -> Batch<'_> {
        Batch { node: self.node(id), id }
    }

    /// Where the nodes lie, and how many bytes they have.
    pub fn each_record(&self, mut see: impl FnMut(usize, usize)) {
        for chunk in self.chunks.iter().map(|chunk| chunk.load(Acquire)) {
            if !chunk.is_null() {
                see(chunk.addr(), core::mem::size_of::<Chunk>());
            }
        }
    }

    /// A node nobody has used; `None` when the system has no memory or all names are out.
    #[cold]
    pub fn make(&self, os: &impl Os) -> Option<Batch<'_>> {
        let mut made = self.made.load(Relaxed);
        loop {
            let slot = self.chunks.get(made as usize / CHUNK)?;
            // The name 2^22 - 1 plus one would not fit.
            if made as usize + 1 >= 1 << INDEX_BITS {
                return None;
            }
            if slot.load(Acquire).is_null() {
                let fresh = os.metadata::<Chunk>()?;
                if slot.compare_exchange(ptr::null_mut(), fresh.as_ptr(), AcqRel, Acquire).is_err()
                {
                    let bytes = metadata_bytes::<Chunk>(os.page_size());
                    // SAFETY: the race is lost, so nobody has seen this chunk.
                    if !unsafe { os.unmap(fresh.cast(), bytes) } {
                        self.lost.note();
                    }
                }
            }
            match self.made.compare_exchange_weak(made, made + 1, Relaxed, Relaxed) {
                Ok(_) => {
                    let id = NodeId(NonZeroU32::new(made + 1)?);
                    // SAFETY: the exchange gave this name to this thread alone.
                    return Some(unsafe { self.hold(id) });
                }
                Err(now) => made = now,
            }
        }
    }

    /// The addresses that a node carries, for reports: its holder may write meanwhile.
    #[cfg(not(spandrel_model))]
    pub(super) fn look(&self, id: NodeId, object: &mut impl FnMut(usize)) {
        let node = self.node(id);
        node.objects.with(|objects| {
            for at in
                (0..self.len(id).min(BATCH)).map(|i| objects.cast::<*mut u8>().wrapping_add(i))
            {
                // SAFETY: inside the node, which is never unmapped; any value it ever had will do.
                object(unsafe { at.read_volatile() }.addr());
            }
        });
    }

    /// Hands every node there is to `each`, once.
    ///
    /// # Safety
    /// None is on a stack or held.
    pub(super) unsafe fn reclaim(&self, mut each: impl FnMut(Batch<'_>)) {
        for name in 1..=self.made.load(Acquire) {
            if let Some(name) = NonZeroU32::new(name) {
                // SAFETY: the caller's promise.
                each(unsafe { self.hold(NodeId(name)) });
            }
        }
    }

    /// Nodes made so far, and the bytes mapped for them.
    pub fn mapped(&self, page_size: usize) -> (u32, usize) {
        let chunks = self.chunks.iter().filter(|chunk| !chunk.load(Relaxed).is_null()).count();
        let bytes = (chunks + self.lost.get() as usize) * metadata_bytes::<Chunk>(page_size);
        (self.made.load(Relaxed), bytes)
    }

    /// Objects a node carries; out of date if somebody holds it. For reports.
    pub(super) fn len(&self, id: NodeId) -> usize {
        self.node(id).len.load(Relaxed) as usize
    }
}

impl<'a> Batch<'a> {
    /// Its name.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The node itself, for its link.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    /// Objects it carries.
    pub fn len(&self) -> usize {
        self.node.len.load(Relaxed) as usize
    }

    /// Whether it carries none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads `objects`, at most [`BATCH`], in place of what it carried.
    pub fn fill(&mut self, objects: &[*mut u8]) {
        self.node.objects.with_mut(|load| {
            // SAFETY: the batch is the only right to this load.
            unsafe { (&mut *load)[..objects.len()].copy_from_slice(objects) };
        });
        // Release: a forked child finds the load of a node with a length complete.
        self.node.len.store(objects.len() as u32, Release);
    }

    /// Unloads as many objects as fit into `out`; the rest stay. Answers how many.
    pub fn drain(&mut self, out: &mut [*mut u8]) -> usize {
        let count = self.len().min(out.len());
        let left = self.len() - count;
        self.node.objects.with(|load| {
            // SAFETY: the batch is the only right to this load.
            out[..count].copy_from_slice(unsafe { &(&*load)[left..left + count] });
        });
        self.node.len.store(left as u32, Release);
        count
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::*;
    use crate::os::fake::Fake;

    static NODES: Nodes = Nodes::new();

    fn objects(count: usize) -> Vec<*mut u8> {
        (1..=count).map(ptr::without_provenance_mut).collect()
    }

    #[test]
    fn nodes_carry_batches_and_have_names_of_their_own() {
        let os = Fake::new(4096);
        let mut nodes: Vec<_> = (0..CHUNK + 3).map(|_| NODES.make(&os).unwrap()).collect();
        let mut names: Vec<_> = nodes.iter().map(|node| node.id().0.get()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHUNK + 3);
        assert_eq!(NODES.mapped(4096), (CHUNK as u32 + 3, 2 * size_of::<Chunk>()));
        assert_eq!(os.counts().mapped, 2 * size_of::<Chunk>());

        let all = objects(BATCH);
        for node in &mut nodes {
            node.fill(&all);
        }
        let mut out = [ptr::null_mut(); BATCH];
        for node in &mut nodes {
            assert_eq!(node.len(), BATCH);
            // The last ones first; the others stay.
            assert_eq!(node.drain(&mut out[..20]), 20);
            assert_eq!((&out[..20], node.len()), (&all[BATCH - 20..], BATCH - 20));
            assert_eq!(node.drain(&mut out), BATCH - 20);
            assert_eq!(&out[..BATCH - 20], &all[..BATCH - 20]);
            assert!(node.is_empty() && node.drain(&mut out) == 0);
        }
        // Only a new chunk needs the system.
        os.fail(0, u64::MAX);
        assert!((0..CHUNK - 3).all(|_| NODES.make(&os).is_some()));
        assert!(NODES.make(&os).is_none());
        os.heal();
        assert!(NODES.make(&os).is_some());
    }
}
