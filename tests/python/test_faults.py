"""Ranks that are killed or stopped: all others notice, name them and save nothing half-done; resuming loses nothing.

A dozen fixed injections of scripts/faults.py, which makes hundreds of random ones.
"""

import os
import signal
import sys
import time

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
from faults import Job, Setting, Workplace, differences, environment, free_port, inject  # noqa: E402

STEPS = 30
VOTE = Setting("vote", 3, STEPS)
FEEDBACK = Setting("ef-mean", 2, STEPS)
MEAN = Setting("mean", 4, STEPS)

# Moments: seconds after the start, or (step, seconds behind its row of metrics).
INJECTIONS = {
    "a rank dies at the start": (VOTE, "kill", [2], 0.3),
    "a rank dies": (VOTE, "kill", [1], (11, 0.003)),
    "rank 0 dies": (VOTE, "kill", [0], (16, 0.002)),
    "two ranks die": (VOTE, "two", [0, 2], (20, 0.004)),
    "rank 0 dies in a checkpoint": (VOTE, "checkpoint", [0], (7, 0.0)),
    "rank 0 dies late in a checkpoint": (VOTE, "checkpoint", [0], (13, 0.002)),
    "rank 0 dies in the final save": (VOTE, "kill", [0], (STEPS, 0.0)),
    "a rank hangs": (VOTE, "stop", [1], (9, 0.001)),
    "rank 0 hangs": (FEEDBACK, "stop", [0], (18, 0.005)),
    "a rank with residuals dies": (FEEDBACK, "kill", [1], (22, 0.004)),
    "a rank is asked to stop": (FEEDBACK, "term", [1], (5, 0.002)),
    "one of four dies": (MEAN, "kill", [3], (14, 0.003)),
}


@pytest.fixture(scope="module")
def place(program, tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("faults"), program)


@pytest.mark.parametrize("name", INJECTIONS)
def test_nothing_is_lost_when(place, name):
    setting, way, victims, moment = INJECTIONS[name]
    assert inject(place, setting, way, victims, moment, timeout=6).problems == []


def wait_for_rows(out, count, process):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        metrics = out / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    pytest.fail("no progress")
