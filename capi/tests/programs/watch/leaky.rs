//! Values that are lost in known places, and the same done right.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

struct Node {
    _name: String,
    next: RefCell<Option<Rc<Node>>>,
}

#[inline(never)]
fn forget_a_vector() {
    std::mem::forget(black_box(vec![7u64; 2000]));
}

/// Two that count on each other.
#[inline(never)]
fn make_a_cycle() {
    let first = Rc::new(Node { _name: "a".repeat(300), next: RefCell::new(None) });
    let second = Rc::new(Node { _name: "b".repeat(300), next: RefCell::new(Some(first.clone())) });
    *first.next.borrow_mut() = Some(second);
}

static KEPT: std::sync::OnceLock<Box<[u8]>> = std::sync::OnceLock::new();

#[inline(never)]
fn wipe() {
    black_box([0u8; 16 << 10]);
}

fn main() {
    KEPT.get_or_init(|| vec![1; 5000].into_boxed_slice());
    drop(black_box(vec![1u8; 100]));
    if std::env::args().len() == 1 {
        forget_a_vector();
        make_a_cycle();
    }
    std::thread::spawn(|| drop(black_box(vec![1u8; 100]))).join().unwrap();
    wipe();
}
