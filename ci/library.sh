#!/usr/bin/env bash
# Builds libspandrel.so, and beside it libspandrel_sized.so, as they ship, where cli/build.rs has them built for the
# command to carry, so that they are built once; prints where the first is.
set -euo pipefail
cd "$(dirname "$0")/.."
triple=$(rustc -vV | sed -n 's/^host: //p')
directory=${CARGO_TARGET_DIR:-$PWD/target}/library
CARGO_PROFILE_FAT_STRIP=debuginfo env -u CARGO_TARGET_DIR -u RUSTFLAGS \
    cargo build --quiet --profile fat --lib --package capi --package capi-sized --target "$triple" \
    --target-dir "$directory"
echo "$directory/$triple/fat/libspandrel.so"
