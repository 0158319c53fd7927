"""Ranks that are killed or stopped: all others notice, name them and save nothing half-done; resuming loses nothing.

A dozen fixed injections of scripts/faults.py, which makes hundreds of random ones.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "bench")]
from faults import Job, Rank, Setting, Workplace, differences, environment, free_port, inject, rows  # noqa: E402
from net.namespaces import Network, Unavailable  # noqa: E402

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
    for _attempt in range(4):
        outcome = inject(place, setting, way, victims, moment, timeout=10)
        assert outcome.problems == []
        if outcome.place not in ("after the end", "too busy to start") or "final save" in name:
            return
    pytest.fail(f"four times {outcome.place}: nobody was hurt")


def wait_for_rows(out, count, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        metrics = out / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"no progress, exit code {process.poll()}")


def test_batches_that_do_not_divide_are_shared_by_weight(place):
    """768 tokens are 24 windows; 5 ranks have 4 or 5 of them, and the mean is still that of the batch."""
    losses = []
    for ranks in (1, 5):
        out = place.new_folder()
        job = Job(place, Setting("mean", ranks, 12), out)
        assert [rank.code for rank in job.wait(120)] == [0] * ranks, job.ranks[0].errors
        losses.append([row["train/loss"] for row in rows(out)])
        assert ("5 rank(s) take 4 or 5 windows each" in job.ranks[0].output) == (ranks == 5)
    assert losses[1] == pytest.approx(losses[0], rel=3e-3)


def test_fewer_windows_than_ranks_are_refused(place):
    job = Job(place, Setting("vote", 2, 12), place.new_folder(), STEEPEST_TRAIN_BATCH_TOKENS=32)
    for rank in job.wait(60):
        assert rank.code == 2 and "makes 1 windows a step, fewer than the 2 ranks" in rank.errors, rank.errors


def test_a_slow_rank_is_named(place):
    out = place.new_folder()
    job = Job(place, Setting("vote", 3, 4000), out)
    slow = job.ranks[1].process
    wait_for_rows(out, 3, slow)
    deadline = time.monotonic() + 180
    while "takes" not in job.ranks[0].output and time.monotonic() < deadline and slow.poll() is None:
        done = job.steps_done()
        slow.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        slow.send_signal(signal.SIGCONT)
        job.wait_until(lambda before=done: job.steps_done() > before)
    said = [line for line in job.ranks[0].output.splitlines() if "times the median step" in line]
    job.wait(0)
    assert said and "rank 1 takes" in said[0] and said[0].startswith("warning: step "), said


@pytest.mark.parametrize("listen, code", [("lo", 0), ("127.0.0.1", 0), ("nope0", 1), ("203.0.113.7", 1)])
def test_where_ranks_listen_can_be_chosen(place, listen, code):
    job = Job(place, Setting("vote", 2, 8), place.new_folder(), STEEPEST_DISTRIBUTED_LISTEN=listen)
    for rank in job.wait(60):
        assert rank.code == code, rank.errors
        if code:
            assert f'listen is "{listen}"' in rank.errors and "lo (127.0.0.1)" in rank.errors, rank.errors


def test_ranks_without_the_secret_stay_outside(place):
    out = place.new_folder()
    job = Job(place, Setting("vote", 2, 8), out, STEEPEST_JOB_TOKEN="one secret")
    assert [rank.code for rank in job.wait(60)] == [0, 0]
    assert not any(b"one secret" in path.read_bytes() for path in out.rglob("*") if path.is_file())


def listening_ports(process):
    """TCP ports of 127.0.0.1 on which this process listens."""
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir() if entry.is_symlink()}
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(f[1].split(":")[1], 16) for f in fields if f[3] == "0A" and f"socket:[{f[9]}]" in sockets]


def test_strangers_at_the_ports_do_not_disturb_a_run(place):
    out = place.new_folder()
    job = Job(place, VOTE, out)
    wait_for_rows(out, 2, job.ranks[0].process)
    noise = random.Random(1)
    strangers = []
    for port in [port for rank in job.ranks for port in listening_ports(rank.process)]:
        for size in (0, 8, 300):
            strangers.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            strangers[-1].sendall(noise.randbytes(size))
    assert len(strangers) >= 3 * (1 + VOTE.ranks), "the store of rank 0, and each rank's own port"
    assert [rank.code for rank in job.wait(120)] == [0] * VOTE.ranks, job.ranks[0].errors
    for stranger in strangers:
        stranger.close()
    assert differences(out, place.reference(VOTE)) == []


@pytest.fixture
def network():
    """Three hosts whose cables can be pulled."""
    try:
        with Network(3) as made:
            yield made
    except Unavailable as reason:
        pytest.skip(f"no network namespaces here: {reason}")


def test_a_rank_that_is_cut_off_is_named_on_both_sides(place, network):
    out = place.new_folder()
    common = {"WORLD_SIZE": 3, "MASTER_ADDR": network.address(0), "MASTER_PORT": 29400, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1,
              "STEEPEST_DISTRIBUTED_LISTEN": network.interface}  # fmt: skip
    ranks = [
        Rank(network.command(r, place.arguments(Setting("vote", 3, 9000), out, 8)), environment(RANK=r, **common), place.folder)
        for r in range(3)
    ]
    try:
        wait_for_rows(out, 5, ranks[0].process)
        network.cut(2)
        for r, rank in enumerate(ranks):
            rank.process.wait(60)
            blamed = re.search(rf"\[distributed\] rank {r} of 3, [^:]+: rank (\d) (?:sent nothing for 8 s|is silent)", rank.errors)
            assert rank.code == 1 and blamed, rank.errors
            assert (blamed[1] == "2") == (r != 2), rank.errors
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.wait()


def children(process):
    """Process ids below this one."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents.setdefault(int(open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
        except OSError:
            continue
    found, open_ends = [], [process.pid]
    while open_ends:
        below = parents.get(open_ends.pop(), [])
        found += below
        open_ends += below
    return found


def test_lost_machines_and_new_ones_under_torchrun(place, torchrun):
    """--nnodes=1:4: agents come, up to four; two are killed with their ranks, the run goes on without them and then with a
    new one."""
    setting = Setting("vote", 2, 1_000_000)
    out = place.new_folder()
    port = free_port()
    timing = "join_timeout=120,last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=10"
    command = [
        str(torchrun), "--no-python", "--nnodes=1:4", "--nproc-per-node=1", "--max-restarts=5", "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=job", f"--rdzv-conf={timing}", "--local-addr=127.0.0.1",
        *place.arguments(setting, out, 60), "--eval.every", "0", "--checkpoint.every", "20",
    ]  # fmt: skip
    agents = []

    def start_agent():
        log = open(place.folder / f"agent{len(agents)}.log", "w+")
        agents.append(subprocess.Popen(command, env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        agents[-1].log = log

    def log_of(agent):
        return (place.folder / f"agent{agents.index(agent)}.log").read_text()

    def wait_for_ranks(ranks):
        """Until the run has gone on for a while with so many ranks; agents that come together may be let in one by one."""
        pattern = re.compile(r"= (\d+) rank\(s\) x")
        deadline = time.monotonic() + 120
        while pattern.findall(log_of(agents[0]))[-1:] != [str(ranks)]:
            assert time.monotonic() < deadline and agents[0].poll() is None, log_of(agents[0])
            time.sleep(0.1)
        wait_for_rows(out, len(rows(out)) + 30, agents[0])

    try:
        start_agent()  # it serves the rendezvous
        wait_for_ranks(1)
        start_agent()
        wait_for_ranks(2)
        start_agent()
        start_agent()
        wait_for_ranks(4)
        for agent in agents[2:]:
            for pid in [agent.pid, *children(agent)]:
                os.kill(pid, signal.SIGKILL)
        wait_for_ranks(2)
        start_agent()
        wait_for_ranks(3)
    finally:
        for agent in agents:
            for pid in [*children(agent), agent.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            agent.wait()
    steps = [row["step"] for row in rows(out)]
    assert steps == list(range(1, len(steps) + 1))
