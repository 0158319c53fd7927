"""Runs experiments in parallel, one thread each, and keeps what came of each as a line of docs/results/runs.jsonl.

An experiment that has a line is not run again, so an interrupted script goes on where it stopped. Losses do not depend on what
else the machine does; times do, so they are not taken here.
"""

import json
import math
import os
import re
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
                self.keep(row)
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

    def search(self, experiment):
        """The step size that `steepest tune --sos-fast` finds for an experiment without one; None without time for it."""
        key = f"search/{experiment.key}"
        if key not in self.done:
            if time.monotonic() > self.deadline:
                self.refused += 1
                return None
            out = self.folder / key.replace("/", "_")
            text, flags = self.recipe(experiment, experiment.shape.steps, threads=self.workers, log_every=50)
            found = self.call(["tune", "--sos-fast"], out, text, flags, self.workers)
            if found.returncode != 0:
                raise SystemExit(found.stderr)
            shutil.rmtree(out, ignore_errors=True)
            lr = float(re.search(r"^lr = (\S+)$", found.stdout, re.MULTILINE).group(1))
            self.keep({"key": key, "val_loss": None, "failure": None, "lr": lr, "commit": self.commit, "log": found.stdout})
        return self.done[key]["lr"]

    def keep(self, row):
        self.done[row["key"]] = row
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def recipe(self, experiment, steps, threads, log_every):
        """The recipe that all experiments share, and the flags that make it this one."""
        flags = {"optimizer.method": experiment.method, "train.batch-tokens": experiment.shape.batch_tokens,
                 "train.max-steps": steps, "train.warmup-steps": int(steps * WARMUP_SHARE), "train.seed": experiment.seed,
                 "train.threads": threads, "train.log-every": log_every}
        for key, value in experiment.settings:
            place = key if key.startswith(("train.", "model.")) else f"optimizer.{key}"
            flags[place.replace("_", "-")] = value
        return RECIPE.format(shape=experiment.shape.name, data=self.data), flags

    def call(self, verb, out, text, flags, threads):
        """Runs the program on a recipe given as text, with flags, in a new folder `out`."""
        shutil.rmtree(out, ignore_errors=True)
        recipe = out.with_suffix(".toml")
        recipe.write_text(text, encoding="utf-8")
        words = [self.program, *verb, recipe, "--out", out] + [word for key, value in flags.items() for word in (f"--{key}", value)]
        result = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False,
                                env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        recipe.unlink()
        return result

    def train(self, experiment, steps, threads, log_every=50):
        """(rows of metrics, None) of a run, or (None, why) when the loss or a gradient stopped being finite."""
        return self.launch(experiment.key, *self.recipe(experiment, steps, threads, log_every), threads)

    def launch(self, key, text, flags, threads):
        """The same of any recipe, given as text and as flags."""
        out = self.folder / key.replace("/", "_").replace(".", "_")
        result = self.call(["train"], out, text, flags, threads)
        if result.returncode != 0:
            failure = (result.stderr.strip().splitlines() or ["no message"])[-1]
            if "not finite" not in failure:
                raise SystemExit(f"{result.args}\n{failure}")
            return None, failure
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(out, ignore_errors=True)
        return metrics, None
