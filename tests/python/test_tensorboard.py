"""The event files of a run, read back by TensorBoard's own reader: same names, steps and values as metrics.jsonl."""

import json
import math
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RECIPE = """
[model]
config = "{model}"
[data]
path = "{data}"
sequence_length = 32
[optimizer]
method = "signum"
[train]
batch_tokens = 256
micro_batch_size = 8
max_steps = 10
seed = 3
[eval]
every = 5
tokens = 512
[checkpoint]
every = 4
keep = 9
"""


@pytest.fixture
def recipe(tmp_path, dataset):
    model = tmp_path / "config.json"
    shape = {
        "model_type": "llama", "vocab_size": 512, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-6,
    }
    model.write_text(json.dumps(shape))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(model=model, data=dataset))
    return path


def scalars(out):
    """{name: [(step, value), ...]} as TensorBoard shows it; a step of two files appears twice."""
    reader = EventAccumulator(str(out), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def assert_same_as_rows(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    shown = scalars(out)
    for name in rows[0]:
        if name == "step":
            continue
        expected = [(row["step"], row[name]) for row in rows if row[name] is not None]
        found = shown.pop(name, [])
        assert [step for step, _ in found] == [step for step, _ in expected], name
        for (_, value), (_, wanted) in zip(found, expected):
            assert math.isclose(value, wanted, rel_tol=1e-6), name
    assert not shown, "names that metrics.jsonl lacks"


def test_events_are_the_metrics(run, recipe, tmp_path):
    out = tmp_path / "out"
    result = run("train", recipe, "--out", out)
    assert result.returncode == 0, result.stderr
    assert len(scalars(out)["train/loss"]) == 10
    assert_same_as_rows(out)


def test_steps_that_run_again_stand_there_once(run, recipe, tmp_path):
    out = tmp_path / "out"
    assert run("train", recipe, "--out", out).returncode == 0
    for newer in ("step_00000008", "step_00000010"):
        shutil.rmtree(out / "checkpoints" / newer)
    (out / "checkpoints" / "latest").write_text("step_00000004\n")
    result = run("train", recipe, "--out", out, "--resume", "auto")
    assert result.returncode == 0, result.stderr
    assert len(list(out.glob("events.out.tfevents.*"))) == 2
    assert [step for step, _ in scalars(out)["train/loss"]] == list(range(1, 11))
    assert_same_as_rows(out)
