"""Parts of methods that nothing else trains together, from the recipe to the checkpoint: three steps of each."""

import math

import pytest
from test_distributed import ONE_THREAD
from test_train import last_checkpoint, rows

THREE = {"max_steps": 3, "warmup_steps": 0}


def expect_trained(result, out):
    """Three steps whose losses are numbers that move, and a checkpoint."""
    assert result.returncode == 0, result.stderr
    losses = [row["train/loss"] for row in rows(out)]
    assert len(losses) == 3 and all(map(math.isfinite, losses)) and len(set(losses)) == 3
    assert (last_checkpoint(out) / "model.safetensors").is_file()


def test_muon_under_the_one_bit_mean(run, recipe, ranks, tmp_path):
    out = tmp_path / "out"
    checks = ["--distributed.aggregate", "ef-mean", "--distributed.replica-check-every", 1]
    result = run("train", recipe("muon", **THREE), "--out", out, *checks, launcher=ranks(2), env=ONE_THREAD)
    expect_trained(result, out)
    assert "error feedback" in result.stdout + result.stderr


def test_swan_beside_adam_whose_second_moment_starts_at_random(run, recipe, tmp_path):
    out = tmp_path / "out"
    head = ["--optimizer.head.v0", "random"]
    result = run("train", recipe("swan", **THREE), "--out", out, *head)
    expect_trained(result, out)
    plain = tmp_path / "plain"
    assert run("train", recipe("swan", **THREE), "--out", plain).returncode == 0
    first, again = ([row["train/loss"] for row in rows(folder)] for folder in (out, plain))
    assert first[0] == again[0] and first[1:] != again[1:], "the start of the second moment shows after the first step"


@pytest.mark.parametrize(
    "method, aggregate, flags",
    [
        ("galore", "ef-mean", []),
        ("fira", "mean", ["--train.precision", "bf16-weights", "--optimizer.matrix.refresh", 2]),
        ("apollo", "vote", ["--optimizer.matrix.direction", "sign", "--optimizer.matrix.lr", 1e-3]),
    ],
)
def test_low_rank_memories_between_ranks(run, recipe, ranks, tmp_path, method, aggregate, flags):
    """Replicas project by themselves and stay equal."""
    out = tmp_path / "out"
    shared = ["--distributed.aggregate", aggregate, "--distributed.replica-check-every", 1]
    expect_trained(run("train", recipe(method, **THREE), "--out", out, *shared, *flags, launcher=ranks(2), env=ONE_THREAD), out)
