#!/usr/bin/env bash
# The demo's service, a Rust program with threads, under everything that watches: checked mode, guard pages, a trace,
# a map. Each time all of its answers are verified, and what was written is read by the command. Then it serves, and
# its own routes are asked, its heap profile read by pprof.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(mktemp -d)
serving=
trap '[ -z "$serving" ] || kill "$serving"; rm -rf "$out"' EXIT
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

# As a user would: started, asked, ended.
"$programs/svc-spandrel" --serve --capacity 1024 >"$out/listens" &
serving=$!
for _ in $(seq 100); do
    grep -q http "$out/listens" && break
    sleep 0.1
done
url=$(grep -om1 'http://[0-9.:]*' "$out/listens")
curl -fsS "$url/metrics" >"$out/metrics"
says "$out/metrics" '^spandrel_live_bytes [1-9]'
curl -sS "$url/debug/pprof/heap" >"$out/why"
says "$out/why" "no heap profile: .curl -X POST $url/debug/pprof/heap. starts one"
curl -fsS -X POST "$url/debug/pprof/heap?interval=1"
printf 'one two three\n\ntwo three\n' | curl -fsS --data-binary @- "$url/count" >"$out/counted"
says "$out/counted" '"words":5'
curl -fsS "$url/debug/pprof/heap" >"$out/heap.pb.gz"
gzip -t "$out/heap.pb.gz"
# The one that ci/test.sh installs, or Go's own.
pprof=
for tool in /usr/lib/go*/pkg/tool/linux_amd64/pprof; do
    [ ! -x "$tool" ] || pprof=$tool
done
[ -n "$pprof" ] || ! command -v go >/dev/null || pprof="go tool pprof"
[ -n "$pprof" ] || { echo "ci/watched.sh: no pprof here" >&2; exit 1; }
$pprof -top "$out/heap.pb.gz" >"$out/top" 2>"$out/errors" || { cat "$out/errors" >&2; exit 1; }
says "$out/top" 'Type: inuse_space' '[a-z_]+::'
kill "$serving"
wait "$serving" || [ $? = 143 ]
serving=
echo "a Rust service, watched: checked, guarded, traced, mapped, asked"
