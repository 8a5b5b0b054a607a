#!/usr/bin/env bash
# The long runs behind docs/RELIABILITY.md. None is part of ci/test.sh, which has a short form of each.
#
#   ci/long.sh fuzz [MINUTES]     libFuzzer on every target of fuzz/, taking turns (60; needs a nightly and
#                                 `cargo install cargo-fuzz`); ends with executions and coverage
#
# Results are written to target/long/. Nothing runs at more than the lowest priority.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-$PWD/target}/long
mkdir -p "$out"

targets() { sed -n 's:^path = "fuzz_targets/\(.*\)\.rs"$:\1:p' fuzz/Cargo.toml; }

# Instrumented code lies in target/long/fuzz: the flags are libFuzzer's. No sanitizer: one that replaces
# malloc is blind inside an allocator.
run_fuzz() {
    local minutes=${1:-60} turn=120 failed="" end target log=$out/fuzz.log build
    end=$((SECONDS + minutes * 60))
    build=(cargo +nightly fuzz build -s none -a --features libfuzzer --target-dir "$out/fuzz")
    (cd fuzz && "${build[@]}" 2>&1 | tail -n 1)
    : >"$log"
    while [ $SECONDS -lt $end ]; do
        for target in $(targets); do
            [ $((end - SECONDS)) -gt 5 ] || break
            mkdir -p "$out/corpus/$target" "fuzz/corpus/$target" "$out/found"
            echo "== $target" >>"$log"
            nice -n 19 "$out/fuzz/x86_64-unknown-linux-gnu/release/$target" \
                "$out/corpus/$target" "fuzz/corpus/$target" -max_len=4096 -len_control=10 -timeout=60 -rss_limit_mb=6000 \
                -max_total_time=$((turn < end - SECONDS ? turn : end - SECONDS)) -print_final_stats=1 \
                -artifact_prefix="$out/found/$target-" >>"$log" 2>&1 ||
                failed+=" $target"
        done
    done
    awk '/^== / { t = $2 }
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") c[t] = $(i + 1); if ($i == "ft:") f[t] = $(i + 1) } }
        /number_of_executed_units/ { n[t] += $2; all += $2 }
        /Done .* in .* second/ { for (i = 1; i < NF; i++) if ($i == "in") s[t] += $(i + 1) }
        END { for (t in n) printf "%-10s %12d executions %6d s  %6d edges %6d features\n", t, n[t], s[t], c[t], f[t]
              printf "%-10s %12d executions\n", "all", all }' "$log"
    [ -z "$failed" ] || { echo "ci/long: failed:$failed; see $log and $out/found" >&2; return 1; }
}

name=${1:-}
declare -F "run_$name" >/dev/null || {
    sed -n 's/^# \{0,1\}//; 2,/^set/{/^set/d; p}' "$0" >&2
    exit 2
}
shift
"run_$name" "$@"
