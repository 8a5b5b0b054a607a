#!/usr/bin/env bash
# The long runs behind docs/RELIABILITY.md. None is part of ci/test.sh, which has a short form of most: not of the
# sanitizers and the soak.
#
#   ci/long.sh fuzz [MINUTES [TARGET...]]
#                                 libFuzzer on every target of fuzz/ or on those named, taking turns (60; needs a
#                                 nightly and `cargo install cargo-fuzz`); ends with executions and coverage
#   ci/long.sh steps              a thread stopped at every atomic access of every slow path and behind both doors, not
#                                 only at the first and last of each place in the source; without the shadow and with it
#   ci/long.sh faults             the real system's refusals by chance, twenty times as many as in ci/test.sh
#   ci/long.sh lives              1,000 forks from 16 threads, 960 spawns, 100,000 threads, 800,000 signals at 10 kHz
#   ci/long.sh extremes           100 million objects of 8 bytes; 8 GiB live
#   ci/long.sh soak [MINUTES]     drifting load with threads that come and go (30); chart and figures in
#                                 target/long/soak
#   ci/long.sh tsan [RUNS]        ThreadSanitizer, the standard library included, over the seeded cases of all floors, with
#                                 several threads in each (1 run; more are of the clock's seeds; nightly with rust-src)
#   ci/long.sh memcheck           valgrind's memcheck over the C programs, the allocator not replaced
#   ci/long.sh seeded [RUNS]      the seeded cases, ten times as many, each run (3) from a seed of its own: the clock's,
#                                 printed
#   ci/long.sh careful            the seeded tests by `cargo careful` (nightly with rust-src)
#   ci/long.sh demo               the demo as README.md has it, its services with fat link-time optimisation
#
# Results are written to target/long/. Nothing runs at more than the lowest priority.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-$PWD/target}/long
mkdir -p "$out"
# Minutes for one case or test before it counts as hung: nobody else may be kept from work here.
export SPANDREL_PATIENCE=60

targets() { sed -n 's:^path = "fuzz_targets/\(.*\)\.rs"$:\1:p' fuzz/Cargo.toml; }

# Instrumented code lies in target/long/fuzz: the flags are libFuzzer's. No sanitizer: one that replaces
# malloc is blind inside an allocator.
run_fuzz() {
    local minutes=${1:-60} turn=120 failed="" end target log=$out/fuzz.log build chosen=("${@:2}")
    [ ${#chosen[@]} -gt 0 ] || mapfile -t chosen < <(targets)
    end=$((SECONDS + minutes * 60))
    build=(cargo +nightly fuzz build -s none -a --features libfuzzer,shadow --target-dir "$out/fuzz")
    (cd fuzz && "${build[@]}" 2>&1 | tail -n 1)
    : >"$log"
    while [ $SECONDS -lt $end ]; do
        for target in "${chosen[@]}"; do
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

low() { nice -n 19 "$@"; }

run_steps() {
    local features
    for features in "" shadow; do
        CARGO_TARGET_DIR=$out/steps RUSTFLAGS="--cfg spandrel_steps" SPANDREL_STEPS=all \
            low cargo test --quiet --release -p fuzz --features "$features" --test steps -- --nocapture --test-threads=1
    done
}

run_faults() {
    SPANDREL_FACTOR=20 low cargo test --quiet --release -p fuzz --test real_system any_call_by_chance
}

run_lives() {
    low cargo test --quiet --release -p capi --test life -- --ignored --nocapture many_lives
}

run_extremes() {
    low cargo test --quiet --release -p fuzz --test extremes -- --ignored --nocapture --test-threads=1
}

run_soak() {
    low cargo run --quiet --release -p soak -- --minutes "${1:-30}" --out "$out/soak" | tee "$out/soak.txt"
}

# No suppressions. The floors only: on the doors a thread's last instructions come after ThreadSanitizer has
# given up the thread, and crash it. Address randomisation is off because its shadow does not know all of the
# addresses that recent kernels use.
run_tsan() {
    local triple=x86_64-unknown-linux-gnu run seed
    for run in $(seq "${1:-1}"); do
        # The first run is of the seed that ci/test.sh has.
        seed=$([ "$run" = 1 ] && echo 20260731 || date +%s%N)
        echo "tsan: run $run, SPANDREL_SEED=$seed"
        CARGO_TARGET_DIR=$out/tsan RUSTFLAGS="-Zsanitizer=thread" SPANDREL_SEED=$seed SPANDREL_SEVERAL=1 \
            TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" \
            low setarch -R cargo +nightly test --quiet -Zbuild-std --target $triple --release -p fuzz \
            --test seeded -- caches transfer spans pages
    done
}

# memcheck would put its own malloc in the place of ours; `nouserintercepts` leaves ours where it is. What glibc has not is
# linked with the library, and everything else preloaded.
run_memcheck() {
    local source program work library passed=0 link options
    low cargo build --quiet --release -p capi
    library=${CARGO_TARGET_DIR:-$PWD/target}/release/libspandrel.so
    work=$(mktemp -d)
    for source in capi/tests/programs/api/*.c capi/tests/programs/life/{threads,constructors,fork_at_exit,cancel}.c; do
        program=$work/$(basename "$source" .c)
        link=() options=stats=exit
        grep -qE 'nallocx\(|sdallocx\(|free_sized\(|free_aligned_sized\(|[^f]cfree\(|spandrel_' "$source" &&
            link=("-L$(dirname "$library")" -lspandrel "-Wl,-rpath,$(dirname "$library")")
        # As its test has it: it waits for the limit to be crossed.
        [ "$(basename "$source")" = on_pressure.c ] && options+=,soft=64MiB
        cc -O1 -g -w -fno-builtin -pthread -o "$program" "$source" "${link[@]}"
        SPANDREL=$options LD_PRELOAD=$library \
            low valgrind -q --soname-synonyms=somalloc=nouserintercepts --run-libc-freeres=no \
            --error-exitcode=9 "$program" 400 2>"$work/said" || { echo "$source" >&2; cat "$work/said" >&2; return 1; }
        # It was ours that served.
        grep -q '^spandrel: where' "$work/said" || { echo "$program ran on another malloc" >&2; return 1; }
        passed=$((passed + 1))
    done
    rm -r "$work"
    echo "memcheck: $passed programs, no error"
}

# In ci/test.sh the seed is always the same.
run_seeded() {
    local run seed
    for run in $(seq "${1:-3}"); do
        seed=$(date +%s%N)
        echo "seeded: run $run, SPANDREL_SEED=$seed"
        SPANDREL_SEED=$seed SPANDREL_FACTOR=10 low cargo test --quiet --release -p fuzz --features shadow --test seeded
    done
}

run_careful() {
    CARGO_TARGET_DIR=$out/careful low cargo +nightly careful test --quiet -p fuzz --test seeded
}

run_demo() {
    low cargo run --quiet --release -p demo | tee "$out/demo.txt"
}

name=${1:-}
declare -F "run_$name" >/dev/null || {
    sed -n 's/^# \{0,1\}//; 2,/^set/{/^set/d; p}' "$0" >&2
    exit 2
}
shift
"run_$name" "$@"
