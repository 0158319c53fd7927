"""Training end to end: it learns, reports, stops, resumes bit for bit, and survives kills and full disks."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time

import pytest
import torch
from conftest import REPOSITORY
from safetensors import safe_open
from safetensors.torch import save_file

METRICS = (
    "step train/loss val/loss train/lr train/grad_norm train/tokens perf/tokens_per_s perf/step_ms perf/optimizer_ms "
    "mem/peak_bytes mem/optimizer_state_bytes comm/bytes_sent comm/ms comm/exposed_ms opt/step_size opt/sign_agreement "
    "opt/skipped_steps"
).split()


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def tensors(checkpoint):
    """Every tensor of the weights and of the optimizer, as bytes."""
    found = {}
    for name in ("model.safetensors", "optimizer.safetensors"):
        with safe_open(checkpoint / name, framework="pt") as file:
            for key in file.keys():
                found[f"{name}:{key}"] = file.get_tensor(key).numpy().tobytes()
    return found


def assert_same_checkpoint(one, other):
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    differing = [key for key in first if first[key] != second[key]]
    assert not differing, f"{len(differing)} of {len(first)} tensors differ, first {differing[0]}"


def last_checkpoint(out):
    return out / "checkpoints" / (out / "checkpoints" / "latest").read_text().strip()


LEARNING_RATES = {"sgd": 0.3, "max_norm_descent": 1e-5}


@pytest.mark.parametrize(
    "method", ["adamw", "sgd", "signsgd", "l2_sign_descent", "max_norm_descent", "signum", "lion", "sinkgd"]
)
def test_every_method_learns(run, recipe, tmp_path, method):
    out = tmp_path / "out"
    result = run("train", recipe(method, max_steps=40, lr=LEARNING_RATES.get(method)), "--out", out)
    assert result.returncode == 0, result.stderr
    losses = [row["train/loss"] for row in rows(out)]
    assert losses[0] > 5.5, "an untrained model of 512 pieces is near log 512 = 6.24"
    assert losses[-1] < losses[0] - 0.5


def test_run_folder_is_complete(run, recipe, tmp_path):
    out = tmp_path / "out"
    result = run("train", recipe("sinkgd"), "--out", out)
    assert result.returncode == 0, result.stderr
    written = rows(out)
    assert [row["step"] for row in written] == list(range(1, 13))
    assert all(list(row) == METRICS for row in written)
    assert [row["step"] for row in written if row["val/loss"] is not None] == [1, 6, 12]
    assert written[-1]["train/tokens"] == 12 * 1024
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["latest", "step_00000004", "step_00000008", "step_00000012"]
    files = {path.name for path in last_checkpoint(out).iterdir()}
    assert files == {
        "config.json", "generation_config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.model",
        "trainer.json",
    }
    assert "Parameter groups" in result.stdout and "Memory" in result.stdout and "step 12/12" in result.stdout
    again = run("train", out / "recipe.toml", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert_same_checkpoint(last_checkpoint(out), last_checkpoint(tmp_path / "again"))


def test_only_the_newest_checkpoints_are_kept(run, recipe, tmp_path):
    out = tmp_path / "out"
    assert run("train", recipe("signsgd", max_steps=20, extra="keep = 2\n"), "--out", out).returncode == 0
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["latest", "step_00000016", "step_00000020"]
    assert (last_checkpoint(out) / "optimizer.safetensors").is_file()


@pytest.mark.parametrize("method", ["adamw", "signsgd", "sinkgd"])
def test_resume_is_exact_and_metrics_do_not_repeat(run, recipe, tmp_path, method):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    path = recipe(method, schedule="constant")
    assert run("train", path, "--out", whole).returncode == 0
    assert run("train", path, "--out", halves, "--train.max-steps", 6).returncode == 0
    refused = run("train", path, "--out", halves)
    assert refused.returncode == 1 and "already holds a run" in refused.stderr and "--resume auto" in refused.stderr
    result = run("train", path, "--out", halves, "--resume", "auto")
    assert result.returncode == 0, result.stderr
    assert "resumed from" in result.stdout
    assert_same_checkpoint(last_checkpoint(whole), last_checkpoint(halves))
    assert [row["step"] for row in rows(halves)] == list(range(1, 13))
    done = run("train", path, "--out", halves, "--resume", "auto")
    assert done.returncode == 0 and "nothing to do" in done.stdout


def wait_for_step(out, step, process, timeout=120):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"ended early with {process.returncode}: {process.stderr.read()}")
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= step:
            return
        time.sleep(0.01)
    pytest.fail("made no progress")


def test_sigterm_saves_and_exits_75(run, start, recipe, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    path = recipe("signum", max_steps=400)
    assert run("train", path, "--out", whole).returncode == 0
    process = start("train", path, "--out", stopped)
    wait_for_step(stopped, 5, process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)  # `timeout` and batch systems signal a process and its group
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "--resume auto" in errors
    assert 5 <= json.loads((last_checkpoint(stopped) / "trainer.json").read_text())["step"] < 400
    assert run("train", path, "--out", stopped, "--resume", "auto").returncode == 0
    assert_same_checkpoint(last_checkpoint(whole), last_checkpoint(stopped))


def test_kill_at_any_moment_loses_nothing(run, start, recipe, tmp_path):
    """kill -9 again and again, with a save after every step so that many kills fall inside one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    path = recipe("signum", max_steps=60)
    every = ["--checkpoint.every", "1"]
    assert run("train", path, "--out", whole, *every).returncode == 0
    process = start("train", path, "--out", killed, *every)
    for attempt in range(6):
        wait_for_step(killed, 2 + 6 * attempt, process)
        time.sleep(0.003 * attempt)
        process.kill()
        process.wait()
        for folder in (killed / "checkpoints").glob("step_*[0-9]"):
            if (folder / "trainer.json").exists():
                tensors(folder)
        process = start("train", path, "--out", killed, "--resume", "auto", *every)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert_same_checkpoint(last_checkpoint(whole), last_checkpoint(killed))
    assert [row["step"] for row in rows(killed)] == list(range(1, 61))
    assert not list((killed / "checkpoints").glob("*.partial"))


def test_full_disk_keeps_the_previous_checkpoint(run, recipe, tmp_path):
    out = tmp_path / "out"
    path = recipe("adamw", schedule="constant")
    assert run("train", path, "--out", out, "--train.max-steps", 4).returncode == 0
    before = tensors(last_checkpoint(out))

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    failed = run("train", path, "--out", out, "--resume", "auto", preexec_fn=small_files_only)
    assert failed.returncode == 1, failed.stderr
    assert "cannot be written" in failed.stderr and failed.stderr.count("\n") == 1
    assert tensors(last_checkpoint(out)) == before
    assert not list((out / "checkpoints").glob("*.partial"))
    assert run("train", path, "--out", out, "--resume", "auto").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small file system needs root")
def test_full_file_system_keeps_the_previous_checkpoint(run, recipe, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        out = disk / "out"
        failed = run("train", recipe("adamw", max_steps=40, extra="keep = 100\n"), "--out", out)
        assert failed.returncode == 1
        assert "No space left on device" in failed.stderr and failed.stderr.count("\n") == 1
        assert "free space and start again with --resume auto" in failed.stderr
        tensors(last_checkpoint(out))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json"])
def test_damaged_checkpoint_is_refused(run, recipe, tmp_path, name):
    out = tmp_path / "out"
    path = recipe("adamw")
    assert run("train", path, "--out", out, "--train.max-steps", 4, "--train.warmup-steps", 1).returncode == 0
    damaged = last_checkpoint(out) / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    refused = run("train", path, "--out", out, "--resume", "auto")
    assert refused.returncode == 1
    assert name in refused.stderr and "hash" in refused.stderr and refused.stderr.count("\n") == 1


def test_resume_with_another_method_is_refused(run, recipe, tmp_path):
    out = tmp_path / "out"
    assert run("train", recipe("adamw"), "--out", out).returncode == 0
    refused = run("train", recipe("signum", max_steps=20), "--out", out, "--resume", "auto")
    assert refused.returncode == 1 and "adamw" in refused.stderr and "signum" in refused.stderr


def test_micro_batches_and_threads_change_rounding_only(run, recipe, tmp_path):
    losses = {}
    for name, keys in {"one": {}, "four": {"micro_batch_size": 4}, "threads": {"threads": 2}}.items():
        path = recipe("adamw", name=name, max_steps=8, precision="fp32", **keys)
        assert run("train", path, "--out", tmp_path / name).returncode == 0
        losses[name] = [row["train/loss"] for row in rows(tmp_path / name)]
    assert losses["four"] == pytest.approx(losses["one"], rel=1e-4)
    assert losses["threads"] == pytest.approx(losses["one"], rel=1e-4)


@pytest.mark.parametrize("method", ["adamw", "sinkgd"])
def test_two_threads_repeat_bit_for_bit(run, recipe, tmp_path, method):
    path = recipe(method, max_steps=8)
    for name in ("one", "two"):
        assert run("train", path, "--out", tmp_path / name, env={"OMP_NUM_THREADS": 2}).returncode == 0
    assert_same_checkpoint(last_checkpoint(tmp_path / "one"), last_checkpoint(tmp_path / "two"))


def test_non_finite_gradients_are_skipped_then_refused(run, recipe, tmp_path):
    """Decay of lr * weight_decay = 1e6 multiplies the weights by -1e6 each step, beyond fp32 after seven."""
    explode = ["--optimizer.lr", "1e6", "--optimizer.weight-decay", "1"]
    path = recipe("sgd", max_steps=60, warmup_steps=0, schedule="constant")
    result = run("train", path, "--out", tmp_path / "skip", *explode)
    assert result.returncode == 1
    assert "is not finite" in result.stderr and "lower the learning rate" in result.stderr
    assert "skipped on all ranks" in result.stdout
    assert [row["opt/skipped_steps"] for row in rows(tmp_path / "skip")][-20:] == list(range(1, 21))
    refused = run("train", path, "--out", tmp_path / "refuse", *explode, "--train.non-finite", "refuse")
    assert refused.returncode == 1 and "refuse" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_text_is_prepared_on_first_use(run, recipe, corpus, tiny_model, tmp_path):
    text = tmp_path / "own.txt"
    shutil.copy(corpus, text)
    flags = ["--data.path", text, "--data.vocab-size", 512, "--train.max-steps", 4, "--train.warmup-steps", 1]
    first = run("train", recipe(), "--out", tmp_path / "first", *flags)
    assert first.returncode == 0, first.stderr
    second = run("train", recipe(), "--out", tmp_path / "second", *flags)
    assert second.returncode == 0, second.stderr
    assert_same_checkpoint(last_checkpoint(tmp_path / "first"), last_checkpoint(tmp_path / "second"))


def test_clipping_without_effect_is_said(run, recipe, tmp_path):
    result = run("train", recipe("signsgd", max_steps=3, clip_norm=1.0), "--out", tmp_path / "out")
    assert result.returncode == 0 and "clip_norm has no effect" in result.stdout


def test_clipping_shortens_steps_of_the_gradients_norm(run, recipe, tmp_path):
    out = tmp_path / "out"
    result = run("train", recipe("l2_sign_descent", max_steps=6, clip_norm=0.5), "--out", out)
    assert result.returncode == 0 and "clip_norm has no effect" not in result.stdout
    for row in rows(out):
        assert row["opt/step_size"] == pytest.approx(row["train/lr"] * min(0.5, row["train/grad_norm"]), rel=1e-5)


def given_moments(run, recipe, folder, change=lambda tensors: None, value=1e-4):
    """Flags of a run whose second moments start from a file with `value` for every number of every parameter."""
    shapes = folder / "shapes"
    if not shapes.exists():
        assert run("train", recipe("adam", name="shapes", max_steps=1, warmup_steps=0), "--out", shapes).returncode == 0
    moments = {}
    with safe_open(last_checkpoint(shapes) / "model.safetensors", framework="pt") as file:
        for key in file.keys():
            moments[key] = torch.full(file.get_tensor(key).shape, value)
    change(moments)
    path = folder / "v0.safetensors"
    save_file(moments, path)
    return ["--optimizer.v0", "given", "--optimizer.v0-file", path]


def test_second_moments_start_from_a_file(run, recipe, tmp_path):
    path = recipe("adam", max_steps=8, schedule="constant")
    assert run("train", path, "--out", tmp_path / "plain").returncode == 0
    zero = given_moments(run, recipe, tmp_path, value=0.0)
    assert run("train", path, "--out", tmp_path / "zero", *zero).returncode == 0
    assert_same_checkpoint(last_checkpoint(tmp_path / "plain"), last_checkpoint(tmp_path / "zero"))

    flags = given_moments(run, recipe, tmp_path)
    assert run("train", path, "--out", tmp_path / "whole", *flags).returncode == 0
    assert tensors(last_checkpoint(tmp_path / "whole")) != tensors(last_checkpoint(tmp_path / "plain"))
    assert run("train", path, "--out", tmp_path / "parts", *flags, "--train.max-steps", 4).returncode == 0
    (tmp_path / "v0.safetensors").unlink()
    resumed = run("train", path, "--out", tmp_path / "parts", *flags, "--resume", "auto")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_checkpoint(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "parts"))


def test_second_moments_that_do_not_fit_are_refused(run, recipe, tmp_path):
    name = "model.layers.0.self_attn.q_proj.weight"
    changes = {
        f'has no tensor "{name}"; v0 = "given" needs one of shape [48, 48]': lambda v: v.pop(name),
        'has a tensor "other" of shape [2]': lambda v: v.update(other=torch.zeros(2)),
        f'"{name}" has shape [2304], but the parameter has [48, 48]': lambda v: v.update({name: v[name].flatten()}),
        f'"{name}" has -1 at element 49': lambda v: v[name][1].__setitem__(1, -1.0),
        f'"{name}" has nan at element 0': lambda v: v[name].fill_(float("nan")),
        f'"{name}" is BF16; v0 = "given" needs F32': lambda v: v.update({name: v[name].bfloat16()}),
    }
    for number, (words, change) in enumerate(changes.items()):
        flags = given_moments(run, recipe, tmp_path, change)
        result = run("train", recipe("adam"), "--out", tmp_path / str(number), *flags)
        assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
        assert words in result.stderr and "v0.safetensors" in result.stderr, result.stderr
    (tmp_path / "v0.safetensors").unlink()
    missing = run("train", recipe("adam"), "--out", tmp_path / "missing", *flags)
    assert missing.returncode == 1 and "v0.safetensors] cannot be opened" in missing.stderr


def test_print_config_reads_back(run, recipe, tmp_path):
    first = run("train", recipe("lion"), "--print-config")
    assert first.returncode == 0
    (tmp_path / "printed.toml").write_text(first.stdout)
    assert run("train", tmp_path / "printed.toml", "--print-config").stdout == first.stdout
    assert run("train", recipe("lion"), "--print-config", "--train.max-steps", "-5").returncode == 2


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").rglob("*.toml")), ids=lambda path: path.stem)
def test_recipes_that_come_with_it_are_accepted(run, path):
    printed = run("train", path, "--print-config")
    assert (printed.returncode, printed.stderr) == (0, "") and "[optimizer]" in printed.stdout


def test_documented_keys_are_the_real_ones(run, repository):
    """docs/recipes.md ends with what `steepest train --keys` prints."""
    printed = run("train", "--keys")
    assert printed.returncode == 0 and "| `max_steps` |" in printed.stdout
    assert (repository / "docs" / "recipes.md").read_text().endswith(printed.stdout)


def test_a_model_that_does_not_fit_is_one_sentence(run, recipe, tiny_model, tmp_path):
    config = json.loads(tiny_model.read_text())
    huge = tmp_path / "config.json"
    huge.write_text(json.dumps({**config, "hidden_size": 4096, "intermediate_size": 4 << 20, "head_dim": 16}))

    def little_memory():
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))

    failed = run("train", recipe(), "--model.config", huge, "--out", tmp_path / "out", preexec_fn=little_memory)
    assert failed.returncode == 1
    assert failed.stderr.startswith("steepest: [memory] 412.3 GB more were asked for than could be had; choose a smaller")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_a_config_without_a_size_is_refused(run, recipe, tiny_model, tmp_path, key):
    config = json.loads(tiny_model.read_text())
    del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused = run("train", recipe(), "--model.config", tmp_path / "config.json", "--out", tmp_path / "out")
    assert refused.returncode == 1 and f"config.json] has no {key};" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_skipped_step_has_no_loss(run, recipe, tmp_path):
    path = recipe("sgd", max_steps=60, warmup_steps=0, schedule="constant")
    result = run("train", path, "--out", tmp_path / "out", "--optimizer.lr", "1e6", "--optimizer.weight-decay", "1")
    assert "  loss -  " in result.stdout and "loss 0.0000" not in result.stdout


def test_tuning_without_progress_is_a_failure(run, recipe, tmp_path):
    """In a run of one step no loss can be below the first."""
    failed = run("tune", recipe("signsgd", max_steps=1, warmup_steps=0), "--out", tmp_path / "out")
    assert failed.returncode == 1
    assert "[tune] no step size of at least 1e-06 made progress in 1 step; use more --steps or another --gs" in failed.stderr


def test_eval_uses_the_window_of_training_and_says_so(run, recipe, dataset, tmp_path):
    out = tmp_path / "out"
    path = recipe("adamw", max_steps=4, warmup_steps=1)
    assert run("train", path, "--out", out, "--data.sequence-length", 32).returncode == 0

    def measured(*arguments):
        done = run("eval", *arguments, "--data", dataset, "--tokens", 640, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    trained = measured(last_checkpoint(out))
    assert trained["sequence_length"] == 32
    assert measured(out) == trained, "a run folder is its newest checkpoint"
    bare = tmp_path / "bare"
    shutil.copytree(last_checkpoint(out), bare)
    (bare / "trainer.json").unlink()
    assert measured(bare)["sequence_length"] == 64
    assert measured(bare, "--sequence-length", 32) == trained
    assert "sequence_length 64\n" in run("eval", bare, "--data", dataset, "--tokens", 64).stdout
    refused = run("eval", bare, "--data", dataset, "--sequence-length", 65)
    assert refused.returncode == 2 and "[--sequence-length] is 65, more than" in refused.stderr
    further = run("train", path, "--model.init-from", out, "--print-config")
    assert f'init_from = "{last_checkpoint(out)}"' in further.stdout
    assert run("generate", out, "--prompt", "The", "--max-tokens", 3).returncode == 0


@pytest.mark.parametrize("name", ["train_000001.bin", "val_000000.bin"])
def test_a_prepared_folder_that_lacks_a_shard_is_refused(run, recipe, dataset, tmp_path, name):
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset, damaged)
    (damaged / name).unlink()
    refused = run("train", recipe(), "--data.path", damaged, "--out", tmp_path / "out")
    assert refused.returncode == 1 and f"[{damaged}] lacks {name}, which its dataset.json names" in refused.stderr
    (damaged / "dataset.json").write_text("no JSON")
    refused = run("train", recipe(), "--data.path", damaged, "--out", tmp_path / "out")
    assert refused.returncode == 1 and "dataset.json] is not valid JSON" in refused.stderr


def test_a_signal_ends_the_preparation_of_a_text(run, start, recipe, corpus, tmp_path):
    text = tmp_path / "own.txt"
    text.write_bytes(corpus.read_bytes() * 20)
    arguments = ["train", recipe("signum", max_steps=2, warmup_steps=0), "--out", tmp_path / "out", "--data.path", text,
                 "--data.vocab-size", 512]
    process = start(*arguments)
    assert process.stdout.readline().startswith("reading")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "preparing the text was stopped" in errors and errors.count("\n") == 1
    assert not list(tmp_path.glob("own.txt.*"))
    assert run(*arguments).returncode == 0
