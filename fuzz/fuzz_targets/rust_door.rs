//! libFuzzer on [`fuzz::rust_door`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rust_door(data));
