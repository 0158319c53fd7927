"""Every way in which gradients travel, through the program: the same result during the backward pass and after it; and
ranks whose files differ."""

import json
import shutil

import pytest

from test_distributed import ONE_THREAD
from test_train import assert_same_checkpoint, last_checkpoint

WAYS = {
    "mean": ("adamw", 2, {}),
    "mean as bf16": ("adamw", 2, {"mean-precision": "bf16"}),
    "shards": ("signum", 3, {"aggregate": "vote"}),
    "all-gather": ("signum", 3, {"aggregate": "vote", "scheme": "all-gather"}),
    "halving": ("lion", 3, {"aggregate": "vote", "scheme": "halving"}),
    "two planes": ("signum", 2, {"aggregate": "vote", "zero": "zero"}),
    "1-bit mean": ("sinkgd", 2, {"aggregate": "ef-mean"}),
    "alias": ("alias", 2, {"aggregate": "vote"}),
}


def flags_of(keys):
    return [word for key, value in keys.items() for word in (f"--distributed.{key}", value)]


@pytest.mark.parametrize("way", WAYS)
def test_parts_that_leave_early_change_nothing(run, recipe, ranks, tmp_path, way):
    method, count, keys = WAYS[way]
    path = recipe(method, max_steps=4, micro_batch_size=2, batch_tokens=768)  # several micro-batches a step
    for overlap in ("true", "false"):
        flags = flags_of({**keys, "overlap": overlap, "bucket-kib": 4, "replica-check-every": 1})
        result = run("train", path, "--out", tmp_path / overlap, *flags, launcher=ranks(count), env=ONE_THREAD)
        assert result.returncode == 0, result.stderr
        assert ("parts during the backward pass" in result.stdout) == (overlap == "true"), result.stdout
    assert_same_checkpoint(last_checkpoint(tmp_path / "true"), last_checkpoint(tmp_path / "false"))


def finish(processes):
    """(stdout, stderr, code) of each."""
    return [(*process.communicate(timeout=120), process.returncode) for process in processes]


def test_machines_vote(start, recipe, free_port, tmp_path):
    path = recipe("signum", max_steps=4, batch_tokens=1024)
    common = {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **ONE_THREAD}
    flags = flags_of({"aggregate": "vote", "vote-per": "machine", "scheme": "auto", "replica-check-every": 1})
    ended = finish([start("train", path, "--out", tmp_path / "out", *flags,
                          env={"RANK": rank, "LOCAL_RANK": rank % 2, **common}) for rank in range(4)])
    for _, errors, code in ended:
        assert code == 0, errors
    assert "2 machines vote; votes travel by " in ended[0][0]


def a_place(folder, dataset, model, change=None):
    """A folder with `model.json` and `data`, in which `change(model, first token shard)` has changed something."""
    folder.mkdir()
    shutil.copytree(dataset, folder / "data")
    shape, shard = json.loads(model.read_text()), next((folder / "data").glob("train_*.bin"))
    if change:
        change(shape, shard)
    (folder / "model.json").write_text(json.dumps(shape))
    return folder


def other_shape(shape, _):
    shape["intermediate_size"] = 96


def other_token(_, shard):
    data = bytearray(shard.read_bytes())
    data[1024] ^= 1  # the first token
    shard.write_bytes(data)


@pytest.mark.parametrize("change, named", [(other_shape, ["model", "96", "128"]),
                                           (other_token, ["hash of the training tokens in [data] path is "])])
def test_ranks_with_other_files_are_refused(start, dataset, tiny_model, free_port, tmp_path, change, named):
    text = """
        [model]
        config = "model.json"
        [data]
        path = "data"
        sequence_length = 64
        [optimizer]
        method = "signsgd"
        [train]
        batch_tokens = 512
        max_steps = 3
    """
    port, started = free_port(), []
    for rank, changed in enumerate((None, change)):
        place = a_place(tmp_path / f"machine{rank}", dataset, tiny_model, changed)
        (place / "recipe.toml").write_text(text)
        started.append(start("train", "recipe.toml", "--out", tmp_path / "out", cwd=place,
                             env={"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **ONE_THREAD}))
    for _, errors, code in finish(started):
        assert code == 1 and errors.count("\n") == 1, errors
        assert all(word in errors for word in [*named, "on rank 0", "on rank 1"]), errors
