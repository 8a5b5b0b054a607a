//! Builds the preloadable libraries and hands them to the command, which carries them inside (`library.rs`).
//! So `cargo install` of this crate alone gives a command that works, and the two never differ.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    // At run time: the checkout may have moved since this was compiled.
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let root: &Path = manifest.parent().expect("a member of the workspace");
    for source in ["src", "capi", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let target = env::var("TARGET").expect("set by cargo");
    // TARGET_DIRECTORY/PROFILE/build/PACKAGE/out. The libraries are the same in every profile of the command, so they
    // share one directory; it is one of its own because the outer cargo holds the lock of the other.
    let directory = out.ancestors().nth(4).expect("cargo's folders").join("library");

    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--profile", "fat", "--lib"])
        .args(["--package", "capi", "--package", "capi-sized"])
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        // What the outer cargo says about the command is not meant for the library; clippy's driver
        // as the compiler would check it and build nothing.
        .env("CARGO_PROFILE_FAT_STRIP", "debuginfo");
    for name in
        ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR"]
    {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "the libraries could not be built");

    for (name, variable) in [("libspandrel", "LIBRARY"), ("libspandrel_sized", "SIZED")] {
        let built = directory.join(&target).join("fat").join(name).with_extension("so");
        let bytes = fs::read(&built).expect("the library just built");
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let name = format!("{name}-{:016x}.so", hasher.finish());
        println!("cargo::rustc-env=SPANDREL_{variable}={}", built.display());
        println!("cargo::rustc-env=SPANDREL_{variable}_NAME={name}");
    }
}
