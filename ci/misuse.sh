#!/usr/bin/env bash
# What each misuse of capi/tests/programs/misuse.c comes to on Spandrel, by default and in checked mode, and
# on other allocators: the table of docs/MISUSE.md, as markdown.
#
#   ci/misuse.sh           prints the table
#   ci/misuse.sh --write   puts it into docs/MISUSE.md
#
# On Debian it installs what it needs; hardened_malloc is built from the sources in the crate
# hardened-malloc-sys. What cannot be had is left out, and said so. Each program runs three times, because
# some allocators lay blocks out at random; the worst counts.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
packages=(gcc g++ libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 libclang-rt-14-dev)
dpkg -s "${packages[@]}" >/dev/null 2>&1 ||
    { $sudo apt-get update -qq && $sudo apt-get install -qqy --no-install-recommends "${packages[@]}"; } >/dev/null

cargo build --quiet --release -p capi -p capi-sized
cc -O1 -g -w -fno-builtin -pthread -o "$work/misuse" capi/tests/programs/misuse.c -lstdc++

# As its own makefile builds it, but for a compiler of 2022.
build_hardened_malloc() {
    cargo new --quiet --lib --vcs none "$work/fetch"
    echo 'hardened-malloc-sys = "16"' >>"$work/fetch/Cargo.toml"
    cargo vendor --quiet --manifest-path "$work/fetch/Cargo.toml" "$work/vendor" >/dev/null
    cd "$work"/vendor/hardened-malloc-sys/vendor/hardened-malloc
    local options
    options=$(sed -nE '/NATIVE|CXX|WERROR/d; s/#.*//; s/^(CONFIG_[A-Z_]+) *:= *([^ ]+) *$/-D\1=\2/p' config/default.mk |
        sed -E '/SELF_INIT|SEAL_METADATA|STATS|LABEL_MEMORY|UBSAN|CLASS_REGION_SIZE|EXTENDED_SIZE|LARGE_SIZE/! s/-DCONFIG_/-D/')
    # shellcheck disable=SC2086
    gcc -std=c2x -Dalignas=_Alignas -Dthread_local=_Thread_local -Iinclude -D_GNU_SOURCE $options -w -O3 -fPIC \
        -fvisibility=hidden -shared -pthread -o "$work/libhardened_malloc.so" \
        h_malloc.c util.c random.c pages.c chacha.c memory.c
}
(build_hardened_malloc) || echo "ci/misuse: hardened_malloc cannot be built here" >&2

lib=/usr/lib/$(gcc -print-multiarch)
scudo=$(find /usr/lib/llvm-14 -name "libclang_rt.scudo_standalone-$(uname -m).so" 2>/dev/null | head -1)
names=("Spandrel" "Spandrel, checked" glibc jemalloc mimalloc tcmalloc scudo hardened_malloc)
spandrel=$(realpath "$target/release/libspandrel.so")
libraries=("$spandrel" "$spandrel:${spandrel%.so}_sized.so" "" "$lib/libjemalloc.so.2" "$lib/libmimalloc.so.2.0"
    "$lib/libtcmalloc_minimal.so.4" "$scudo"
    "$work/libhardened_malloc.so")
options=("" "check=on" "" "" "" "" "" "")

# 0 stopped by the allocator, 1 stopped by a fault, 2 goes on unharmed, 3 goes on, broken, 4 hangs; 9 nothing to try.
outcome() {
    local worst=0 code now
    for _ in 1 2 3; do
        code=0
        SPANDREL=$2 LD_PRELOAD=$1 timeout 60 "$work/misuse" "$3" >/dev/null 2>"$work/said" || code=$?
        # Its own CHECK ends with abort, too.
        ! grep -q '^failed: ' "$work/said" || code=CHECK
        case $code in
        0) now=2 ;;
        3) now=3 ;;
        77) now=9 ;;
        139 | 135 | 136) now=1 ;;
        132 | 133 | 134) now=0 ;;
        # A call that only failed.
        CHECK) now=2 ;;
        124) now=4 ;;
        *)
            echo "ci/misuse: $3 ended with $code on $1" >>"$work/failed"
            now=0
            ;;
        esac
        [ $now -gt $worst ] && worst=$now
    done
    echo $worst
}

words=("stopped" "faults" "goes on" "**broken**" "hangs" "" "" "" "" "-")
table() {
    local i misuse row o
    local -a there=() stopped=() broken=()
    for i in "${!names[@]}"; do
        if [ -z "${libraries[i]}" ] && [ "${names[i]}" != glibc ] || [ -n "${libraries[i]}" ] && [ ! -e "${libraries[i]%%:*}" ]; then
            echo "ci/misuse: no ${names[i]} here" >&2
        else
            there+=("$i") && stopped[i]=0 && broken[i]=0
        fi
    done
    row="| misuse |" && for i in "${there[@]}"; do row+=" ${names[i]} |"; done && echo "$row"
    row="|---|" && for i in "${there[@]}"; do row+="---|"; done && echo "$row"
    for misuse in $(grep -oE 'MISUSE\([a-z_]+, ' capi/tests/programs/misuse.c | grep -oE '[a-z_]{5,}'); do
        case $misuse in nothing | nearly_* | *_by_the_program) continue ;; esac
        row="| ${misuse//_/ } |"
        for i in "${there[@]}"; do
            o=$(outcome "${libraries[i]}" "${options[i]}" "$misuse" 2>/dev/null)
            row+=" ${words[o]} |"
            case $o in 0 | 1) stopped[i]=$((stopped[i] + 1)) ;; 3) broken[i]=$((broken[i] + 1)) ;; esac
        done
        echo "$row"
    done
    row="| **stopped or faults** |" && for i in "${there[@]}"; do row+=" ${stopped[i]} |"; done && echo "$row"
    row="| **broken** |" && for i in "${there[@]}"; do row+=" ${broken[i]} |"; done && echo "$row"
}

# The shell's own words about who was killed are not part of it.
table 2>"$work/errors" >"$work/table" || { cat "$work/errors" >&2; exit 1; }
grep '^ci/misuse' "$work/errors" >&2 || true
[ ! -e "$work/failed" ] || { sort -u "$work/failed" >&2; exit 1; }
if [ "${1:-}" = --write ]; then
    sed -i -e '/<!-- table -->/,/<!-- end -->/{/<!-- table -->/{p;r '"$work/table"'
};/<!-- end -->/p;d}' docs/MISUSE.md
else
    cat "$work/table"
fi
