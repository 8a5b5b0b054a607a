#!/usr/bin/env bash
# The concurrency models on the shipping types: loom (orderings, every interleaving within its
# bound), then shuttle (more threads, random schedules). Both run the seeded bugs and see them fail.
#
#   ci/models.sh          the bounds of CI
#   ci/models.sh --long   wider bounds; quoted in loom_tests/README.md
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = --long ] && export SPANDREL_LOOM=long
# Separate folders, so that the flags do not throw away each other's and the ordinary build.
target=${CARGO_TARGET_DIR:-target}
for checker in loom shuttle; do
    echo "== $checker"
    CARGO_TARGET_DIR="$target/$checker" \
        RUSTFLAGS="--cfg spandrel_model --cfg spandrel_$checker" \
        cargo test --release --quiet -p loom_tests
done
