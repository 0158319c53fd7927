#!/usr/bin/env bash
# test.sh [--fast]: every test of the project, the sanitizers among them; --fast: the subset that takes two minutes
# once everything is built. The last line sums all results: `N passed, N failed, N skipped`. Exits 1 if anything failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

readonly results=$PWD/build/test-results
fast=
[[ ${1:-} == --fast ]] && fast=1
failures=()

# phase TITLE COMMAND...: runs the command and reports its time. A failed one is remembered, and the others still run.
phase() {
  local title=$1 started=$SECONDS status=0
  shift
  printf '\n== %s\n' "$title"
  "$@" || status=$?
  printf '== %s: %s in %d s\n' "$title" "$([[ $status -eq 0 ]] && echo done || echo FAILED)" $((SECONDS - started))
  [[ $status -eq 0 ]] || failures+=("$title")
  return "$status"
}

# ctest_in FOLDER NAME OPTION...: runs tests of a build folder, quietly but for failures.
ctest_in() {
  local folder=$1 name=$2
  shift 2
  ctest --test-dir "$folder" -j "$(nproc)" --output-on-failure --no-tests=error --output-junit "$results/$name.xml" "$@" |
    grep -vE '^ *Start +[0-9]+:|Passed +[0-9.]+ sec$'
}

python_tests() {
  python -m pytest -q -p no:cacheprovider --durations=10 --junitxml="$results/python.xml" "$@"
}

# sanitized PRESET LABELS TARGET...: builds only what is needed; the tests with a label that LABELS matches, without whole
# optimisations, which take minutes under sanitizers and touch little memory.
sanitized() {
  local preset=$1 labels=$2
  shift 2
  scripts/build.sh "$preset" "$@" &&
    ctest_in "build-$preset" "$preset" -L "^($labels)\$" -E '^(ParameterFreeSpec\.A[0-9]|SignSpec\.Toy)'
}

rm -rf "$results"
if phase "build" scripts/build.sh release; then
  mkdir -p "$results"
  if [[ $fast ]]; then
    phase "unit tests" ctest_in build unit -LE '^(comm|fuzz_brief)$'
    phase "Python tests" python_tests tests/python/test_cli.py
  else
    phase "unit tests" ctest_in build unit -LE '^fuzz_brief$'
    phase "Python tests" python_tests tests/python tests/install
    phase "address and undefined behaviour sanitizers, fuzzing" sanitized asan \
      'base|kernels|optim|data|comm|model|fuzz_brief' \
      test_base test_kernels test_optim test_data test_comm test_model test_fuzz
    phase "thread sanitizer" sanitized tsan 'comm' test_comm
  fi
fi

echo
exec python scripts/test_counts.py "$results" "${failures[@]}"
