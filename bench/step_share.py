"""What the optimizer step costs of a training step, in time and memory, for every method without state.

    .venv/bin/python bench/step_share.py [--model llama-60m] [--vocab 32000] [--steps 4] [--rounds 1] [--methods a,b]
        [--precision bf16|bf16-weights]

Stateless means that `steepest methods` gives the hidden matrices 0 bytes; some of these methods keep Adam for embedding and
head, so the column `state` says how many bytes a parameter it comes to. AdamW is there to compare.

Time: `steepest train` on random tokens, 16,384 tokens a step. The share is perf/optimizer_ms over perf/step_ms; the median
and the range are over the steps after the first two, of all rounds; the methods take turns.

Memory: a process that holds weights, gradients and state and only updates them (bench/step_memory.cc). `first` is how far the
first step raises its peak resident memory, `later` how far four more steps do, in percent of the weights. In a training run
neither is seen, since the memory of the activations is free again by then. Needs `scripts/build.sh release benchmarks`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peak_memory import ROOT, SHAPES, write_tokens

TOKENS, LENGTH, MICRO, WARM = 16384, 256, 8, 2


def output(*command):
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{command[0]} failed: {run.stderr.strip()}")
    return run.stdout


def stateless():
    """Methods whose hidden matrices have no state, from the program's own table."""
    table = json.loads(output(ROOT / "build/steepest", "methods", "--json"))
    return [row["name"] for row in table if row["roles"]["matrix"]["state_bytes_per_param"] == 0]


def train(folder, method, options):
    """Rows of metrics after the warm-up."""
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'[model]\nconfig = "{options.model}"\nvocab_size = {options.vocab}\n[data]\npath = "{folder}/data"\n'
        f'sequence_length = {LENGTH}\n[optimizer]\nmethod = "{method}"\n[train]\nbatch_tokens = {TOKENS}\n'
        f'micro_batch_size = {MICRO}\nmax_steps = {options.steps}\nprecision = "{options.precision}"\n'
        "[eval]\nevery = 0\ntokens = 256\n[checkpoint]\nevery = 0\n"
    )
    with tempfile.TemporaryDirectory(dir=folder) as out:
        output(ROOT / "build/steepest", "train", recipe, "--out", f"{out}/run")
        rows = [json.loads(line) for line in Path(f"{out}/run/metrics.jsonl").read_text().splitlines()]
    return rows[WARM:]


def memory(method, options):
    program = ROOT / "build/bench/step_memory"
    if not program.exists():
        sys.exit(f"{program} is missing; build it with `scripts/build.sh release benchmarks`")
    kind = "bf16" if options.precision == "bf16-weights" else "fp32"
    return [int(word) for word in output(program, options.model, options.vocab, method, kind).split()]


def line(method, rows, options):
    """The method's row of the table."""
    shares = [100 * row["perf/optimizer_ms"] / row["perf/step_ms"] for row in rows]
    weights, state, first, later = memory(method, options)
    parameters = weights / (2 if options.precision == "bf16-weights" else 4)
    return (
        f"{method:18} {statistics.median(row['perf/step_ms'] for row in rows):8.0f} "
        f"{statistics.median(row['perf/optimizer_ms'] for row in rows):12.1f} "
        f"{statistics.median(shares):6.2f}% {min(shares):6.2f}% ..{max(shares):5.2f}% {state / parameters:8.2f} "
        f"{100 * first / weights:6.2f}% {100 * later / weights:6.2f}%"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llama-60m", choices=SHAPES)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", default="", help="names, comma-separated; default: all without state, and adamw")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "bf16-weights"))
    options = parser.parse_args()
    if options.steps <= WARM:
        sys.exit(f"--steps is {options.steps}; the first {WARM} only warm up, so it must be more")
    methods = options.methods.split(",") if options.methods else [*stateless(), "adamw"]
    rows = {method: [] for method in methods}
    print(f"{options.model}, vocabulary {options.vocab}, precision {options.precision}, {TOKENS} tokens a step")
    print(f"{'method':18} {'step ms':>8} {'optimizer ms':>12} {'share':>7} {'range':>15} {'state B':>8} {'first':>7} {'later':>7}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "data").mkdir()
        write_tokens(folder / "data", options.vocab)
        for turn in range(options.rounds):
            for method in methods:
                rows[method] += train(folder, method, options)
                if turn + 1 == options.rounds:
                    print(line(method, rows[method], options), flush=True)


if __name__ == "__main__":
    main()
