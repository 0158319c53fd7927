"""Runs experiments in parallel, one thread each, and keeps what came of each as a line of docs/results/runs.jsonl.

An experiment that has a line is not run again, so an interrupted script goes on where it stopped. Losses do not depend on what
else the machine does; times do, so they are not taken here.
"""

import json
import math
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECIPE = """
[model]
config = "{shape}"
[data]
path = "{data}"
sequence_length = 256
[train]
micro_batch_size = 16
schedule = "cosine"
final_lr_fraction = 0.1
precision = "bf16"
[eval]
every = 0
tokens = 200000
[checkpoint]
every = 0
keep = 1
"""
WARMUP_SHARE = 0.1


class Runner:
    """`deadline`: no run starts after this value of time.monotonic(); `refused` counts those that were due then."""

    def __init__(self, program, data, folder, log, workers, deadline=float("inf")):
        self.program, self.data, self.folder = Path(program), Path(data), Path(folder)
        self.log, self.workers, self.deadline = Path(log), workers, deadline
        self.refused = 0
        self.done = {}
        if self.log.exists():
            for line in self.log.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.done[row["key"]] = row
        self.commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                                     check=False).stdout.strip()

    def run(self, experiments):
        """Rows of all experiments, in their order; None for those that no time was left for."""
        missing = list({e.key: e for e in experiments if e.key not in self.done}.values())
        with ThreadPoolExecutor(self.workers) as pool:
            for row in pool.map(self.one, missing):
                if row is None:
                    self.refused += 1
                    continue
                self.done[row["key"]] = row
                with open(self.log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{row['key']}: {row['val_loss'] if row['val_loss'] is not None else row['failure']}", flush=True)
        return self.rows(experiments)

    def rows(self, experiments):
        """What is known of the experiments, None for those that did not run."""
        return [self.done.get(e.key) for e in experiments]

    def one(self, experiment):
        if time.monotonic() > self.deadline:
            return None
        row = {"key": experiment.key, "shape": experiment.shape.name, "method": experiment.method,
               "settings": dict(experiment.settings), "seed": experiment.seed, "tokens": experiment.shape.tokens,
               "val_loss": None, "failure": None, "commit": self.commit}
        metrics, failure = self.train(experiment, experiment.shape.steps, threads=1)
        if metrics is None:
            return row | {"failure": failure}
        loss = metrics[-1]["val/loss"]
        if loss is None or not math.isfinite(loss):
            return row | {"failure": "the validation loss is not finite"}
        return row | {"val_loss": loss, "state_bytes": metrics[-1]["mem/optimizer_state_bytes"],
                      "step_size": metrics[-1]["opt/step_size"],
                      "curve": [(m["step"], round(m["train/loss"], 4)) for m in metrics if m["train/loss"] is not None]}

    def train(self, experiment, steps, threads, log_every=50):
        """(rows of metrics, None) of a run, or (None, why) when the loss or a gradient stopped being finite."""
        flags = {"optimizer.method": experiment.method, "train.batch-tokens": experiment.shape.batch_tokens,
                 "train.max-steps": steps, "train.warmup-steps": int(steps * WARMUP_SHARE), "train.seed": experiment.seed,
                 "train.threads": threads, "train.log-every": log_every}
        flags |= {f"optimizer.{key.replace('_', '-')}": value for key, value in experiment.settings}
        return self.launch(experiment.key, RECIPE.format(shape=experiment.shape.name, data=self.data), flags, threads)

    def launch(self, key, text, flags, threads):
        """The same of any recipe, given as text and as flags."""
        name = key.replace("/", "_")
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        recipe = self.folder / f"{name}.toml"
        recipe.write_text(text, encoding="utf-8")
        command = [self.program, "train", recipe, "--out", out]
        for flag, value in flags.items():
            command += [f"--{flag}", str(value)]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                                env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        recipe.unlink()
        if result.returncode != 0:
            failure = (result.stderr.strip().splitlines() or ["no message"])[-1]
            if "not finite" not in failure:
                raise SystemExit(f"{' '.join(map(str, command))}\n{failure}")
            return None, failure
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(out, ignore_errors=True)
        return metrics, None
