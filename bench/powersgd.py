"""Losses of PowerSGD, votes and the 1-bit mean at equal tokens, equal bytes and equal time.

    python bench/powersgd.py [--steps 300] [--ms "powersgd-1=163,powersgd-4=183,vote=93,ef-mean=96"]

Two ranks train the llama-9m shape on prepared text (`make demo` prepares it): PyTorch's DistributedDataParallel with AdamW
in fp32 and under its PowerSGD hook of rank 1 and 4, `steepest train` with AdamW (mean, ef-mean) and Signum (vote). Every side
takes the best of three learning rates at equal tokens. Then votes and the 1-bit mean run again, with the steps that send as
many bytes as PowerSGD of rank 1 and with those that take as long at 100 Mbit; bytes and milliseconds of a step are those of
bench/network.py (docs/benchmarks.md), since losses do not depend on the network. Schedules are stretched to the steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node=2"]
DDP = {"fp32": 4e-3, "powersgd-1": 4e-3, "powersgd-4": 4e-3}  # kind: centre of the three learning rates
STEEPEST = {  # side: method, flags, centre
    "mean": ("adamw", [], 4e-3),
    "vote": ("signum", ["--distributed.aggregate", "vote"], 5e-4),
    "ef-mean": ("adamw", ["--distributed.aggregate", "ef-mean"], 4e-3),
}
FACTORS = (0.5, 1, 2)
BATCH, LENGTH, CONFIG = 8, 256, "llama-9m"
BYTES = {"powersgd-1": 0.106, "powersgd-4": 0.308, "vote": 0.232, "ef-mean": 0.234}  # MB a step and rank
MILLISECONDS = "powersgd-1=163,powersgd-4=183,vote=93,ef-mean=96"


def checked(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def ddp_loss(kind, data, steps, lr):
    out = checked([*TORCHRUN, REPOSITORY / "bench/net/learner.py", kind, CONFIG, data, BATCH, LENGTH, steps, lr])
    return float(out.split("validation loss ")[1].split()[0])


def steepest_loss(side, data, steps, lr):
    method, flags, _ = STEEPEST[side]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(
            f'[model]\nconfig = "{CONFIG}"\n[data]\npath = "{data}"\nsequence_length = {LENGTH}\n'
            f'[optimizer]\nmethod = "{method}"\nlr = {lr}\n'
            f"[train]\nbatch_tokens = {2 * BATCH * LENGTH}\nmicro_batch_size = {BATCH}\nmax_steps = {steps}\n"
            f'warmup_steps = {steps // 10}\nschedule = "cosine"\nfinal_lr_fraction = 0.1\nseed = 1\nthreads = 1\n'
            "[eval]\nevery = 0\ntokens = 140000\n[checkpoint]\nevery = 0\n"
        )
        out = Path(folder) / "out"
        checked([*TORCHRUN, "--no-python", REPOSITORY / "build/steepest", "train", recipe, "--out", out, *flags])
        return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["val/loss"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "runs/demo/data")
    parser.add_argument("--ms", default=MILLISECONDS, help="milliseconds of a step at 100 Mbit")
    arguments = parser.parse_args()
    if not (arguments.data / "dataset.json").exists():
        parser.error(f"{arguments.data} is not prepared; run `make demo` first")
    milliseconds = {name: float(value) for name, value in (part.split("=") for part in arguments.ms.split(","))}
    sides = [("DDP", kind, centre) for kind, centre in DDP.items()] + [("steepest", side, row[2]) for side, row in STEEPEST.items()]

    def loss(system, side, steps, lr):
        return (ddp_loss if system == "DDP" else steepest_loss)(side, arguments.data, steps, lr)

    print("| side | learning rate | steps | validation loss | |\n|---|---|---|---|---|")
    rates = {}
    for system, side, centre in sides:
        losses = {centre * factor: loss(system, side, arguments.steps, centre * factor) for factor in FACTORS}
        rates[side] = min(losses, key=losses.get)
        tried = ", ".join(f"{lr:g}: {value:.3f}" for lr, value in losses.items())
        print(f"| {system} {side} | {rates[side]:g} | {arguments.steps} | {min(losses.values()):.3f} | equal tokens ({tried}) |", flush=True)
    for what, cost in (("bytes", BYTES), ("time", milliseconds)):
        for system, side in (("DDP", "powersgd-4"), ("steepest", "vote"), ("steepest", "ef-mean")):
            steps = round(arguments.steps * cost["powersgd-1"] / cost[side])
            print(f"| {system} {side} | {rates[side]:g} | {steps} | {loss(system, side, steps, rates[side]):.3f} | "
                  f"the {what} of powersgd-1 |", flush=True)


if __name__ == "__main__":
    main()
