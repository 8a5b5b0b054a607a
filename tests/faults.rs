//! Every death has its name. One tiny program per fault; each runs as a child of the test that names
//! it, and must die by SIGABRT with exactly the line that says what was done to which address.
//!
//! An object that is freed wrongly is only seen where it leaves the thread's cache, so most programs
//! end with [`spandrel::purge`], which empties caches down to the spans.

mod common;

use common::{KIB, MIB, child};
use spandrel::Spandrel;
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;

#[global_allocator]
static A: Spandrel = Spandrel;

/// `fault! { name: "the message"; program }`: the program evaluates to nothing, it dies.
macro_rules! fault {
    ($(#[$doc:meta])* $name:ident: $message:literal; $program:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            if child::is(stringify!($name)) {
                // SAFETY: none; these programs break the rules, which is the point of them.
                unsafe { $program }
                println!("still alive");
                return;
            }
            dies(stringify!($name), $message);
        }
    };
}

/// Runs the child and compares its last words.
#[track_caller]
fn dies(name: &str, message: &str) {
    let output = child::run(name, &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    let address = said.lines().find_map(|line| line.split_once("blame ")).map(|(_, a)| a.trim());
    let expected = format!("spandrel: {message}: {}\n", address.unwrap_or("(no address)"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, expected, "{}\n{said}", output.status);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", output.status);
}

/// Announces the address that the death must name.
fn blame(at: *mut u8) -> *mut u8 {
    println!("blame {:#x}", at.addr());
    at
}

const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => panic!(),
    }
}

const SMALL: Layout = layout(64);
const LARGE: Layout = layout(100 * KIB);

/// An object whose span has other live objects, so that the span does not end with it.
unsafe fn object() -> *mut u8 {
    // SAFETY: a valid layout. The neighbours leak, which keeps the span alive.
    unsafe {
        let first = A.alloc(SMALL);
        A.alloc(SMALL);
        assert!(!first.is_null());
        first
    }
}

fault! {
    /// Both frees are in the batch that goes down.
    double_free_in_one_batch: "double free"; {
        let at = blame(object());
        A.dealloc(at, SMALL);
        A.dealloc(at, SMALL);
        spandrel::purge();
    }
}

fault! {
    /// The first free has reached the span when the second comes.
    double_free_after_a_flush: "double free"; {
        let at = blame(object());
        A.dealloc(at, SMALL);
        spandrel::purge();
        A.dealloc(at, SMALL);
        spandrel::purge();
    }
}

fault! {
    double_free_from_two_threads: "double free"; {
        let at = blame(object());
        let addr = at.addr();
        A.dealloc(at, SMALL);
        let other = std::thread::spawn(move || {
            let at = std::ptr::with_exposed_provenance_mut::<u8>(addr);
            A.dealloc(at, SMALL);
        });
        other.join().expect("it dies later");
        spandrel::purge();
    }
}

fault! {
    /// Nobody purges: ordinary work is what brings the two frees to the spans.
    double_free_found_by_ordinary_work: "double free"; {
        let at = blame(object());
        A.dealloc(at, SMALL);
        A.dealloc(at, SMALL);
        // Both are handed out again: the program has two owners of one object. What is freed first
        // stays in the transfer cache and what is freed last in the thread's, so they come between.
        let mut all: Vec<_> = (0..200_000).map(|_| A.alloc(SMALL)).collect();
        all.rotate_left(100_000);
        for at in all {
            A.dealloc(at, SMALL);
        }
    }
}

fault! {
    /// The span ended with the first free.
    double_free_after_the_span_has_gone: "double free"; {
        let layout = layout(30_000);
        let at = blame(A.alloc(layout));
        A.dealloc(at, layout);
        spandrel::purge();
        A.dealloc(at, layout);
        spandrel::purge();
    }
}

fault! {
    double_free_of_a_large_block: "double free"; {
        let at = blame(A.alloc(LARGE));
        A.dealloc(at, LARGE);
        A.dealloc(at, LARGE);
    }
}

fault! {
    wrong_class: "free with a size or alignment that is not the block's"; {
        let at = blame(object());
        A.dealloc(at, layout(128));
        spandrel::purge();
    }
}

fault! {
    wrong_alignment: "free with a size or alignment that is not the block's"; {
        let at = blame(object());
        A.dealloc(at, Layout::from_size_align_unchecked(64, 256));
        spandrel::purge();
    }
}

fault! {
    large_freed_as_small: "free with a size or alignment that is not the block's"; {
        let at = blame(A.alloc(LARGE));
        A.dealloc(at, SMALL);
        spandrel::purge();
    }
}

fault! {
    small_freed_as_large: "free with a size or alignment that is not the block's"; {
        // At the start of a granule, where a large block could begin.
        let at = blame(A.alloc(layout(32 * KIB)));
        A.dealloc(at, LARGE);
    }
}

fault! {
    large_with_the_wrong_size: "free with a size or alignment that is not the block's"; {
        let at = blame(A.alloc(LARGE));
        A.dealloc(at, layout(200 * KIB));
    }
}

fault! {
    large_resized_with_the_wrong_size: "free with a size or alignment that is not the block's"; {
        let at = blame(A.alloc(LARGE));
        A.realloc(at, layout(200 * KIB), 300 * KIB);
    }
}

fault! {
    foreign_small: "free of an address this allocator does not own"; {
        let mut local = [0u64; 8];
        A.dealloc(blame(local.as_mut_ptr().cast()), SMALL);
        spandrel::purge();
    }
}

fault! {
    foreign_large: "free of an address this allocator does not own"; {
        let mut local = [0u64; 8];
        A.dealloc(blame(local.as_mut_ptr().cast()), LARGE);
    }
}

fault! {
    /// Far beyond what a program can map, and not a canonical address either.
    foreign_beyond_all_windows: "free of an address this allocator does not own"; {
        A.dealloc(blame(std::ptr::without_provenance_mut(0xdead_beef_dead_beef)), LARGE);
    }
}

fault! {
    interior_of_an_object: "free of an address that is not the start of a block"; {
        let at = blame(object().add(8));
        A.dealloc(at, SMALL);
        spandrel::purge();
    }
}

fault! {
    /// Behind the last object of a span, where nothing was ever handed out.
    tail_of_a_span: "free of an address that is not the start of a block"; {
        let class = spandrel::base::classes::Class::of(112, 8).expect("a class");
        let at = A.alloc(layout(112));
        let start = at.addr() & !(class.span_bytes() - 1);
        let tail = start + class.shape().objects as usize * 112;
        assert!(tail < start + class.span_bytes());
        A.dealloc(blame(at.with_addr(tail)), layout(112));
        spandrel::purge();
    }
}

fault! {
    interior_of_a_large_block: "free of an address that is not the start of a block"; {
        A.dealloc(blame(A.alloc(LARGE).add(32 * KIB)), LARGE);
    }
}

fault! {
    interior_of_a_granule: "free of an address that is not the start of a block"; {
        A.dealloc(blame(A.alloc(LARGE).add(8)), LARGE);
    }
}

/// A child that does nothing wrong lives: the parent's comparison is not what kills.
#[test]
fn the_innocent_live() {
    const NAME: &str = "the_innocent_live";
    if child::is(NAME) {
        // SAFETY: every block is freed once with its own layout.
        unsafe {
            for layout in [SMALL, LARGE, layout(8), layout(3 * MIB)] {
                let at = A.alloc(layout);
                assert!(!at.is_null());
                A.dealloc(at, layout);
            }
        }
        spandrel::purge();
        return;
    }
    child::passes(NAME, &[]);
}
