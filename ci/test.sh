#!/usr/bin/env bash
# All tests, on a bare machine with the Rust toolchain; no other allocator is built for them.
# Everything else it needs it installs. Named parts: ci/test.sh PART..., see `parts` below.
set -euo pipefail
cd "$(dirname "$0")/.."

# Nothing is built twice here, and what the incremental compiler keeps for that is as large as the rest.
export CARGO_INCREMENTAL=0

parts=(rules format clippy docs debug release models reliability instructions capi watch memory peers demo install programs map)

# A command, and its package if that has another name. valgrind counts the instructions; the rest comes
# with cargo.
need() {
    command -v "$1" >/dev/null && return
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq && $sudo apt-get install -qqy "${2:-$1}" >/dev/null
}

part_rules() { ci/rules.sh && ci/rules.sh --seeded; }
part_format() { cargo fmt --all --check; }
part_clippy() {
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    # Without what the C door switches on.
    cargo clippy --quiet -p spandrel --all-targets -- -D warnings
}
part_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p spandrel; }
part_debug() {
    need gcc
    cargo test --quiet --workspace --exclude fuzz
}
part_release() { cargo test --quiet --release -p spandrel; }
part_models() { ci/models.sh; }
# What docs/RELIABILITY.md promises, in short: seeded cases over the doors and the floors, every call of the
# system failing in turn, extremes, and a thread stopped at each place of every slow path, as Rust programs have
# them and as the C library does (`shadow`). Attacks, forks,
# threads and signals are programs of the part capi; the long forms are in ci/long.sh.
part_reliability() {
    cargo test --quiet --release -p fuzz
    cargo test --quiet --release -p fuzz --features shadow --test seeded
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/steps" RUSTFLAGS="--cfg spandrel_steps" \
        cargo test --quiet --release -p fuzz --test steps
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/steps" RUSTFLAGS="--cfg spandrel_steps" \
        cargo test --quiet --release -p fuzz --features shadow --test steps
}
# The number of instructions of the fast path is exact, so it is a test; times are not.
part_instructions() {
    need valgrind
    cargo run --quiet --release -p peers -- --check
}
# The bars that memory is held to, in both doors: those whose figures are the same on a busy machine.
part_memory() {
    cargo run --quiet --release -p memory -- --check --at-once 8 \
        --only free-64 free-4k free-100k free-4m dead-threads idle-16 drift idle-thread burst-1
}
# Workers, driver, files and charts, from end to end, on as little as will do.
part_peers() {
    local out
    out=$(mktemp -d)
    cargo run --quiet --release -p peers -- --quick --repeat 1 --profile release \
        --only spandrel system same/t1 larson/t2 --out "$out" >/dev/null
    cargo run --quiet --release -p peers -- --render --out "$out" |
        grep 'geometric mean of 2 rows'
    test -s "$out/time-release.svg" && test -s "$out/table.md"
    rm -r "$out"
}
# The C library as it ships, under C and C++ programs, and what its calls cost. Needs cc and c++.
part_capi() {
    need gcc && need g++ && need valgrind
    cargo test --quiet --release -p capi
    cargo run --quiet --release --features override --example override
    ci/instructions_c.sh --check
}
# Heap profiles, read by the tool they are written for. (Leaks of C, C++ and Rust programs: capi.)
part_watch() {
    need /usr/lib/go-1.19/bin/go golang-1.19-go
    SPANDREL_NEEDS_PPROF=1 cargo test --quiet --release -p spandrel --test profile --test leaks --test tags --test stacks
}
part_demo() {
    need curl
    cargo run --quiet --release -p demo -- --seconds 8
    ci/watched.sh
}
# The command as a user gets it, run from where it was installed, with nothing of this checkout in reach.
part_install() {
    local root
    root=$(mktemp -d)
    trap 'rm -rf "$root"' RETURN
    cargo install --quiet --locked --path cli --root "$root/there" --target-dir "${CARGO_TARGET_DIR:-target}"
    mkdir "$root/home"
    (cd / && env -i HOME="$root/home" PATH=/usr/bin:/bin "$root/there/bin/spandrel" run -- cat /proc/self/maps) |
        grep "$root/home/.cache/spandrel/libspandrel-"
}
# Real programs: the same output without the library and on it.
part_programs() { ci/programs.sh; }

# A program's heap as a page, opened and used in a headless browser.
part_map() {
    need gcc && need chromium && need chromedriver chromium-driver
    [ -e /usr/lib/python3/dist-packages/selenium ] || need no-selenium-here python3-selenium
    local out
    out=$(mktemp -d)
    cc -g -O1 -o "$out/fragments" ci/map/fragments.c
    cargo build --quiet -p spandrel-cli
    local command=${CARGO_TARGET_DIR:-target}/debug/spandrel
    XDG_CACHE_HOME=$out "$command" run --map "$out/heap.map" --sites all --map-every 50ms -- "$out/fragments"
    "$command" map "$out/heap.map" -o "$out/heap.html"
    timeout 120 /usr/bin/python3 ci/map/click.py "$out/heap.html" "$out/heap.png" --sites
    test -s "$out/heap.png"
    rm -r "$out"
}

[ $# -gt 0 ] || set -- "${parts[@]}"
for part in "$@"; do
    declare -F "part_$part" >/dev/null || {
        echo "ci/test.sh: no part '$part'; there are: ${parts[*]}" >&2
        exit 2
    }
done
for part in "$@"; do
    echo "==== $part"
    start=$SECONDS
    "part_$part"
    echo "==== $part: passed in $((SECONDS - start)) s"
done
