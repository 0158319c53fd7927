"""[train] precision = "bf16-weights": it learns like fp32 weights, resumes exactly, votes, and leaves loadable folders."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM

from test_distributed import ONE_THREAD, VOTE
from test_train import last_checkpoint, rows

NARROW = ["--train.precision", "bf16-weights"]


def tensors(checkpoint):
    """Every tensor of the weights and of the optimizer."""
    found = {}
    for name in ("model.safetensors", "optimizer.safetensors"):
        with safe_open(checkpoint / name, framework="pt") as file:
            found.update({f"{name}:{key}": file.get_tensor(key) for key in file.keys()})
    return found


def assert_same(one, other):
    first, second = tensors(last_checkpoint(one)), tensors(last_checkpoint(other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first)


@pytest.mark.parametrize("method", ["signsgd", "adamw", "sinkgd"])
def test_it_learns_like_fp32_weights(run, recipe, tmp_path, method):
    final = {}
    for precision in ("bf16", "bf16-weights"):
        out = tmp_path / precision
        result = run("train", recipe(method, max_steps=60, precision=precision), "--out", out)
        assert result.returncode == 0, result.stderr
        losses = [row["train/loss"] for row in rows(out)]
        final[precision] = sum(losses[-5:]) / 5
        assert final[precision] < losses[0] - 1
    assert final["bf16-weights"] == pytest.approx(final["bf16"], abs=0.1)


def test_memory_table_and_checkpoint_count_two_bytes(run, recipe, tmp_path):
    sizes = {}
    for precision in ("bf16", "bf16-weights"):
        out = tmp_path / precision
        result = run("train", recipe("signum", precision=precision), "--out", out)
        assert result.returncode == 0, result.stderr
        sizes[precision] = (last_checkpoint(out) / "model.safetensors").stat().st_size
        found = tensors(last_checkpoint(out))
        kinds = {key.split(":")[0]: value.dtype for key, value in found.items()}
        narrow = precision == "bf16-weights"
        assert kinds["model.safetensors"] == (torch.bfloat16 if narrow else torch.float32)
        assert kinds["optimizer.safetensors"] == torch.float32
        parameters = sum(value.numel() for key, value in found.items() if key.startswith("model"))
        weights = next(line.split()[1] for line in result.stdout.splitlines() if line.startswith("  weights "))
        assert float(weights) == pytest.approx((2 if narrow else 4) * parameters / 2**20, abs=0.06)
        assert rows(out)[-1]["mem/optimizer_state_bytes"] == 4 * parameters
    assert sizes["bf16-weights"] == pytest.approx(sizes["bf16"] / 2, rel=0.02)


@pytest.mark.parametrize("method", ["signsgd", "adamw", "sinkgd"])
def test_resume_is_exact(run, recipe, tmp_path, method):
    path = recipe(method, schedule="constant", precision="bf16-weights")
    assert run("train", path, "--out", tmp_path / "whole").returncode == 0
    assert run("train", path, "--out", tmp_path / "halves", "--train.max-steps", 6).returncode == 0
    result = run("train", path, "--out", tmp_path / "halves", "--resume", "auto", env={"OMP_NUM_THREADS": 2})
    assert result.returncode == 0, result.stderr
    assert_same(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("flags", [VOTE, [*VOTE, "--distributed.zero", "zero"], ["--distributed.aggregate", "ef-mean"]])
def test_replicas_stay_equal(run, recipe, ranks, tmp_path, flags):
    """Checked after every step: the run stops with an error when one bit differs."""
    out = tmp_path / "out"
    result = run("train", recipe("signum", max_steps=30, precision="bf16-weights"), "--out", out, *flags,
                 "--distributed.replica-check-every", 1, launcher=ranks(2), env=ONE_THREAD)
    assert result.returncode == 0, result.stderr
    losses = [row["train/loss"] for row in rows(out)]
    assert losses[-1] < losses[0] - 0.5


def test_eval_generate_and_transformers_take_the_folder(run, recipe, dataset, tmp_path):
    out = tmp_path / "out"
    assert run("train", recipe("signum", max_steps=30, precision="bf16-weights"), "--out", out).returncode == 0
    folder = last_checkpoint(out)
    evaluated = run("eval", folder, "--data", dataset, "--tokens", 2048, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    loss = json.loads(evaluated.stdout)["loss"]
    assert loss == pytest.approx(rows(out)[-1]["val/loss"], rel=1e-2), "there the products are bf16"
    said = run("generate", folder, "--prompt", "The river", "--max-tokens", 8, "--temperature", 0)
    assert said.returncode == 0 and said.stdout.startswith("The river"), said.stderr
    model = LlamaForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    saved = tensors(folder)
    assert all(torch.equal(value, saved[f"model.safetensors:{name}"]) for name, value in model.state_dict().items())
    again = run("train", recipe("signsgd", max_steps=4, name="further"), "--out", tmp_path / "further",
                "--model.init-from", folder)
    assert again.returncode == 0, again.stderr
    assert rows(tmp_path / "further")[0]["train/loss"] < math.log(512) - 0.5, "it goes on from what was learnt"


def test_measured_steps_are_refused(run, recipe, tmp_path):
    for verb, method, reason in (("train", "alias", "alias"), ("tune", "sos", "tuning")):
        refused = run(verb, recipe(method), "--out", tmp_path / "out", *NARROW)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1 and "bf16-weights" in refused.stderr and reason in refused.stderr
