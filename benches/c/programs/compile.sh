#!/usr/bin/env bash
# Compiles every program here into a directory: compile.sh DIRECTORY
set -euo pipefail
to=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
for source in *.c *.cpp; do
    program=$to/${source%.*}
    # Done already, from this source.
    [ "$program" -nt "$source" ] && [ "$program" -nt common.h ] && continue
    # Calls of malloc and free stay calls, also where the compiler could do without them.
    case $source in
        *.c) cc=(gcc -std=c11 -D_GNU_SOURCE) ;;
        *.cpp) cc=(g++ -std=c++17) ;;
    esac
    "${cc[@]}" -O2 -g -Wall -Wextra -Werror -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc \
        -fno-builtin-free -pthread "$source" -o "$program"
done
