#!/usr/bin/env bash
# format.sh [--check]: clang-format over the C++ files git knows or would add; --check changes nothing and exits 1 instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=(-i)
[[ ${1:-} == --check ]] && mode=(--dry-run -Werror)
git ls-files -z --cached --others --exclude-standard '*.h' '*.cc' | xargs -0 -r clang-format "${mode[@]}"
