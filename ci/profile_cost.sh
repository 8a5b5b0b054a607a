#!/usr/bin/env bash
# Instructions that the heap profile at its default rate adds to a request of the demo's service, in the program itself,
# by callgrind: exact where times are not. What is done once (the start, the load of the documents) does not count.
#
#   ci/profile_cost.sh [REQUESTS]     as many more requests in one run than in the other (6000)
set -euo pipefail
cd "$(dirname "$0")/.."
more=${1:-6000} few=2000
cargo build --quiet --profile fat -p demo --bin svc-spandrel
service=${CARGO_TARGET_DIR:-target}/fat/svc-spandrel
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Instructions of one run in all, on one thread of each kind.
total() {
    local requests=$1
    shift
    valgrind --tool=callgrind --callgrind-out-file="$work/out.$requests.$#" "$service" --threads 1 --connections 4 \
        --requests "$requests" --warm-up 100 --settle-ms 0 --deadline 3000 "$@" >/dev/null 2>"$work/log.$requests.$#" ||
        { cat "$work/log.$requests.$#" >&2; return 1; }
    awk '/^summary:|^totals:/ { sum = $2 } END { print sum }' "$work/out.$requests.$#"
}

# Two at a time.
for profile in "" --heap-profile; do
    total "$few" $profile >"$work/few$profile" &
    total $((few + more)) $profile >"$work/many$profile"
    wait $!
done
awk -v more="$more" -v a="$(cat "$work/few")" -v b="$(cat "$work/many")" \
    -v c="$(cat "$work/few--heap-profile")" -v d="$(cat "$work/many--heap-profile")" 'BEGIN {
    off = (b - a) / more; on = (d - c) / more
    printf "%.0f instructions a request, %.0f with the heap profile: %.3f times as many\n", off, on, on / off }'
