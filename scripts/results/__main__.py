"""results: trains every method of plan.py, times their steps, and writes docs/results.md with its pictures
and recipes/tuned/.

python scripts/results [--hours H] [--workers N]: about 3 hours on 2 cores, and resumable: what is done is kept in
docs/results/*.jsonl, a second call goes on from there, and a call that finds everything done only writes the page. After --hours it
stops between two runs and writes the page from what there is, saying what is missing.
"""

import argparse
import time
from pathlib import Path

import page
import plan
import recipes
from convex import convex_problems
from runner import WARMUP_SHARE, Runner
from timing import timing_rows

ROOT = Path(__file__).resolve().parents[2]


def best_of(experiments, rows):
    """(experiment, row) with the lowest loss, or None when all runs diverged."""
    usable = [(row["val_loss"], place) for place, row in enumerate(rows) if row and row["val_loss"] is not None]
    if not usable:
        return None
    place = min(usable)[1]
    return experiments[place], rows[place]


def compare(runner, shape, methods):
    """Results of all methods: their grids (AdamW's first: the others use its learning rate), and the best runs with all seeds."""
    grids, adam_lr = {}, None
    for method in methods:
        if method.label == "adamw":
            grids[method.label] = plan.grid(shape, method, None)
            best = best_of(grids[method.label], runner.run(grids[method.label]))
            adam_lr = dict(best[0].settings)["lr"] if best else None
    for method in methods:
        if method.searched and (found := runner.search(plan.grid(shape, method, adam_lr)[0])) is None:
            grids[method.label] = []
        else:
            grids.setdefault(method.label, plan.grid(shape, method, adam_lr, found if method.searched else None))
    runner.run([experiment for grid in grids.values() for experiment in grid])

    chosen = {label: best_of(grid, runner.rows(grid)) for label, grid in grids.items()}
    runner.run([repeat for best in chosen.values() if best for repeat in plan.repeats(best[0])])
    return [page.Result(method, shape, runner.rows(grids[method.label]), seeds(runner, chosen[method.label])) for method in methods]


def seeds(runner, best):
    """Rows of a method's best run with all seeds; none when every run diverged."""
    return [best[1], *runner.rows(plan.repeats(best[0]))] if best else []


def main():
    parser = argparse.ArgumentParser(prog="results", description=__doc__)
    parser.add_argument("--hours", type=float, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--program", default=ROOT / "build" / "steepest")
    parser.add_argument("--data", default=ROOT / "runs" / "demo" / "data", help="prepared by `make demo`")
    arguments = parser.parse_args()
    if not (Path(arguments.data) / "dataset.json").exists():
        parser.error(f"{arguments.data} is not prepared; run `make demo` first, or name a folder that `steepest prepare` wrote")
    store = ROOT / "docs" / "results"
    store.mkdir(parents=True, exist_ok=True)
    work = ROOT / "runs" / "results"
    work.mkdir(parents=True, exist_ok=True)
    runner = Runner(arguments.program, arguments.data, work, store / "runs.jsonl", arguments.workers,
                    deadline=time.monotonic() + 3600 * arguments.hours)

    report = page.Report(plan.SMALL)
    report.small = compare(runner, plan.SMALL, plan.METHODS)
    report.start_values = [page.Result(method, plan.SMALL, runner.run(plan.grid(plan.SMALL, method, None)), [])
                           for method in plan.START_VALUES]
    finalists = [result.method for result in page.ranking(report.small)[: plan.FINALISTS]]
    finalists += [method for method in plan.METHODS if method.label == "adamw" and method not in finalists]
    report.larger = compare(runner, plan.LARGER, finalists)
    report.timing = timing_rows(runner, store / "timing.jsonl", plan.SMALL, plan.METHODS)
    report.larger_timing = timing_rows(runner, store / "timing.jsonl", plan.LARGER, finalists)
    if time.monotonic() < runner.deadline or (store / "convex.json").exists():
        report.convex = convex_problems(ROOT, store / "convex.json")
    report.missing = runner.refused
    page.write(report, ROOT / "docs")
    recipes.write(report.small, ROOT / "recipes" / "tuned", WARMUP_SHARE)


if __name__ == "__main__":
    main()
