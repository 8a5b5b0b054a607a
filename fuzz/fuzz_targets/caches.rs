//! libFuzzer on [`fuzz::caches`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::caches(data));
