"""voting: trains the runs of plan.py with simulated workers and writes docs/voting.md with its pictures.

python scripts/voting [--minutes M] [--workers N]: about 85 minutes of one core, 45 of two, and resumable: what is done is kept in
docs/results/voting.jsonl, a second call goes on from there, and a call that finds everything done only writes the page. After --minutes it
stops between two runs and writes the page from what there is, saying what is missing.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import page
import plan

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts" / "results"))
from runner import Runner  # noqa: E402

RECIPE = """
[model]
config = "{config}"
[data]
path = "{data}"
sequence_length = {length}
[train]
micro_batch_size = 1024
max_steps = {steps}
warmup_steps = {warmup}
schedule = "cosine"
final_lr_fraction = 0.1
precision = "bf16"
threads = 1
log_every = 10
[eval]
every = 0
tokens = 100000
[checkpoint]
every = 0
keep = 1
"""


class VotingRunner(Runner):
    """Runs the experiments of this plan, one thread each."""

    def one(self, experiment):
        if time.monotonic() > self.deadline:
            return None
        config = self.folder / "config.json"
        text = RECIPE.format(config=config, data=self.data, length=plan.LENGTH, steps=plan.STEPS, warmup=plan.WARMUP)
        row = {"key": experiment.key, "val_loss": None, "failure": None, "agreement": None, "commit": self.commit}
        start = time.monotonic()
        metrics, failure = self.launch(experiment.key, text, experiment.flags, threads=1)
        row["seconds"] = round(time.monotonic() - start, 1)
        if metrics is None:
            return row | {"failure": failure}
        loss = metrics[-1]["val/loss"]
        if loss is None or not math.isfinite(loss):
            return row | {"failure": "the validation loss is not finite"}
        return row | {"val_loss": loss, "first_loss": metrics[0]["val/loss"], "agreement": metrics[-1]["opt/sign_agreement"]}


def best_rate(runner, kind):
    """The learning rate with the lowest loss at plan.TUNED_AT workers; None while the grid is not complete."""
    rows = runner.run(plan.grid(kind))
    if not all(rows):
        return None
    usable = [(row["val_loss"], rate) for row, rate in zip(rows, plan.RATES) if row["val_loss"] is not None]
    return min(usable)[1] if usable else None


def main():
    parser = argparse.ArgumentParser(prog="voting", description=__doc__)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--program", default=ROOT / "build" / "steepest")
    parser.add_argument("--data", default=ROOT / "runs" / "demo" / "data", help="prepared by `make demo`")
    arguments = parser.parse_args()
    if not (Path(arguments.data) / "dataset.json").exists():
        parser.error(f"{arguments.data} is not prepared; run `make demo` first, or name a folder that `steepest prepare` wrote")
    store = ROOT / "docs" / "results" / "voting.jsonl"
    store.parent.mkdir(parents=True, exist_ok=True)
    work = ROOT / "runs" / "voting"
    work.mkdir(parents=True, exist_ok=True)
    (work / "config.json").write_text(json.dumps(plan.MODEL), encoding="utf-8")
    runner = VotingRunner(arguments.program, arguments.data, work, store, arguments.workers,
                          deadline=time.monotonic() + 60 * arguments.minutes)
    rates = {kind: best_rate(runner, kind) for kind in plan.KINDS}
    study = page.Study(rates)
    for experiments in study.experiments():
        runner.run(experiments)
    page.write(study, runner, ROOT / "docs")


if __name__ == "__main__":
    main()
