#!/usr/bin/env bash
# Other targets: what builds, what runs, what is refused.
#
#   ci/portability.sh        checks spandrel, the C door and the sized deletes for aarch64 (glibc and musl) and x86-64 musl; runs the
#                            seeded tests on musl, and on aarch64 under qemu; sees 32 bits refused by name
#
# Needs rustup (targets are added), and on Debian gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and
# qemu-user-static, which it installs.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}/portability

if ! command -v qemu-aarch64-static >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -qqy gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static >/dev/null
fi
rustup -q target add aarch64-unknown-linux-gnu aarch64-unknown-linux-musl x86_64-unknown-linux-musl \
    i686-unknown-linux-gnu 2>/dev/null

export CARGO_TARGET_DIR=$target
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"

for triple in aarch64-unknown-linux-gnu aarch64-unknown-linux-musl x86_64-unknown-linux-musl; do
    cargo check --quiet -p spandrel -p capi -p capi-sized --target "$triple"
    echo "$triple: checked"
done
cargo test --quiet --release -p fuzz --target x86_64-unknown-linux-musl --test seeded -- caches c_door
echo "x86_64-unknown-linux-musl: seeded tests passed"
# Not the doors, which also ask for terabytes: qemu keeps a record of every page that was ever mapped. And no pages are
# moved, see fuzz/src/system.rs.
SPANDREL_NO_MOVES=1 cargo test --quiet --release -p fuzz --target aarch64-unknown-linux-gnu --test seeded -- \
    caches transfer spans pages options readers
echo "aarch64-unknown-linux-gnu: seeded tests passed under qemu"
if cargo check --quiet -p spandrel --target i686-unknown-linux-gnu 2>"$target/i686"; then
    echo "ci/portability: a 32-bit target was not refused" >&2
    exit 1
fi
grep -q 'error: spandrel needs 64-bit addresses' "$target/i686"
echo "i686-unknown-linux-gnu: refused by name"
