//! The load: threads that live for seconds, each with blocks of its own and some of everybody's.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// One call in so many is timed.
const TIMED: u64 = 64;
/// Blocks that wait for a thread other than their maker to free them.
const EXCHANGED: usize = 3000;

/// Calls by time, a bucket for each eighth of a doubling of nanoseconds.
pub struct Latencies([AtomicU64; 512]);

pub static LATENCIES: Latencies = Latencies([const { AtomicU64::new(0) }; 512]);

impl Latencies {
    fn note(&self, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(1);
        let shift = nanos.ilog2();
        let part = ((nanos << 3) >> shift) & 7;
        self.0[(shift as usize * 8 + part as usize).min(511)].fetch_add(1, Relaxed);
    }

    /// Median, 99 % and 99.9 % since the last time, in nanoseconds.
    pub fn take(&self) -> [u64; 3] {
        let counts = self.0.each_ref().map(|count| count.swap(0, Relaxed));
        let all: u64 = counts.iter().sum();
        [500, 990, 999].map(|per_mille| {
            let mut left = all * per_mille / 1000;
            for (bucket, &count) in counts.iter().enumerate() {
                if count > left {
                    return (1 << (bucket / 8)) + ((bucket as u64 % 8) << (bucket / 8) >> 3);
                }
                left -= count;
            }
            0
        })
    }
}

/// A block with its size and the stamp that all of it is filled with.
struct Block {
    at: *mut u8,
    size: u32,
    stamp: u8,
}

// SAFETY: plain memory with one holder.
unsafe impl Send for Block {}

impl Block {
    fn layout(&self) -> Layout {
        Layout::from_size_align(self.size as usize, 8).expect("a valid layout")
    }

    fn new(size: u32, stamp: u8) -> Self {
        let mut block = Self { at: std::ptr::null_mut(), size, stamp };
        // SAFETY: not of size zero; written within its size.
        unsafe {
            let at = spandrel::Spandrel.alloc(block.layout());
            assert!(!at.is_null(), "no memory for {size} bytes");
            // All of it, as a program would: then resident memory is what it costs.
            at.write_bytes(stamp, size as usize);
            block.at = at;
        }
        block
    }

    /// Every byte is as it was written.
    fn check(&self) {
        // SAFETY: held here, and all of it was written when it was new.
        let all = unsafe { std::slice::from_raw_parts(self.at, self.size as usize) };
        let differ = all.iter().fold(0, |differ, byte| differ | (byte ^ self.stamp));
        assert_eq!(differ, 0, "{:p} was overwritten", self.at);
    }

    /// Gives it up. The caller has checked it, outside of what is timed.
    fn free(self) {
        // SAFETY: held here alone, and given up now.
        unsafe { spandrel::Spandrel.dealloc(self.at, self.layout()) };
    }
}

/// What all threads of a load share.
pub struct Load {
    peak: usize,
    most_threads: usize,
    exchange: Mutex<Vec<Block>>,
    /// Bytes held now.
    pub live: AtomicUsize,
    wanted: AtomicUsize,
    /// The size most asked for, as a shift.
    centre: AtomicUsize,
    /// Threads now.
    pub threads: AtomicUsize,
    /// Threads so far.
    pub came: AtomicU64,
    /// Allocations and frees so far.
    pub operations: AtomicU64,
    stop: AtomicBool,
    pause: Duration,
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

impl Load {
    pub fn new(peak: usize, most_threads: usize, pause: Duration) -> Self {
        Self {
            pause,
            peak,
            most_threads,
            exchange: Mutex::new(Vec::with_capacity(EXCHANGED + 64)),
            live: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            centre: AtomicUsize::new(7),
            threads: AtomicUsize::new(0),
            came: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Runs for `length` in cycles of `cycle`; calls `sample` again and again meanwhile.
    pub fn run(&self, length: Duration, cycle: Duration, mut sample: impl FnMut()) {
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
                while begun.elapsed() < length {
                    // Up and down once a cycle; sizes drift through three ranges; threads twice a cycle.
                    let part = begun.elapsed().as_secs_f64() / cycle.as_secs_f64() % 1.0;
                    let wave =
                        |turns: f64| 0.5 - 0.5 * (part * turns * std::f64::consts::TAU).cos();
                    self.wanted
                        .store((self.peak as f64 * (0.15 + 0.85 * wave(1.0))) as usize, Relaxed);
                    self.centre.store(7 + (wave(3.0) * 7.0) as usize, Relaxed);
                    let threads = 1 + (wave(2.0) * (self.most_threads - 1) as f64).round() as usize;
                    while self.threads.load(Relaxed) < threads {
                        self.threads.fetch_add(1, Relaxed);
                        let seed = rng.next() | 1;
                        scope.spawn(move || self.live_a_while(seed));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                self.stop.store(true, Relaxed);
            });
            while !self.stop.load(Relaxed) {
                sample();
            }
        });
        self.exchange.lock().expect("no panic").drain(..).for_each(|block| {
            block.check();
            block.free();
        });
    }

    /// One thread: half a second to ten, then gone with all it has.
    fn live_a_while(&self, seed: u64) {
        self.came.fetch_add(1, Relaxed);
        let mut rng = Rng(seed);
        let end = Instant::now() + Duration::from_millis(500 + rng.below(9500));
        let mut held: Vec<Block> = Vec::new();
        let mut calls = 0;
        while Instant::now() < end && !self.stop.load(Relaxed) {
            for _ in 0..200 {
                calls += 1;
                self.step(&mut rng, &mut held, calls % TIMED == 0);
            }
            self.operations.fetch_add(200, Relaxed);
            // A service has pauses too, and the machine other work.
            thread::sleep(self.pause);
        }
        // Half goes to whoever comes, half with its thread.
        for (i, block) in held.into_iter().enumerate() {
            let mut exchange = self.exchange.lock().expect("no panic");
            if i % 2 == 0 && exchange.len() < EXCHANGED {
                exchange.push(block);
            } else {
                drop(exchange);
                self.live.fetch_sub(block.size as usize, Relaxed);
                block.check();
                block.free();
            }
        }
        self.threads.fetch_sub(1, Relaxed);
    }

    fn step(&self, rng: &mut Rng, held: &mut Vec<Block>, timed: bool) {
        let more = self.live.load(Relaxed) < self.wanted.load(Relaxed);
        // Around what is wanted about as many come as go.
        if held.is_empty() || rng.below(100) < if more { 60 } else { 40 } {
            let shift = self.centre.load(Relaxed) as u64 + rng.below(4);
            let size = match rng.below(2000) {
                0 => 1 + rng.below(2 << 20),
                1..20 => 1 + rng.below(64 << 10),
                _ => 1 + rng.below(1 << shift),
            } as u32;
            let stamp = rng.next() as u8;
            let begun = timed.then(Instant::now);
            let block = Block::new(size, stamp);
            if let Some(begun) = begun.filter(|_| size <= 1024) {
                LATENCIES.note(begun.elapsed());
            }
            self.live.fetch_add(size as usize, Relaxed);
            held.push(block);
        } else {
            let mut block = held.swap_remove(rng.below(held.len() as u64) as usize);
            // One in sixteen is freed by another thread.
            if rng.below(16) == 0
                && let Ok(mut exchange) = self.exchange.try_lock()
            {
                if exchange.len() < EXCHANGED {
                    exchange.push(block);
                    return;
                }
                let at = rng.below(exchange.len() as u64) as usize;
                std::mem::swap(&mut exchange[at], &mut block);
            }
            self.live.fetch_sub(block.size as usize, Relaxed);
            block.check();
            let begun = timed.then(Instant::now);
            block.free();
            if let Some(begun) = begun {
                LATENCIES.note(begun.elapsed());
            }
        }
    }
}
