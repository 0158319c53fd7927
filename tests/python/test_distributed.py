"""Several processes: mean and vote, exact resume, failures that all ranks notice, restarts by torchrun."""

import json
import os
import signal
import time

import pytest

from test_train import assert_same_checkpoint, last_checkpoint, rows, wait_for_step

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
VOTE = ["--distributed.aggregate", "vote"]


def parameters_of(out):
    config = json.loads((last_checkpoint(out) / "config.json").read_text())
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden
    return 2 * vocab * hidden + hidden + config["num_hidden_layers"] * layer


@pytest.mark.parametrize("count", [2, 4])
def test_votes_train_and_send_bits(run, recipe, ranks, tmp_path, count):
    out = tmp_path / "out"
    result = run("train", recipe("signum", max_steps=40), "--out", out, *VOTE, launcher=ranks(count), env=ONE_THREAD)
    assert result.returncode == 0, result.stderr
    written = rows(out)
    assert written[-1]["train/loss"] < written[0]["train/loss"] - 0.5
    assert all(0.5 <= row["opt/sign_agreement"] <= 1 for row in written)
    bits = 2 * (count - 1) / count
    payload = parameters_of(out) * bits / 8
    assert payload <= written[5]["comm/bytes_sent"] <= 1.15 * payload + 2000, "one bit each way, headers and shard rounding"


def test_mean_of_two_equals_one(run, recipe, ranks, tmp_path):
    path = recipe("adamw", max_steps=8, precision="fp32")
    assert run("train", path, "--out", tmp_path / "one", env=ONE_THREAD).returncode == 0
    two = run("train", path, "--out", tmp_path / "two", launcher=ranks(2), env=ONE_THREAD)
    assert two.returncode == 0, two.stderr
    one_losses = [row["train/loss"] for row in rows(tmp_path / "one")]
    two_losses = [row["train/loss"] for row in rows(tmp_path / "two")]
    assert two_losses == pytest.approx(one_losses, rel=1e-4)


@pytest.mark.parametrize("method, flags", [("signum", VOTE), ("lion", VOTE), ("adamw", [])])
def test_resume_of_two_ranks_is_exact(run, recipe, ranks, tmp_path, method, flags):
    path = recipe(method, schedule="constant")
    options = {"launcher": ranks(2), "env": ONE_THREAD}
    assert run("train", path, "--out", tmp_path / "whole", *flags, **options).returncode == 0
    assert run("train", path, "--out", tmp_path / "halves", "--train.max-steps", 7, *flags, **options).returncode == 0
    result = run("train", path, "--out", tmp_path / "halves", "--resume", "auto", *flags, **options)
    assert result.returncode == 0, result.stderr
    assert_same_checkpoint(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "halves"))


def test_number_of_ranks_may_change_at_a_resume(run, recipe, ranks, tmp_path):
    out = tmp_path / "out"
    path = recipe("signum", schedule="constant", max_steps=16)
    for steps, launcher in ((4, ranks(2)), (8, ranks(4)), (12, ()), (16, ranks(2))):
        result = run("train", path, "--out", out, "--resume", "auto", "--train.max-steps", steps, *VOTE,
                     launcher=launcher, env=ONE_THREAD)
        assert result.returncode == 0, result.stderr
    losses = [row["train/loss"] for row in rows(out)]
    assert len(losses) == 16 and losses[-1] < losses[0]


def start_ranks(start, free_port, count, *arguments, env=None):
    port = free_port()
    return [
        start(*arguments, env={"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1",
                               "MASTER_PORT": port, **ONE_THREAD, **(env or {})})
        for rank in range(count)
    ]


def test_dead_rank_is_noticed_by_the_others(start, recipe, free_port, tmp_path):
    out = tmp_path / "out"
    processes = start_ranks(start, free_port, 3, "train", recipe("signum", max_steps=5000, batch_tokens=768), "--out", out, *VOTE)
    wait_for_step(out, 5, processes[0])
    processes[1].kill()
    for rank in (0, 2):
        _, errors = processes[rank].communicate(timeout=60)
        assert processes[rank].returncode == 1, errors
        assert "step " in errors and errors.count("\n") == 1, errors


def test_stopped_rank_is_noticed_within_the_timeout(start, recipe, free_port, tmp_path):
    out = tmp_path / "out"
    processes = start_ranks(start, free_port, 2, "train", recipe("signum", max_steps=5000), "--out", out, *VOTE,
                            "--distributed.timeout", 15)
    wait_for_step(out, 5, processes[0])
    os.kill(processes[1].pid, signal.SIGSTOP)
    _, errors = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 1 and "step " in errors, errors


def test_sigterm_to_one_rank_stops_all_after_saving(start, recipe, free_port, tmp_path):
    out = tmp_path / "out"
    processes = start_ranks(start, free_port, 2, "train", recipe("signum", max_steps=5000), "--out", out, *VOTE)
    wait_for_step(out, 5, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 75, errors
    assert json.loads((last_checkpoint(out) / "trainer.json").read_text())["step"] >= 5


def test_a_refused_gradient_ends_every_rank(start, recipe, free_port, tmp_path):
    """Decay of lr * weight_decay = 1e6 multiplies the weights by -1e6 each step, beyond fp32 after seven."""
    out = tmp_path / "out"
    path = recipe("sgd", max_steps=60, warmup_steps=0, schedule="constant", non_finite="refuse")
    processes = start_ranks(start, free_port, 2, "train", path, "--out", out, "--optimizer.lr", "1e6", "--optimizer.weight-decay", 1)
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "is not finite and [train] non_finite is \"refuse\"" in errors and errors.count("\n") == 1, errors
    steps = [row["step"] for row in rows(out)]
    assert steps == list(range(1, len(steps) + 1)) and all(row["opt/skipped_steps"] == 0 for row in rows(out))


@pytest.mark.parametrize("flag", [("--train.seed", "8"), ("--optimizer.lr", "0.0007"), ("--train.max-steps", "13")])
def test_ranks_that_disagree_are_refused(start, recipe, free_port, tmp_path, flag):
    path = recipe("signum")
    port = free_port()
    common = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **ONE_THREAD}
    first = start("train", path, "--out", tmp_path / "out", env={"RANK": 0, **common})
    second = start("train", path, "--out", tmp_path / "out", *flag, env={"RANK": 1, **common})
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        assert flag[1] in errors and "rank" in errors and errors.count("\n") == 1, errors


def test_torchrun_restarts_from_the_last_checkpoint(start, recipe, ranks, tmp_path):
    out = tmp_path / "out"
    process = start("train", recipe("signum", max_steps=300), "--out", out, *VOTE, "--checkpoint.every", 5,
                    launcher=ranks(2, "--max-restarts=2"), env=ONE_THREAD)
    wait_for_step(out, 12, process)
    victims = [pid for pid in children_of(process.pid) if "steepest" in open(f"/proc/{pid}/cmdline").read()]
    os.kill(victims[-1], signal.SIGKILL)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "resumed from" in output
    assert [row["step"] for row in rows(out)] == list(range(1, 301))


def children_of(parent):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = []
        for entry in os.listdir("/proc"):
            try:
                fields = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if entry.isdigit() and int(fields[1]) == parent:
                found.append(int(entry))
        if found:
            return sorted(found)
        time.sleep(0.1)
    return []
