#!/usr/bin/env bash
# bench.sh [NAME...]: runs the measurements bench/NAME.py, all by default, with their defaults. Each prints its own table;
# one that fails does not keep the others from running.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

names=("$@")
if ((${#names[@]} == 0)); then
  for file in bench/*.py; do names+=("$(basename "$file" .py)"); done
fi
status=0
for name in "${names[@]}"; do
  printf '\n== %s\n' "$name"
  python "bench/$name.py" || status=1
done
exit "$status"
