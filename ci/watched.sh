#!/usr/bin/env bash
# The demo's service, a Rust program with threads, under everything that watches: checked mode, guard pages, a trace,
# a map. Each time all of its answers are verified, and what was written is read by the command.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cargo build --quiet --release -p demo --bin svc-spandrel
cargo build --quiet --release -p spandrel-cli
programs=${CARGO_TARGET_DIR:-target}/release

# service OPTIONS REQUESTS: everything was answered, and nothing was said.
service() {
    SPANDREL=$1 "$programs/svc-spandrel" --requests "$2" --warm-up 0 --settle-ms 0 >"$out/said" 2>"$out/errors" || {
        cat "$out/errors" >&2
        echo "ci/watched.sh: the service failed with SPANDREL=$1" >&2
        exit 1
    }
    [ ! -s "$out/errors" ] || { cat "$out/errors" >&2; exit 1; }
    grep -q "\"requests\":$2," "$out/said"
}

# says FILE TEXT...
says() {
    local text
    for text in "${@:2}"; do
        grep -qE "$text" "$1" || {
            head -40 "$1" >&2
            echo "ci/watched.sh: nothing like '$text' there" >&2
            exit 1
        }
    done
}

service check=on 2000
service check=stacks 500
service guard=100 2000

service "trace=$out/trace" 500
"$programs/spandrel" trace --summary "$out/trace" >"$out/summary"
says "$out/summary" "allocations, .* frees, .* by [0-9]+ threads" "asked for, at most .* alive at a time"
"$programs/spandrel" trace --find-double-free "$out/trace" >"$out/twice"
says "$out/twice" "no block was freed twice"
"$programs/spandrel" trace "$out/trace" >"$out/calls"
says "$out/calls" 'demo::'

service "map=$out/map,map-sites=all,map-every=500ms" 500
"$programs/spandrel" map "$out/map" >"$out/words"
says "$out/words" 'have memory behind them' 'hugepages? (is|are) in use'
"$programs/spandrel" map "$out/map" -o "$out/heap.html"
test -s "$out/heap.html"
[ "$(grep -c "^{.snapshot.:" "$out/map")" -gt 2 ]
echo "a Rust service, watched: checked, guarded, traced, mapped; 5 passed, 0 failed"
