//! libFuzzer on [`fuzz::c_door`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::c_door(data));
