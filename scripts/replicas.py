"""Long runs whose replicas are compared after every step.

    .venv/bin/python scripts/replicas.py [--steps 2000] [--ranks 4]

Trains a tiny model with each aggregate over several ranks, `replica_check_every = 1`: a single differing bit on any rank
would end the run. Prints a table.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from faults import PROGRAM, Job, Setting, Workplace, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--program", type=Path, default=PROGRAM)
    arguments = parser.parse_args()
    failed = False
    print("| aggregate | ranks | steps, replicas equal after each | first and last loss | minutes |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(folder, arguments.program.resolve())
        for aggregate in ("mean", "vote", "ef-mean"):
            out = place.new_folder()
            start = time.monotonic()
            job = Job(place, Setting(aggregate, arguments.ranks, arguments.steps), out, STEEPEST_CHECKPOINT_EVERY=0, STEEPEST_EVAL_EVERY=0)
            for rank in job.wait(7200):
                if rank.code != 0:
                    print(f"{aggregate} ended with {rank.code}: {rank.errors.strip()}")
                    failed = True
            losses = [row["train/loss"] for row in rows(out)]
            minutes = (time.monotonic() - start) / 60
            print(f"| {aggregate} | {arguments.ranks} | {len(losses)} | {losses[0]:.3f}, {losses[-1]:.3f} | {minutes:.1f} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
