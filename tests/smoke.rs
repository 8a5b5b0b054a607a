//! tmp
use std::alloc::{GlobalAlloc, Layout};
use std::collections::*;
#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

#[test]
fn smoke() {
    let mut m = BTreeMap::new();
    for i in 0..200_000u64 {
        m.insert(i.wrapping_mul(0x9e3779b97f4a7c15), format!("value {i}"));
    }
    let hs: Vec<_> = (0..8)
        .map(|t| {
            let m = m.clone();
            std::thread::spawn(move || {
                let mut h = HashMap::new();
                for (k, v) in &m {
                    h.insert(*k, v.clone() + "x");
                }
                for i in 0..100_000usize {
                    let s = (i * 7919 * (t + 1)) % 300_000;
                    let v = vec![t as u8; s % 50_000];
                    if i % 3 == 0 {
                        h.insert(
                            i as u64,
                            String::from_utf8(v[..s % 100.min(v.len().max(1))].to_vec())
                                .unwrap_or_default(),
                        );
                    }
                }
                h
            })
        })
        .collect();
    let mut tot = 0;
    for h in hs {
        tot += h.join().unwrap().len();
    }
    assert!(tot > 1_000_000, "{tot}");
    for shift in 0..31 {
        for size in [1usize, 100, 5000, 100_000, 3 << 20] {
            let l = Layout::from_size_align(size, 1 << shift).unwrap();
            unsafe {
                let p = A.alloc_zeroed(l);
                assert!(!p.is_null(), "{l:?}");
                assert_eq!(p as usize % (1 << shift), 0);
                for i in (0..size).step_by(97) {
                    assert_eq!(*p.add(i), 0);
                }
                p.write_bytes(1, size);
                A.dealloc(p, l);
            }
        }
    }
}
