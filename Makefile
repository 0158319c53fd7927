# Thin entry points; the work is in scripts/. Each target first installs what is missing (fast when nothing is).
.PHONY: build setup demo test check-fast fuzz bench results voting format check-format clean
.DEFAULT_GOAL := build

setup:
	@scripts/setup.sh

# build/steepest, the program, and .venv/, the Python environment.
build: setup
	@scripts/build.sh release steepest_cli

# About 6 minutes on 2 cores: a trained model, a picture of its loss and text that it wrote. TEXT=file uses another text.
demo: build
	@scripts/demo.sh $(if $(TEXT),"$(TEXT)")

# Everything; the first time about 50 minutes on 2 cores, most of it builds with sanitizers.
test: setup
	@scripts/test.sh

# The two-minute subset used while working.
check-fast: setup
	@scripts/test.sh --fast

# Longer, coverage-guided fuzzing by libFuzzer; it needs Debian's clang, libclang-rt-dev and libomp-dev.
fuzz: setup
	@scripts/build.sh fuzz fuzz_programs && ctest --test-dir build-fuzz -L '^fuzz$$' --output-on-failure

# Measurements, all or those of BENCH="name ..."; they never fail on a slow machine.
bench: setup
	@scripts/build.sh release steepest_cli benchmarks
	@scripts/bench.sh $(BENCH)

# docs/results.md: every method trained, tuned on grids of equal size, with seeds. About 3 hours on 2 cores; goes on where it
# was interrupted. Uses the data that `make demo` prepared.
results: setup
	@scripts/build.sh release steepest_cli convex
	@.venv/bin/python scripts/results

# docs/voting.md: votes, means and error feedback of 1 to 1,024 simulated workers. About 45 minutes; goes on where it
# was interrupted. Uses the data that `make demo` prepared.
voting: build
	@.venv/bin/python scripts/voting

format:
	@scripts/format.sh

check-format:
	@scripts/format.sh --check

clean:
	rm -rf build build-debug build-asan build-tsan build-fuzz
