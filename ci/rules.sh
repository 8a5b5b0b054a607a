#!/usr/bin/env bash
# The allocator's own rules, checked on the source text: no locks and no waiting below the API, no
# allocation and no formatting through std, imports that go down only.
#
#   ci/rules.sh            checks src/
#   ci/rules.sh --seeded   plants one violation of each rule in a copy of a file and fails unless each is seen
set -euo pipefail
cd "$(dirname "$0")/.."

# Everything below the API: all of src/ but reports, the background thread and the fake, without unit
# tests (which end their file) and without comments.
below_the_api() {
    find "$1" -name '*.rs' ! -path '*/observe/*' ! -name background.rs ! -name fake.rs | sort | while read -r file; do
        sed '/^#\[cfg(all(test/,$d; /^#\[cfg(test)/,$d' "$file" | sed 's://.*$::' |
            awk -v file="$file" '{ print file ":" NR ": " $0 }'
    done
}

check() {
    local src=$1 bad=0
    local text
    text=$(below_the_api "$src")
    forbid() {
        local what=$1 pattern=$2
        if grep -nE "$pattern" <<<"$text" | sed 's/^[0-9]*://' | grep -vE "${3:-^$}"; then
            echo "ci/rules: $what" >&2
            bad=1
        fi
    }
    forbid "a lock or a wait below the API" \
        '\b(Mutex|RwLock|Condvar|Barrier|Once|OnceLock|OnceCell|LazyLock|spin_loop|Backoff|yield_now|park|unpark|sleep|futex|mpsc|pthread_mutex\w*|pthread_rwlock\w*|pthread_cond\w*)\b'
    # A loop that only re-reads an atomic waits for somebody else.
    forbid "a loop that waits for another thread" 'while .*\.load\([A-Za-z]+\).*\{ *\}'
    forbid "an allocation below the API" \
        '(\b(Vec|Box|String|Arc|Rc|HashMap|BTreeMap)(::|<)|\b(vec|format)!)'
    forbid "formatting or panicking through std below the API" \
        '(\b(println|eprintln|print|eprint|panic|todo|unimplemented|unreachable|dbg)!|\.unwrap\(\)|\.expect\()' \
        'base/(death|classes)\.rs'

    # front > cache > transfer > span > page > os > base.
    local floors=(base os page span transfer cache front) i j
    for i in "${!floors[@]}"; do
        for ((j = i + 1; j < ${#floors[@]}; j++)); do
            if grep -E "/${floors[i]}(/|\.rs).*crate::${floors[j]}\b" <<<"$text"; then
                echo "ci/rules: ${floors[i]} imports from ${floors[j]}, which stands above it" >&2
                bad=1
            fi
        done
        if [ "${floors[i]}" != front ] &&
            grep -E "/${floors[i]}(/|\.rs).*crate::(observe|background|watch)\b" <<<"$text"; then
            echo "ci/rules: ${floors[i]} knows of observe, background or watch" >&2
            bad=1
        fi
    done
    return $bad
}

if [ "${1:-}" = --seeded ]; then
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    while IFS='|' read -r file line; do
        rm -rf "$copy/src"
        mkdir -p "$copy/src/$(dirname "$file")"
        cp "src/$file" "$copy/src/$file"
        check "$copy/src"
        { echo "$line"; cat "src/$file"; } >"$copy/src/$file"
        if check "$copy/src" >/dev/null 2>&1; then
            echo "ci/rules: a seeded violation went unseen: $file: $line" >&2
            exit 1
        fi
    done <<'SEEDS'
cache/mod.rs|static L: std::sync::Mutex<()> = std::sync::Mutex::new(());
transfer/stack.rs|fn wait() { std::hint::spin_loop() }
page/heap.rs|fn wait(a: &AtomicU64) { while a.load(Relaxed) != 0 {} }
span/mod.rs|fn list() -> Vec<u8> { vec![0] }
front/mod.rs|fn say() { println!("hello") }
os/linux.rs|fn must() { None::<u8>.unwrap(); }
span/mod.rs|use crate::transfer::Transfer;
base/hints.rs|use crate::os::Os;
cache/mod.rs|use crate::observe::Stats;
page/heap.rs|use crate::background::start;
cache/mod.rs|use crate::watch::mode;
SEEDS
    echo "ci/rules: every seeded violation was seen"
else
    check src
    echo "ci/rules: no lock, no wait, no allocation, no upward import"
fi
