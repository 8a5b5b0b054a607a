//! A window: 1 GiB of aligned address space and all that is known of it, apart from it.
//!
//! Every hugepage is one word of free granules; whole free hugepages are bits of the window's map.
//! A granule is in exactly one place: its bit is set in its hugepage's word, or its hugepage's bit
//! is set in the map (then the word is 0), or someone holds it. Claiming is one compare-and-swap
//! that clears bits, giving back is one `fetch_or` that sets them, and whoever turns a word from all
//! ones to zero, and nobody else, promotes that hugepage into the map.
//!
//! # Orderings
//! A give releases (`fetch_or`), a claim acquires (compare-and-swap): what the last holder wrote,
//! to the memory or to the metadata, is visible to the next. A promotion does both: it acquires what
//! all givers of the hugepage released and releases it through the map.
//!
//! Here are the records and the granules of one hugepage; `whole` are whole hugepages, `ranges` runs over
//! several, `view` what the release policy and the reports see.

mod ranges;
mod view;
mod whole;

pub use view::HugepageView;

use crate::base::classes::{Class, Use};
use crate::base::death;
use crate::base::hints::Hints;
use crate::base::seed::{self, Seed};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{AtomicU16, AtomicU32, AtomicU64, Tally, UnsafeCell};
use crate::base::units::*;
use crate::page::hugepage::{has, merged, orders, pick};

const HINT_LEAVES: usize = HUGEPAGES_PER_WINDOW.div_ceil(64);

/// The metadata of one window; `M` is what the floor above keeps beside it.
#[derive(Debug)]
pub struct Window<M> {
    /// Which window of the address space this is. Constant once published.
    number: UnsafeCell<usize>,
    /// Free granules per hugepage, 1 = free. Any thread.
    free: [AtomicU64; HUGEPAGES_PER_WINDOW],
    /// Granules that may hold something other than zeros. Only the holder of a granule touches its
    /// bit, so the words are shared but no bit is.
    dirty: [AtomicU64; HUGEPAGES_PER_WINDOW],
    /// Granules that were returned to the system at least once. As `dirty`.
    returned: [AtomicU64; HUGEPAGES_PER_WINDOW],
    /// Whole free hugepages, 1 = free. Any thread.
    map: [AtomicU64; MAP_WORDS],
    /// Hugepages that are ours, free or not; bits are only ever added. Any thread.
    ours: [AtomicU64; MAP_WORDS],
    /// Per grain and order: which hugepages probably have a maximal free run of it.
    orders: [[Hints<1, HINT_LEAVES>; HUGEPAGE_ORDER as usize]; GRAINS],
    /// The grain a hugepage was begun for, 1 = sparse. Written by who begins it, before its granules
    /// are anybody's.
    sparse: [AtomicU64; MAP_WORDS],
    /// When the last granule of a hugepage came home, in milliseconds (wrapping). Written by who gives.
    freed_at: [AtomicU32; HUGEPAGES_PER_WINDOW],
    /// Granules of the block that starts here, if it is large or has a mapping of its own. Only its
    /// holder.
    lengths: [AtomicU32; GRANULES_PER_WINDOW],
    /// Granules at which the last block was handed out zeroed. Only the holder of a granule touches its
    /// bit.
    watched: [AtomicU64; HUGEPAGES_PER_WINDOW],
    /// The class word of each granule, see [`Use`]. Written by the holder of the granule.
    uses: [AtomicU16; GRANULES_PER_WINDOW],
    /// Hugepages of which a part was returned, so that the system holds them in small pages. Any thread.
    broken: [AtomicU64; MAP_WORDS],
    /// 1 once the system was asked for a hugepage here. Any thread; asking twice does no harm.
    advised: [AtomicU64; MAP_WORDS],
    /// Exchanges that another thread made fail.
    pub retries: Tally,
    /// What the floor above knows of this window's granules.
    pub above: M,
}

// SAFETY: all fields are atomics but `number`, which is written before the window is published and
// only read afterwards; `M` answers for itself.
unsafe impl<M: Sync> Sync for Window<M> {}

// SAFETY: atomics, hints of atomics and a number; zero is the state of a window that owns nothing.
unsafe impl<M: crate::os::Zeroed> crate::os::Zeroed for Window<M> {
    #[cfg(spandrel_model)]
    fn zeroed() -> Self {
        Self::new(M::zeroed())
    }
}

/// What a run is for, as far as the page heap cares. Runs of one grain are kept together, so that a
/// hugepage is put only behind memory that will be used all over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Objects of a page or less: once some are in use, every page is. And blocks that are long enough to
    /// pay for hugepages by themselves.
    Fine = 0,
    /// Larger objects and short blocks, whose pages may never all be touched.
    Sparse = 1,
}

const GRAINS: usize = 2;

/// Granules of a block from which it is put where the hugepages are: 256 KiB.
const LONG: usize = 8;

impl Grain {
    /// That of a block of `count` granules.
    pub const fn of_block(count: usize) -> Self {
        if count >= LONG { Grain::Fine } else { Grain::Sparse }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Grain::Fine => Grain::Sparse,
            Grain::Sparse => Grain::Fine,
        }
    }
}

/// What a claim found behind a hint.
enum Claim {
    At(u32),
    /// The hint is wrong.
    Stale,
    /// The hint is right, but nothing there will do.
    Unfit,
}

impl<M> Window<M> {
    const_fn! {
        /// A window that owns nothing; all zero bits if `above` is.
        pub fn new(above: M) -> Self {
            Self {
                number: UnsafeCell::new(0),
                free: array![AtomicU64::new(0); HUGEPAGES_PER_WINDOW],
                dirty: array![AtomicU64::new(0); HUGEPAGES_PER_WINDOW],
                returned: array![AtomicU64::new(0); HUGEPAGES_PER_WINDOW],
                map: array![AtomicU64::new(0); MAP_WORDS],
                ours: array![AtomicU64::new(0); MAP_WORDS],
                orders: array![array![Hints::new(); HUGEPAGE_ORDER as usize]; GRAINS],
                sparse: array![AtomicU64::new(0); MAP_WORDS],
                freed_at: array![AtomicU32::new(0); HUGEPAGES_PER_WINDOW],
                lengths: array![AtomicU32::new(0); GRANULES_PER_WINDOW],
                watched: array![AtomicU64::new(0); HUGEPAGES_PER_WINDOW],
                uses: array![AtomicU16::new(0); GRANULES_PER_WINDOW],
                broken: array![AtomicU64::new(0); MAP_WORDS],
                advised: array![AtomicU64::new(0); MAP_WORDS],
                retries: Tally::new(),
                above,
            }
        }
    }

    /// Says which window this is, before it is published.
    pub(in crate::page) fn set_number(&self, number: usize) {
        // SAFETY: the caller has not published the window yet, so nobody else can reach the cell.
        self.number.with_mut(|n| unsafe { *n = number });
    }

    /// The address of its first byte.
    #[inline]
    pub fn base(&self) -> usize {
        // SAFETY: written before publication only, and the caller has the window by publication.
        self.number.with(|n| unsafe { *n }) << WINDOW_SHIFT
    }

    /// The address of a granule.
    #[inline]
    pub fn address(&self, granule: Granule) -> usize {
        self.base() + (granule.index() << GRANULE_SHIFT)
    }

    /// What the granule is used for.
    #[inline]
    pub fn usage(&self, granule: Granule) -> Use {
        Use::unpack(self.uses[granule.index()].load(Relaxed))
    }

    /// Whether the granule is part of a span of this class.
    #[inline]
    pub fn serves(&self, granule: Granule, class: Class) -> bool {
        self.uses[granule.index()].load(Relaxed) == Use::Span(class).pack()
    }

    /// Where its class words begin: one a granule, as [`Use::pack`] makes it.
    #[cfg(not(spandrel_model))]
    pub(in crate::page) const WORDS: usize = core::mem::offset_of!(Self, uses);

    /// Notes what `count` granules that the caller holds are used for.
    pub fn set_usage(&self, first: Granule, count: usize, usage: Use) {
        for word in &self.uses[first.index()..first.index() + count] {
            word.store(usage.pack(), Relaxed);
        }
    }

    /// Takes the mark of a block off its first granule: true for exactly one caller.
    pub fn unmark(&self, first: Granule, usage: Use) -> bool {
        let word = &self.uses[first.index()];
        if seed::on(Seed::UnmarkByStore) {
            let marked = word.load(Relaxed) == usage.pack();
            word.store(Use::None.pack(), Relaxed);
            return marked;
        }
        word.compare_exchange(usage.pack(), Use::None.pack(), Relaxed, Relaxed).is_ok()
    }

    /// The length noted for the block that starts here, in granules.
    pub fn length(&self, first: Granule) -> usize {
        self.lengths[first.index()].load(Relaxed) as usize
    }

    pub(in crate::page) fn set_length(&self, first: Granule, granules: usize) {
        self.lengths[first.index()].store(granules as u32, Relaxed);
    }

    /// Whether the block that began at this granule last was handed out zeroed.
    pub(in crate::page) fn watched(&self, first: Granule) -> bool {
        self.watched[first.hugepage().index()].load(Relaxed) & (1 << first.bit()) != 0
    }

    /// Notes whether the block that begins at this granule is handed out zeroed.
    pub(in crate::page) fn set_watched(&self, first: Granule, watched: bool) {
        let word = &self.watched[first.hugepage().index()];
        if self.watched(first) != watched {
            word.fetch_xor(1 << first.bit(), Relaxed);
        }
    }

    // ---- granules of one hugepage ----

    /// Claims `count` granules at a multiple of 2^order in some hugepage of this grain that is in use
    /// already; of `used` only such as have memory behind them. `count <= 1 << order`,
    /// `order < HUGEPAGE_ORDER`.
    pub(in crate::page) fn claim_granules(
        &self,
        grain: Grain,
        order: u32,
        count: usize,
        used: bool,
    ) -> Option<Granule> {
        for hinted in order..HUGEPAGE_ORDER {
            let hints = &self.orders[grain as usize][hinted as usize];
            let mut from = 0;
            while let Some(index) = hints.first(from) {
                let hugepage = Hugepage(index as u32);
                match self.claim_in(hugepage, order, hinted, count, used) {
                    Claim::At(bit) => return Some(hugepage.granule(bit)),
                    Claim::Unfit => {}
                    Claim::Stale => hints.remove(index, || {
                        // Removing has acquired what made the hint true.
                        has(self.free[index].load(Relaxed), hinted)
                    }),
                }
                from = index + 1;
            }
        }
        None
    }

    /// Claims in one hugepage while it has a maximal run of order `hinted`.
    fn claim_in(
        &self,
        hugepage: Hugepage,
        order: u32,
        hinted: u32,
        count: usize,
        used: bool,
    ) -> Claim {
        let word = &self.free[hugepage.index()];
        let mut old = word.load(Relaxed);
        loop {
            if !has(old, hinted) {
                return Claim::Stale;
            }
            let fit = if used { old & self.dirty[hugepage.index()].load(Relaxed) } else { old };
            let Some(bit) = pick(fit, order) else {
                return Claim::Unfit;
            };
            let new = old & !bit_range(bit, count);
            if seed::on(Seed::ClaimByStore) {
                word.store(new, Relaxed);
                return Claim::At(bit);
            }
            match word.compare_exchange_weak(old, new, Acquire, Relaxed) {
                Ok(_) => {
                    // A maximal run that is claimed whole leaves no new one behind.
                    if count != 1 << order || merged(old, bit, order) != order {
                        self.hint_new_orders(hugepage, old, new);
                    }
                    return Claim::At(bit);
                }
                Err(now) => {
                    self.retries.note();
                    old = now;
                }
            }
        }
    }

    /// Claims without hints, wherever a fitting run is: the last resort before the answer is no.
    pub(in crate::page) fn claim_anywhere(&self, order: u32, count: usize) -> Option<Granule> {
        for index in 0..HUGEPAGES_PER_WINDOW {
            let hugepage = Hugepage(index as u32);
            let word = self.free[index].load(Relaxed);
            if word == WHOLE {
                self.promote(hugepage);
                continue;
            }
            let Some(hinted) = (order..HUGEPAGE_ORDER).find(|o| orders(word) & (1 << o) != 0)
            else {
                continue;
            };
            if let Claim::At(bit) = self.claim_in(hugepage, order, hinted, count, false) {
                return Some(hugepage.granule(bit));
            }
        }
        None
    }

    /// Gives granules of one hugepage back. Dies if one of them is free already.
    pub(in crate::page) fn give_granules(&self, hugepage: Hugepage, mask: u64, now: u32) {
        let word = &self.free[hugepage.index()];
        self.freed_at[hugepage.index()].store(now, Relaxed);
        let old = word.fetch_or(mask, seed::weaken(Seed::GranulesRelaxed, Release));
        if old & mask != 0 {
            let first = hugepage.granule((old & mask).trailing_zeros());
            death::double_free(self.address(first));
        }
        if old | mask == WHOLE {
            self.promote(hugepage);
        } else {
            self.hint_given(hugepage, old, mask);
        }
    }

    /// The hints after a run was given back: of a buddy, only the run that it has become is new.
    fn hint_given(&self, hugepage: Hugepage, old: u64, mask: u64) {
        if mask == 0 {
            return;
        }
        let first = mask.trailing_zeros();
        let order = (mask >> first).trailing_ones().ilog2();
        if mask != bit_range(first, 1 << order) || !first.is_multiple_of(1 << order) {
            return self.hint_new_orders(hugepage, old, old | mask);
        }
        let order = merged(old | mask, first, order);
        let hints = self.orders[self.grain(hugepage) as usize].get(order as usize);
        if let Some(hints) = hints
            && !has(old, order)
        {
            hints.insert(hugepage.index());
        }
    }

    /// Moves a hugepage whose granules are all free into the map, unless someone claims first.
    fn promote(&self, hugepage: Hugepage) {
        let word = &self.free[hugepage.index()];
        if seed::on(Seed::PromoteByStore) {
            word.store(0, Release);
        } else {
            let acquire = seed::weaken(Seed::PromoteRelaxed, Acquire);
            if word.compare_exchange(WHOLE, 0, acquire, Relaxed).is_err() {
                return;
            }
        }
        self.set_map(hugepage.index(), 1);
    }

    fn hint_new_orders(&self, hugepage: Hugepage, old: u64, new: u64) {
        let mut fresh = orders(new) & !orders(old) & ((1 << HUGEPAGE_ORDER) - 1);
        let hints = &self.orders[self.grain(hugepage) as usize];
        while fresh != 0 {
            hints[fresh.trailing_zeros() as usize].insert(hugepage.index());
            fresh &= fresh - 1;
        }
    }

    /// What the hugepage was begun for. Relaxed: it changes only while the hugepage is in one hand,
    /// and who holds or held granules of it since has acquired that hand's release.
    pub fn grain(&self, hugepage: Hugepage) -> Grain {
        let (word, bit) = bit_of(&self.sparse, hugepage);
        if word.load(Relaxed) & bit != 0 { Grain::Sparse } else { Grain::Fine }
    }

    /// Notes what a hugepage that the caller has claimed whole is begun for.
    pub(in crate::page) fn begin(&self, hugepage: Hugepage, grain: Grain) {
        if self.grain(hugepage) == grain {
            return;
        }
        let (word, bit) = bit_of(&self.sparse, hugepage);
        match grain {
            Grain::Sparse => word.fetch_or(bit, Relaxed),
            Grain::Fine => word.fetch_and(!bit, Relaxed),
        };
    }

    /// Sets the hints of a hugepage, or promotes it: whoever should have is gone.
    pub(in crate::page) fn hint_again(&self, hugepage: Hugepage) {
        match self.free[hugepage.index()].load(Acquire) {
            WHOLE => self.promote(hugepage),
            word => self.hint_new_orders(hugepage, 0, word),
        }
    }

    /// An address that is the start of no block was freed: dies by the name that fits.
    #[cold]
    pub fn not_a_block(&self, addr: usize) -> ! {
        let granule = Granule::of(addr);
        if !self.owns(granule.hugepage()) {
            // A mapping that began here has left its length.
            if addr.is_multiple_of(GRANULE) && self.length(granule) != 0 {
                death::double_free(addr)
            }
            death::foreign_free(addr)
        }
        if self.look(granule.hugepage()).free & (1 << granule.bit()) != 0 {
            death::double_free(addr)
        }
        death::invalid_free(addr)
    }
}

/// The runs of set bits of a word, lowest first: first bit and length.
pub(in crate::page) fn runs(mut word: u64) -> impl Iterator<Item = (u32, usize)> {
    core::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            let run = (word >> bit).trailing_ones() as usize;
            word &= !bit_range(bit, run);
            (bit, run)
        })
    })
}

/// The word and the bit of a hugepage in one of the window's maps.
fn bit_of(words: &[AtomicU64; MAP_WORDS], hugepage: Hugepage) -> (&AtomicU64, u64) {
    let index = hugepage.index();
    (&words[index / HUGEPAGES_PER_MAP_WORD], 1 << (index % HUGEPAGES_PER_MAP_WORD))
}
#[cfg(all(test, not(spandrel_model)))]
mod tests {
    use super::ranges::{Part, parts};
    use super::*;

    /// A window of its own, all of it ours and free. Built where there is room for its tables.
    fn window() -> Box<Window<()>> {
        let build = || {
            let window = Box::new(Window::new(()));
            window.add(Hugepage(0), HUGEPAGES_PER_WINDOW);
            window
        };
        std::thread::Builder::new().stack_size(16 << 20).spawn(build).unwrap().join().unwrap()
    }

    #[test]
    fn exactly_these_granules_or_none() {
        let window = window();
        let all = window.check().unwrap();
        assert_eq!(all, GRANULES_PER_WINDOW);
        // From the middle of one hugepage, over two whole ones, into a fourth.
        let (first, count) = (Hugepage(3).granule(40), 24 + 2 * 64 + 10);
        assert!(window.claim_exactly(first, count, 0));
        assert_eq!(window.check().unwrap(), all - count);
        assert!(!window.claim_exactly(first, 1, 0) && !window.claim_exactly(first, count, 0));
        // The last granule is taken: all of the others come back, wherever they were.
        let before = Hugepage(1).granule(7);
        let reach = first.index() - before.index() + 1;
        assert!(!window.claim_exactly(before, reach, 0));
        assert_eq!(window.check().unwrap(), all - count);
        assert!(window.claim_exactly(before, reach - 1, 0));
        window.give(before, reach - 1 + count, 0);
        assert_eq!(window.check().unwrap(), all);
        assert!((0..HUGEPAGES_PER_WINDOW as u32).all(|h| window.look(Hugepage(h)).whole));
    }

    #[test]
    fn whole_hugepages_lowest_first_and_aligned() {
        let window = window();
        assert_eq!(window.claim_hugepages(0, 1), Some(Hugepage(0)));
        assert_eq!(window.claim_hugepages(2, 3), Some(Hugepage(4)));
        // The tail of the three, and what alignment left in front of them.
        let singles: Vec<_> = (0..4).filter_map(|_| window.claim_hugepages(0, 1)).collect();
        assert_eq!(singles, [Hugepage(1), Hugepage(7), Hugepage(2), Hugepage(3)]);
        assert_eq!(window.claim_hugepages(6, 64), Some(Hugepage(64)));
        assert!(!window.claim_hugepage(Hugepage(127)) && window.claim_hugepage(Hugepage(128)));
    }

    #[test]
    fn soil_tells_what_was_touched() {
        let window = window();
        let (first, count) = (Hugepage(1).granule(60), 4 + 64 + 3);
        assert!(window.claim_exactly(first, count, 0));
        assert_eq!(window.soil(first, count, |_, _| {}), count, "fresh");
        assert_eq!(window.soil(Hugepage(3).granule(2), 1, |_, _| {}), 0, "the last of them");
        assert_eq!(window.soil(Hugepage(3).granule(3), 1, |_, _| {}), 1, "the first behind them");
        assert_eq!(window.soil(Hugepage(1).granule(59), 2, |_, _| {}), 1, "one clean, one not");
        assert_eq!(window.cleanse(Hugepage(2), WHOLE), 64);
        assert_eq!(window.soil(Hugepage(2).granule(0), 64, |_, _| {}), 64);
        assert_eq!(window.cleanse(Hugepage(2), 0b110), 2);
        let mut dirty = Vec::new();
        assert_eq!(window.soil(Hugepage(2).granule(0), 64, |at, run| dirty.push((at, run))), 2);
        assert_eq!(dirty, [(Hugepage(2).granule(0), 1), (Hugepage(2).granule(3), 61)]);
    }

    /// The last resort does not need the hints, and finds what they do not name.
    #[test]
    fn granules_are_found_without_hints() {
        let window = window();
        while window.claim_hugepages(6, 64).is_some() {}
        window.free[300].store(0b1100, Relaxed);
        assert_eq!(window.claim_granules(Grain::Fine, 1, 2, false), None, "no hint was set");
        assert_eq!(window.claim_anywhere(2, 3), None);
        assert_eq!(window.claim_anywhere(1, 2), Some(Hugepage(300).granule(2)));
        assert_eq!(window.claim_anywhere(0, 1), None);
        // A whole hugepage that never reached the map, as a thread that stopped would leave it.
        window.free[301].store(WHOLE, Relaxed);
        assert_eq!(window.claim_anywhere(0, 1), None);
        assert_eq!(window.claim_hugepages(0, 1), Some(Hugepage(301)));
    }

    /// More hugepages than the buddy of an alignment has: every one of them must be free, also those behind
    /// the buddy and those of the next word.
    #[test]
    fn longer_than_its_alignment() {
        let window = window();
        // In the way of six from 0 on, and of six from 2 on.
        assert!(window.claim_hugepage(Hugepage(5)));
        assert_eq!(window.claim_hugepages(1, 6), Some(Hugepage(6)));
        // Over the words of the map, at a multiple of four.
        assert!(window.claim_run(12, 48));
        assert_eq!(window.claim_hugepages(2, 9), Some(Hugepage(60)));
        assert_eq!(window.claim_hugepages(2, 5), Some(Hugepage(0)));
        assert_eq!(window.claim_hugepages(2, 5), Some(Hugepage(72)));
        assert_eq!(window.claim_hugepages(6, 65), Some(Hugepage(128)));
    }

    #[test]
    fn parts_cover_a_range_without_overlap() {
        for first in [0, 1, 63, 64, 100] {
            for count in [1, 2, 63, 64, 65, 128, 200, 1000] {
                let mut seen = Vec::new();
                for part in parts(Granule(first), count) {
                    match part {
                        Part::Whole(hugepage, n) => {
                            seen.extend((0..n as u32 * 64).map(|i| hugepage.0 * 64 + i));
                        }
                        Part::Some(hugepage, mask) => {
                            assert!(mask != WHOLE, "a whole hugepage is named as one");
                            seen.extend(
                                (0..64)
                                    .filter(|b| mask & (1 << b) != 0)
                                    .map(|b| hugepage.0 * 64 + b),
                            );
                        }
                    }
                }
                let wanted: Vec<_> = (first..first + count as u32).collect();
                assert_eq!(seen, wanted);
            }
        }
    }
}
