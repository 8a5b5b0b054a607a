#!/usr/bin/env bash
# Builds libspandrel.so as it ships, where cli/build.rs has it built for the command to carry, so that it is built
# once; prints where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
triple=$(rustc -vV | sed -n 's/^host: //p')
directory=${CARGO_TARGET_DIR:-$PWD/target}/library
CARGO_PROFILE_FAT_STRIP=debuginfo env -u CARGO_TARGET_DIR -u RUSTFLAGS \
    cargo build --quiet --profile fat --package capi --lib --target "$triple" --target-dir "$directory"
echo "$directory/$triple/fat/libspandrel.so"
