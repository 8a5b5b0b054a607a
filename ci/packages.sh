#!/usr/bin/env bash
# Installs those of the Debian packages named that are missing.
set -euo pipefail
# One at a time, or the package manager refuses; who comes second finds installed what the first has installed.
exec 9>"${TMPDIR:-/tmp}/spandrel-packages.lock"
flock 9
wanted=()
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || wanted+=("$package")
done
[ ${#wanted[@]} -gt 0 ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${wanted[@]}" >/dev/null
