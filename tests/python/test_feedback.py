"""The 1-bit mean with error feedback between processes: it trains, sends bits, resumes, and loses nothing at a fold."""

import json
import struct

import pytest
from safetensors import safe_open

from test_distributed import ONE_THREAD, parameters_of
from test_train import assert_same_checkpoint, last_checkpoint, rows

EF_MEAN = ["--distributed.aggregate", "ef-mean"]


@pytest.mark.parametrize("count", [2, 3])
def test_one_bit_mean_trains_and_sends_bits(run, recipe, ranks, tmp_path, count):
    out = tmp_path / "out"
    path = recipe("adamw", max_steps=40, batch_tokens=64 * 12 * count)
    checks = ["--distributed.replica-check-every", 1]
    result = run("train", path, "--out", out, *EF_MEAN, *checks, launcher=ranks(count), env=ONE_THREAD)
    assert result.returncode == 0, result.stderr
    assert "error feedback" in result.stdout + result.stderr
    written = rows(out)
    assert written[-1]["train/loss"] < written[0]["train/loss"] - 0.5
    parameters = parameters_of(out)
    payload = parameters * 2 * (count - 1) / count / 8
    assert payload <= written[5]["comm/bytes_sent"] <= 1.15 * payload + 2000, "one bit each way, scales and headers"
    state = written[5]["mem/optimizer_state_bytes"] - 8 * parameters
    assert state == pytest.approx(4 * parameters * (1 + 1 / count), rel=0.1), "e on each rank, its shard of r"


def test_resume_is_exact(run, recipe, ranks, tmp_path):
    path = recipe("signum", schedule="linear", final_lr_fraction=0.5)
    options = {"launcher": ranks(2), "env": ONE_THREAD}
    whole = run("train", path, "--out", tmp_path / "whole", *EF_MEAN, **options)
    assert whole.returncode == 0, whole.stderr
    # The schedule must be that of 12 steps: stop by deleting what came after step 8.
    halves = tmp_path / "halves"
    assert run("train", path, "--out", halves, *EF_MEAN, **options).returncode == 0
    result = run("train", path, "--out", halves, "--resume", halves / "checkpoints" / "step_00000008", *EF_MEAN, **options)
    assert result.returncode == 0, result.stderr
    assert_same_checkpoint(last_checkpoint(tmp_path / "whole"), last_checkpoint(halves))
    saved = json.loads((last_checkpoint(halves) / "trainer.json").read_text())["feedback"]
    assert saved["unit"] == "gradient" and saved["block"] == 4096 and saved["eta"] > 0


def test_folded_residuals_go_on_with_another_number_of_ranks(run, recipe, ranks, tmp_path):
    out = tmp_path / "out"
    path = recipe("sgd", schedule="constant", max_steps=16, batch_tokens=64 * 12, extra='worker_state = "folded"\n')
    for steps, launcher in ((4, ranks(3)), (8, ranks(2)), (12, ()), (16, ranks(2))):
        result = run("train", path, "--out", out, "--resume", "auto", "--train.max-steps", steps, *EF_MEAN,
                     launcher=launcher, env=ONE_THREAD)
        assert result.returncode == 0, result.stderr
        with safe_open(last_checkpoint(out) / "optimizer.safetensors", "pt") as file:
            names = list(file.keys())
        assert not any(name.endswith(".feedback_worker") for name in names)
        # One rank owes nothing any more.
        assert any(name.endswith(".feedback_owner") for name in names) == (steps != 12)
    losses = [row["train/loss"] for row in rows(out)]
    assert len(losses) == 16 and losses[-1] < losses[0]


def test_residuals_are_not_dropped_silently(run, recipe, ranks, tmp_path):
    out = tmp_path / "out"
    path = recipe("sgd", max_steps=4)
    assert run("train", path, "--out", out, *EF_MEAN, launcher=ranks(2), env=ONE_THREAD).returncode == 0
    result = run("train", path, "--out", out, "--resume", "auto", "--train.max-steps", 8, env=ONE_THREAD)
    assert result.returncode == 1
    assert "would be lost" in result.stderr


def poison(checkpoint_folder, name):
    """Writes a NaN over the first number of a tensor of a Hugging Face folder."""
    path = checkpoint_folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    start = json.loads(data[8 : 8 + size])[name]["data_offsets"][0]
    data[8 + size + start : 12 + size + start] = struct.pack("<f", float("nan"))
    path.write_bytes(data)


def test_abstention_of_all_ranks_skips(run, recipe, ranks, tmp_path):
    """From outside every rank has the same weights, so a NaN in them flags all ranks: nobody votes, nobody steps."""
    first = tmp_path / "first"
    assert run("train", recipe("signum", max_steps=1, warmup_steps=1), "--out", first, env=ONE_THREAD).returncode == 0
    start = last_checkpoint(first)
    poison(start, "model.norm.weight")
    path = recipe("signum", max_steps=3, non_finite="abstain")
    vote = ["--distributed.aggregate", "vote", "--model.init-from", start]
    out = tmp_path / "out"
    result = run("train", path, "--out", out, *vote, launcher=ranks(2), env=ONE_THREAD)
    assert result.returncode == 0, result.stderr
    assert [row["opt/skipped_steps"] for row in rows(out)] == [1, 2, 3]


@pytest.mark.parametrize("flags", [("--distributed.zero", "zero"), ("--distributed.zero", "plus", "--distributed.tie", "plus")])
def test_rules_of_votes_train(run, recipe, ranks, tmp_path, flags):
    out = tmp_path / "out"
    vote = ["--distributed.aggregate", "vote", *flags]
    result = run("train", recipe("signum", max_steps=30), "--out", out, *vote, launcher=ranks(2), env=ONE_THREAD)
    assert result.returncode == 0, result.stderr
    written = rows(out)
    assert written[-1]["train/loss"] < written[0]["train/loss"] - 0.4
    planes = 2 if flags[1] == "zero" else 1
    payload = planes * parameters_of(out) / 8
    assert payload <= written[5]["comm/bytes_sent"] <= 1.1 * payload + 2000
