#!/usr/bin/env bash
# Prints what `Box::new(u64)` and its drop compile to under fat link-time optimisation.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --profile fat -p inline
binary=${CARGO_TARGET_DIR:-target}/fat/inline
for function in box_new box_drop; do
    objdump -d --no-show-raw-insn --no-addresses "$binary" | sed -n "/<$function>:/,/^\$/p"
done
