//! Has the linker put what every program calls side by side (`layout.ld`).

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=layout.ld");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        let here = env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
        println!("cargo::rustc-cdylib-link-arg=-Wl,--script={here}/layout.ld");
    }
}
