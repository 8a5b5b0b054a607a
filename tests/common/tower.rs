//! The floors on the fake system, and a hand that works them.

use super::{MIB, ledger};
use spandrel::base::classes::Class;
use spandrel::cache::{Caches, ThreadCache};
use spandrel::os::fake::Fake;
use spandrel::page::PageHeap;
use spandrel::span::{SpanTable, Spans};
use spandrel::transfer::Transfer;
use std::thread;

/// The whole building, on a system that does as it is told.
pub type Tower = Caches<Transfer<Spans<Fake>>>;

/// A new tower, which stands for ever. It is megabytes large, so it is built on a stack with room.
pub fn tower(page_size: usize) -> &'static Tower {
    let build = move || {
        let pages = PageHeap::new(Fake::new(page_size));
        &*Box::leak(Box::new(Caches::new(Transfer::new(Spans::new(pages)))))
    };
    let built = thread::Builder::new().stack_size(64 * MIB).spawn(build);
    built.expect("a thread").join().expect("a tower")
}

pub fn spans(tower: &Tower) -> &Spans<Fake> {
    tower.below().below()
}

pub fn pages(tower: &Tower) -> &PageHeap<Fake, SpanTable> {
    spans(tower).pages()
}

pub fn fake(tower: &Tower) -> &Fake {
    pages(tower).os()
}

/// The page sizes of the systems it must run on.
pub const PAGE_SIZES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

/// A thread's cache in a tower, and its use as the front uses it.
pub struct Hand {
    pub tower: &'static Tower,
    pub cache: &'static ThreadCache,
}

/// An object that is held, entered in the ledger, with a word of its own at both ends.
#[derive(Debug)]
pub struct Object {
    pub class: Class,
    at: *mut u8,
}

// SAFETY: plain memory with one holder.
unsafe impl Send for Object {}

impl Hand {
    pub fn new(tower: &'static Tower) -> Self {
        Self { tower, cache: tower.adopt().expect("memory for a cache") }
    }

    pub fn take(&self, class: Class) -> Option<Object> {
        // SAFETY: this hand owns the cache.
        let at = unsafe { self.cache.bin(class).pop() };
        let at = at.unwrap_or_else(|| self.tower.refill(self.cache, class));
        (!at.is_null()).then(|| Object::new(class, at))
    }

    pub fn give(&self, object: Object) {
        let class = object.class;
        let at = object.let_go();
        // SAFETY: this hand owns the cache, and the object is given up once.
        unsafe {
            if !self.cache.bin(class).push(at) {
                self.tower.spill(self.cache, class, at);
            }
        }
    }

    /// The end of the thread: what it keeps goes below.
    pub fn retire(self) {
        self.tower.retire(self.cache);
    }
}

impl Object {
    /// One that was just handed out.
    #[track_caller]
    pub fn new(class: Class, at: *mut u8) -> Self {
        let addr = at.addr();
        assert_eq!((addr & (class.span_bytes() - 1)) % class.size(), 0, "{at:?} for {class:?}");
        if let Err(twice) = ledger::claim(addr, class.size()) {
            panic!("{at:?} for {class:?}: {twice:#x} is held already");
        }
        let object = Self { class, at };
        for end in object.ends() {
            // SAFETY: within the object, and every address is a multiple of 8.
            unsafe { end.write(addr as u64 ^ MARK) };
        }
        object
    }

    #[track_caller]
    pub fn check(&self) {
        for end in self.ends() {
            // SAFETY: as in `new`.
            let found = unsafe { end.read() };
            assert_eq!(found, self.at.addr() as u64 ^ MARK, "{self:?} was written to");
        }
    }

    pub fn addr(&self) -> usize {
        self.at.addr()
    }

    /// Checked and out of the ledger: for whoever gives it back.
    #[track_caller]
    pub fn let_go(self) -> *mut u8 {
        self.check();
        ledger::release(self.addr(), self.class.size()).expect("it was held");
        self.at
    }

    fn ends(&self) -> [*mut u64; 2] {
        let first = self.at.cast::<u64>();
        [first, first.wrapping_add(self.class.size() / 8 - 1)]
    }
}

const MARK: u64 = 0x0b1e_c7ed_5eed_0123;
