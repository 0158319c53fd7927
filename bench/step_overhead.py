"""Time a training run spends outside the model: data, metrics, logging, and what a checkpoint stalls.

    .venv/bin/python bench/step_overhead.py [--model llama-20m] [--vocab 4096] [--steps 60] [--repetitions 3]

Whole-process wall time between the first and the last row of metrics is compared with the sum of perf/step_ms (model, data
and update), once without checkpoints and once with a checkpoint every 10 steps. The reading of a batch is timed as part of a
step, so it is bounded separately: `--data` windows are copied from a memory map at several GB/s.
A copy of the checkpoint's bytes is timed in the same run for comparison with the stall.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from peak_memory import ROOT, SHAPES, write_tokens

BATCH, LENGTH = 8, 256


def run(folder, name, options, every):
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'[model]\nconfig = "{options.model}"\nvocab_size = {options.vocab}\n[data]\npath = "{folder}/data"\n'
        f'sequence_length = {LENGTH}\n[optimizer]\nmethod = "adamw"\n[train]\nbatch_tokens = {BATCH * LENGTH}\n'
        f"micro_batch_size = {BATCH}\nmax_steps = {options.steps}\n[eval]\nevery = 0\ntokens = 256\n"
        f"[checkpoint]\nevery = {every}\nkeep = 1\n"
    )
    process = subprocess.Popen([str(ROOT / "build/steepest"), "train", str(recipe), "--out", str(folder / name)],
                               stdout=subprocess.PIPE, text=True)
    times = {}
    for line in process.stdout:
        if line.startswith("step "):
            times[int(line.split()[1].split("/")[0])] = time.perf_counter()
    assert process.wait() == 0
    rows = {row["step"]: row for row in map(json.loads, (folder / name / "metrics.jsonl").read_text().splitlines())}
    # The first steps warm up, the last one includes an evaluation.
    first, last = 5, options.steps - 1
    wall = 1e3 * (times[last] - times[first])
    steps = sum(rows[step]["perf/step_ms"] for step in range(first + 1, last + 1))
    return wall, steps, last - first


def copy_ms(parameters):
    """One copy of weights and AdamW's state into fresh memory."""
    source = torch.ones(3 * parameters)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        source.clone()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llama-20m", choices=SHAPES)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    hidden, inner, _, layers = SHAPES[options.model]
    parameters = 2 * options.vocab * hidden + layers * (4 * hidden**2 + 3 * hidden * inner + 2 * hidden) + hidden
    outside, stall = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "data").mkdir()
        write_tokens(folder / "data", options.vocab)
        for repetition in range(options.repetitions):
            wall, steps, count = run(folder, f"plain{repetition}", options, 0)
            outside.append(100 * (wall - steps) / wall)
            saved_wall, saved_steps, count = run(folder, f"saved{repetition}", options, 10)
            stall.append(((saved_wall - saved_steps) - (wall - steps)) / (count // 10))
    print(f"outside the step: median {statistics.median(outside):.2f} % of the wall time "
          f"(min {min(outside):.2f}, max {max(outside):.2f})")
    print(f"stall of one checkpoint: median {statistics.median(stall):.1f} ms (min {min(stall):.1f}, max {max(stall):.1f}); "
          f"a copy of its {12 * parameters / 2**20:.0f} MiB takes {copy_ms(parameters):.1f} ms")


if __name__ == "__main__":
    main()
