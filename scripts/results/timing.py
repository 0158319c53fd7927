"""How long a step and its update take: short runs of all methods one after the other with all cores, in two rounds.

Only meaningful while nothing else runs; the page says when it was measured.
"""

import json
import os
import statistics
import time
from datetime import date

import plan

STEPS = 40
FIRST = 10  # steps that warm caches up
ROUNDS = 2


def timing_rows(runner, store, shape, methods):
    """{method's label: {"step_ms", "optimizer_ms", "tokens_per_s", "date"}}; measured once, then read from `store`."""
    rows = {}
    if store.exists():
        every = map(json.loads, store.read_text(encoding="utf-8").splitlines())
        rows = {row["label"]: row for row in every if row["shape"] == shape.name}
    missing = [method for method in methods if method.label not in rows and time.monotonic() < runner.deadline]
    samples = {method.label: [] for method in missing}
    for _ in range(ROUNDS if missing else 0):
        for method in missing:
            experiment = plan.experiment(shape, method, method.centre, None, None, plan.SEEDS[0])
            metrics, _failure = runner.train(experiment, STEPS, threads=os.cpu_count(), log_every=1)
            samples[method.label] += (metrics or [])[FIRST:]
    for method in missing:
        steps = samples[method.label]
        if not steps:
            continue
        median = {name: statistics.median(step[name] for step in steps)
                  for name in ("perf/step_ms", "perf/optimizer_ms", "perf/tokens_per_s")}
        rows[method.label] = {"shape": shape.name, "label": method.label, "step_ms": median["perf/step_ms"],
                              "optimizer_ms": median["perf/optimizer_ms"],
                              "tokens_per_s": median["perf/tokens_per_s"], "date": date.today().isoformat()}
        with open(store, "a", encoding="utf-8") as file:
            file.write(json.dumps(rows[method.label]) + "\n")
    return rows
