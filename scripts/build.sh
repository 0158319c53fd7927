#!/usr/bin/env bash
# build.sh PRESET [TARGET...]: configures the preset's folder when needed and builds the targets (all by default).
# One job a core, but no more than one for 2 GiB of free memory: files that see tensors take up to 1.5 GiB to compile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

preset=$1
shift
folder=build
[[ $preset == release ]] || folder=build-$preset

jobs_for_memory=$(awk '/^MemAvailable/ { print int($2 / 2097152) }' /proc/meminfo)
jobs=$(nproc)
((jobs <= jobs_for_memory)) || jobs=$jobs_for_memory
((jobs >= 1)) || jobs=1

# A folder that was configured for another checkout, or not to the end, starts afresh.
if ! grep -qsx "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$folder/CMakeCache.txt" || [[ ! -f $folder/build.ninja ]]; then
  rm -rf "$folder"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
cmake --build "$folder" -j "$jobs" ${1:+--target} "$@"
