"""Who writes into a run folder, which checkpoint counts after a step back, and what a resume needs of the data it began with."""

import json
import shutil
import signal

import pytest
from conftest import make_text
from test_train import assert_same_checkpoint, last_checkpoint, rows, wait_for_step


def names(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.mark.parametrize("resume", [[], ["--resume", "auto"]])
def test_a_second_start_beside_a_running_one_is_refused(run, start, recipe, tmp_path, resume):
    out = tmp_path / "out"
    path = recipe("signum", max_steps=20000)
    first = start("train", path, "--out", out)
    wait_for_step(out, 5, first)
    refused = run("train", path, "--out", out, *resume)
    assert refused.returncode == 1 and "is in use by another run" in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 75, errors
    steps = [row["step"] for row in rows(out)]
    assert steps == list(range(1, len(steps) + 1))


def test_a_run_that_is_refused_leaves_no_folder(run, recipe, tmp_path):
    out = tmp_path / "out"
    assert run("train", recipe("signum"), "--out", out, "--data.path", tmp_path / "nowhere").returncode != 0
    assert not out.exists()


def test_after_a_step_back_the_steps_given_up_no_longer_count(run, start, recipe, tmp_path):
    out = tmp_path / "out"
    path = recipe("signum", max_steps=20, schedule="constant", extra="keep = 9\n")
    assert run("train", path, "--out", out).returncode == 0
    back = ["--resume", out / "checkpoints" / "step_00000008"]
    # A kill before the first save of the new branch: the metrics have been cut, so the step must be the one gone back to.
    process = start("train", path, "--out", out, *back, "--train.max-steps", 400, "--checkpoint.every", 0)
    while (out / "checkpoints" / "latest").read_text().strip() != "step_00000008":
        assert process.poll() is None, process.communicate()
    process.kill()
    process.wait()
    assert names(out) == ["latest", *(f"step_{step:08d}" for step in (4, 8, 12, 16, 20))]
    result = run("train", path, "--out", out, "--resume", "auto", "--train.max-steps", 12, "--checkpoint.keep", 2)
    assert "after step 8" in result.stdout, result.stdout + result.stderr
    assert names(out) == ["latest", "step_00000008", "step_00000012"]
    assert [row["step"] for row in rows(out)] == list(range(1, 13))


def test_a_save_killed_while_it_replaces_a_step_loses_nothing(run, recipe, tmp_path):
    out = tmp_path / "out"
    path = recipe("signum", schedule="constant")
    assert run("train", path, "--out", out).returncode == 0
    whole = tmp_path / "whole"
    shutil.copytree(out / "checkpoints" / "step_00000012", whole)
    # Between the two renames: the old folder is aside, the new one is not there yet.
    (out / "checkpoints" / "step_00000012").rename(out / "checkpoints" / "step_00000012.old")
    shutil.copytree(whole, out / "checkpoints" / "step_00000012.partial")
    done = run("train", path, "--out", out, "--resume", "auto")
    assert "nothing to do: step 12 of 12" in done.stdout, done.stdout + done.stderr
    assert names(out) == ["latest", "step_00000004", "step_00000008", "step_00000012"]
    assert_same_checkpoint(last_checkpoint(out), whole)


def test_a_restart_continues_its_own_run_whatever_resume_says(run, recipe, tmp_path):
    other, out = tmp_path / "other", tmp_path / "out"
    path = recipe("signum", max_steps=20)
    assert run("train", path, "--out", other, "--train.max-steps", 6).returncode == 0
    first = run("train", path, "--out", out, "--resume", other, "--train.max-steps", 12)
    assert "after step 6" in first.stdout, first.stderr
    again = run("train", path, "--out", out, "--resume", other, env={"TORCHELASTIC_RESTART_COUNT": 1})
    assert "after step 12" in again.stdout, again.stderr
    # Before its first checkpoint it has nothing but what it was to start from.
    fresh = run("train", path, "--out", tmp_path / "fresh", "--resume", other, env={"TORCHELASTIC_RESTART_COUNT": 1})
    assert "after step 6" in fresh.stdout, fresh.stderr


def test_a_text_that_changed_is_noticed(run, recipe, dataset, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(dataset, data)
    path = recipe("signum", max_steps=20)
    resume = ["train", path, "--out", out, "--data.path", data, "--resume", "auto"]
    assert run(*resume, "--train.max-steps", 6).returncode == 0
    same = run(*resume, "--train.max-steps", 9)
    assert same.returncode == 0 and "warning: not the training tokens" not in same.stdout
    # The same tokenizer, another text.
    text = tmp_path / "other.txt"
    text.write_text(make_text(lines=3000, seed=2))
    shutil.rmtree(data)
    prepared = run("prepare", text, "--out", data, "--tokenizer", dataset / "tokenizer.model")
    assert prepared.returncode == 0, prepared.stderr
    warned = run(*resume, "--train.max-steps", 12)
    assert warned.returncode == 0, warned.stderr
    assert "warning: not the training tokens of the checkpoint: [data] path has changed since" in warned.stdout
    # Another tokenizer of as many pieces: the same numbers would stand for other pieces.
    shutil.rmtree(data)
    assert run("prepare", text, "--out", data, "--vocab-size", 512).returncode == 0
    for refused in (run(*resume), run("train", path, "--out", tmp_path / "new", "--data.path", data, env={"STEEPEST_MODEL_INIT_FROM": last_checkpoint(out)})):
        assert refused.returncode == 2 and "whose tokenizer is not that of" in refused.stderr, refused.stderr
        assert "--tokenizer" in refused.stderr and refused.stderr.count("\n") == 1


def test_checkpoints_keep_the_tokenizer_that_the_run_started_with(start, recipe, dataset, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(dataset, data)
    process = start("train", recipe("signum", max_steps=200), "--out", out, "--data.path", data)
    wait_for_step(out, 5, process)
    (data / "tokenizer.model").write_bytes(b"something else")
    assert process.wait(timeout=120) == 0, process.communicate()
    assert (last_checkpoint(out) / "tokenizer.model").read_bytes() == (dataset / "tokenizer.model").read_bytes()


def test_a_resume_does_not_need_what_the_run_once_started_from(run, recipe, corpus, tmp_path):
    base, out, text = tmp_path / "base", tmp_path / "out", tmp_path / "text.txt"
    shutil.copy(corpus, text)
    assert run("train", recipe("signum"), "--out", base).returncode == 0
    flags = ["train", recipe("signum"), "--out", out, "--model.init-from", last_checkpoint(base), "--data.path", text]
    begun = run(*flags, "--train.max-steps", 6)
    assert begun.returncode == 0, begun.stderr
    shutil.rmtree(base)
    resumed = run(*flags, "--resume", "auto")
    assert resumed.returncode == 0, resumed.stderr
    assert "after step 6" in resumed.stdout and "not the training tokens" not in resumed.stdout
    assert json.loads((last_checkpoint(out) / "trainer.json").read_text())["step"] == 12
    assert len(list(tmp_path.glob("text.txt.tokens-*"))) == 1


def test_a_model_that_cannot_be_is_refused_before_the_text_is_prepared(run, recipe, corpus, tmp_path):
    text = tmp_path / "text.txt"
    shutil.copy(corpus, text)
    for flags in (["--model.config", "llama-9"], ["--model.init-from", tmp_path, "--model.vocab-size", 512]):
        for extra in ([], ["--print-config"]):
            refused = run("train", recipe("signum"), "--data.path", text, *flags, *extra)
            assert refused.returncode == 2 and refused.stdout == "", refused.stdout
            assert "[model]" in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert list(tmp_path.glob("text.txt.*")) == []
