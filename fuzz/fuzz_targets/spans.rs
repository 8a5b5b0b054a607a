//! libFuzzer on [`fuzz::spans`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::spans(data));
