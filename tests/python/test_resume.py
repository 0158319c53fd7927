"""What a resume refuses and what it says: other runs, other recipes, machines whose folders differ."""

import json
import shutil

from test_distributed import ONE_THREAD
from test_train import last_checkpoint, rows


def test_another_run_is_not_written_over(run, recipe, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        assert run("train", recipe("signsgd"), "--out", out).returncode == 0
    before = {path: path.read_bytes() for path in second.rglob("*") if path.is_file()}
    refused = run("train", recipe("signsgd"), "--out", second, "--resume", first)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
    assert "already holds a run" in refused.stderr and "--resume" in refused.stderr
    assert {path: path.read_bytes() for path in second.rglob("*") if path.is_file()} == before
    # Into an empty folder the other run is continued; a run may go back to its own older checkpoints.
    third = tmp_path / "third"
    assert run("train", recipe("signsgd"), "--out", third, "--resume", first, "--train.max-steps", 14).returncode == 0
    assert [row["step"] for row in rows(third)] == [13, 14]
    assert run("train", recipe("signsgd"), "--out", second, "--resume", second / "checkpoints" / "step_00000004").returncode == 0
    assert [row["step"] for row in rows(second)] == list(range(1, 13))


def test_another_recipe_is_said(run, recipe, tmp_path):
    out = tmp_path / "out"
    assert run("train", recipe("signsgd", lr=0.001), "--out", out, "--train.max-steps", 6).returncode == 0
    same = run("train", recipe("signsgd", lr=0.001), "--out", out, "--train.max-steps", 9, "--resume", "auto")
    assert same.returncode == 0 and "not the recipe" not in same.stdout
    other = run("train", recipe("signsgd", lr=0.001), "--out", out, "--resume", "auto", "--train.seed", 8)
    assert other.returncode == 0, other.stderr
    assert "warning: not the recipe of the checkpoint: [train] seed was 7, is 8\n" in other.stdout


def start_on_own_disks(start, recipe, free_port, folders):
    port = free_port()
    return [
        start("train", recipe("signum"), "--out", folder, "--resume", "auto", "--distributed.timeout", 60,
              env={"RANK": rank, "WORLD_SIZE": len(folders), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **ONE_THREAD})
        for rank, folder in enumerate(folders)
    ]  # fmt: skip


def test_machines_that_do_not_share_the_run_folder_are_refused(run, start, recipe, free_port, tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    assert run("train", recipe("signum"), "--out", mine, "--train.max-steps", 4).returncode == 0
    for process in start_on_own_disks(start, recipe, free_port, [mine, theirs]):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        assert "checkpoint to resume from is step_00000004 on rank 0 and none on rank 1" in errors, errors
    # The same step of another run.
    assert run("train", recipe("signum"), "--out", theirs, "--train.max-steps", 4, "--train.seed", 8).returncode == 0
    for process in start_on_own_disks(start, recipe, free_port, [mine, theirs]):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and "trainer.json of the checkpoint is " in errors, errors
    # A copy of the folder will do.
    shutil.rmtree(theirs)
    shutil.copytree(mine, theirs)
    for process in start_on_own_disks(start, recipe, free_port, [mine, theirs]):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert json.loads((last_checkpoint(mine) / "trainer.json").read_text())["step"] == 12
