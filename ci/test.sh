#!/usr/bin/env bash
# All tests, on a bare machine with the Rust toolchain; no other allocator is built for them.
# Everything else it needs it installs. Named parts: ci/test.sh PART..., see `parts` below; without a name all of them,
# two at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

# Nothing is built twice here, and what the incremental compiler keeps for that is as large as the rest.
export CARGO_INCREMENTAL=0

# In this order, so that of two neighbours one builds while the other runs, and what needs packages comes late.
parts=(packages rules format clippy models release debug docs reliability programs capi install memory instructions map peers demo)

# A command, and its package if that has another name. valgrind counts the instructions; the rest comes with cargo.
need() {
    command -v "$1" >/dev/null || ci/packages.sh "${2:-$1}"
}

# What any part needs, at once.
part_packages() {
    ci/packages.sh gcc g++ valgrind curl golang-1.19-go chromium chromium-driver python3-selenium
    ci/programs.sh --install
}
part_rules() { ci/rules.sh && ci/rules.sh --seeded; }
part_format() { cargo fmt --all --check; }
part_clippy() {
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    # As a program has it that asks for no feature: without what the C door and the tests switch on.
    cargo clippy --quiet -p spandrel --lib -- -D warnings
}
part_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p spandrel; }
# Not the models, which are empty without their checkers.
part_debug() {
    need gcc && need g++
    cargo test --quiet --workspace --exclude fuzz --exclude loom_tests
}
# Heap profiles are read by the tool they are written for. (Leaks of C, C++ and Rust programs: capi.)
part_release() {
    need /usr/lib/go-1.19/bin/go golang-1.19-go
    SPANDREL_NEEDS_PPROF=1 cargo test --quiet --release -p spandrel
}
part_models() { ci/models.sh; }
# What docs/RELIABILITY.md promises, in short: seeded cases over the doors and the floors, every call of the
# system failing in turn, extremes, and a thread stopped at each place of every slow path, as Rust programs have
# them and as the C library does (`shadow`). Attacks, forks,
# threads and signals are programs of the part capi; the long forms are in ci/long.sh.
part_reliability() {
    cargo test --quiet --release -p fuzz
    cargo test --quiet --release -p fuzz --features shadow --test seeded
    local features
    for features in "" shadow; do
        RUSTC_WORKSPACE_WRAPPER=$PWD/ci/steps_rustc.sh \
            cargo test --quiet --release -p fuzz --features "$features" --test steps
    done
}
# The number of instructions of the fast path is exact, so it is a test; times are not.
part_instructions() {
    need valgrind
    cargo run --quiet --release -p peers -- --check
}
# The bars that memory is held to, in both doors: those whose figures are the same on a busy machine.
part_memory() {
    cargo run --quiet --release -p memory -- --check --at-once 8 \
        --only free-64 free-4k free-100k free-4m dead-threads idle-16 turns-40 drift idle-thread burst-1 cgroup-128m
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
# The services without link-time optimisation: built like their driver, they share its dependencies. (With it:
# `ci/long.sh demo`, and of the allocator itself in the parts instructions and install.)
part_demo() {
    need curl && need /usr/lib/go-1.19/bin/go golang-1.19-go
    cargo run --quiet --release -p demo -- --seconds 8 --profile release
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
    cargo build --quiet --release -p spandrel-cli
    local command=${CARGO_TARGET_DIR:-target}/release/spandrel
    XDG_CACHE_HOME=$out "$command" run --map "$out/heap.map" --sites all --map-every 50ms -- "$out/fragments"
    "$command" map "$out/heap.map" -o "$out/heap.html"
    timeout 120 /usr/bin/python3 ci/map/click.py "$out/heap.html" "$out/heap.png" --sites
    test -s "$out/heap.png"
    rm -r "$out"
}

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
[ $# = 0 ] || exit 0

# All of them, each as a run of this script by its name. Two at a time: links, tests of one thread and sleeps leave a
# processor idle. What a part says comes when it ends; what those say that fail, at the end of all.
said=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$said"' EXIT
declare -A running=()
failed=()
await_one() {
    local ended part
    if wait -n -p ended; then
        cat "$said/${running[$ended]}"
    else
        failed+=("${running[$ended]}")
    fi
    unset "running[$ended]"
}
for part in "${parts[@]}"; do
    [ ${#running[@]} -lt 2 ] || await_one
    # The others would not change that it failed.
    [ ${#failed[@]} = 0 ] || break
    ci/test.sh "$part" >"$said/$part" 2>&1 &
    running[$!]=$part
done
while [ ${#running[@]} -gt 0 ]; do await_one; done
for part in "${failed[@]}"; do
    cat "$said/$part"
    echo "==== $part: FAILED"
done
[ ${#failed[@]} = 0 ] || exit 1
echo "==== all passed in $SECONDS s"
