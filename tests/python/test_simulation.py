"""Simulated workers end to end: the files of as many real ranks, resumes between the two, data that differ, liars; and byzantine votes."""

import json

import pytest

from test_distributed import ONE_THREAD
from test_train import assert_same_checkpoint, last_checkpoint, rows

KINDS = {
    "mean": ("adamw", "mean"),
    "signsgd": ("signsgd", "vote"),
    "signum": ("signum", "vote"),
    "lion": ("lion", "vote"),
    "ef-mean": ("sgd", "ef-mean"),
}


def simulated(count, *more):
    return ["--distributed.simulated-workers", count, *more]


def curve(out):
    return [(row["step"], row["train/loss"], row["val/loss"], row["train/grad_norm"]) for row in rows(out)]


@pytest.mark.parametrize("kind, count", [(kind, count) for kind in KINDS for count in (2, 4)] + [("signum", 3), ("ef-mean", 3)])
def test_simulated_workers_write_what_real_ranks_write(run, recipe, ranks, tmp_path, kind, count):
    method, aggregate = KINDS[kind]
    path = recipe(method)  # 16 windows, which 3 workers share as 5, 5 and 6
    flags = ["--distributed.aggregate", aggregate]
    real = run("train", path, "--out", tmp_path / "real", *flags, launcher=ranks(count), env=ONE_THREAD)
    assert real.returncode == 0, real.stderr
    alone = run("train", path, "--out", tmp_path / "alone", *flags, *simulated(count), env=ONE_THREAD)
    assert alone.returncode == 0, alone.stderr
    assert_same_checkpoint(last_checkpoint(tmp_path / "real"), last_checkpoint(tmp_path / "alone"))
    assert [row[:2] for row in curve(tmp_path / "real")] == [row[:2] for row in curve(tmp_path / "alone")]
    sent = [[row["comm/bytes_sent"] for row in rows(tmp_path / name)][4] for name in ("real", "alone")]
    # Rank 0 owns a shard of whole blocks or of 512 bits, which need not be its exact share.
    assert sent[1] == pytest.approx(sent[0], rel=0.02, abs=2 * (4096 / 8 + 4) if aggregate == "ef-mean" else 64)


def test_observed_second_moments_are_those_of_every_worker(run, recipe, ranks, tmp_path):
    path = recipe("adam", max_steps=3)
    flags = ["--distributed.aggregate", "vote", "--optimizer.direction", "sign", "--optimizer.v0", "observed", "--optimizer.v0-batches", 2]
    real = run("train", path, "--out", tmp_path / "real", *flags, launcher=ranks(2), env=ONE_THREAD)
    assert real.returncode == 0, real.stderr
    alone = run("train", path, "--out", tmp_path / "alone", *flags, *simulated(2), env=ONE_THREAD)
    assert alone.returncode == 0, alone.stderr
    assert_same_checkpoint(last_checkpoint(tmp_path / "real"), last_checkpoint(tmp_path / "alone"))


@pytest.mark.parametrize("kind", ["signum", "ef-mean"])
def test_ranks_and_simulation_go_on_from_each_other(run, recipe, ranks, tmp_path, kind):
    method, aggregate = KINDS[kind]
    path = recipe(method, schedule="constant")
    flags = ["--distributed.aggregate", aggregate]
    whole = tmp_path / "whole"
    assert run("train", path, "--out", whole, *flags, *simulated(2), env=ONE_THREAD).returncode == 0
    real, alone = {"launcher": ranks(2), "env": ONE_THREAD}, {"env": ONE_THREAD}
    for name, (first, second) in {"real_first": ((), simulated(2)), "real_second": (simulated(2), ())}.items():
        out = tmp_path / name
        for steps, extra in ((7, first), (12, second)):
            result = run("train", path, "--out", out, "--resume", "auto", "--train.max-steps", steps, *flags, *extra,
                         **(alone if extra else real))
            assert result.returncode == 0, result.stderr
        assert_same_checkpoint(last_checkpoint(whole), last_checkpoint(out))


def test_the_start_table_and_the_checkpoint_count_workers(run, recipe, tmp_path):
    result = run("train", recipe("signum", max_steps=3), "--out", tmp_path / "out", "--distributed.aggregate", "vote", *simulated(8))
    assert result.returncode == 0, result.stderr
    assert "8 simulated workers x 1 micro-batches x 2 windows" in result.stdout
    assert json.loads((last_checkpoint(tmp_path / "out") / "trainer.json").read_text())["world_size"] == 8


def falls(run, path, out, *flags):
    result = run("train", path, "--out", out, *flags)
    assert result.returncode == 0, result.stderr
    losses = [row["train/loss"] for row in rows(out)]
    return losses[0] - sum(losses[-5:]) / 5


def test_three_of_seven_inverters_do_not_stop_a_vote(run, recipe, tmp_path):
    path = recipe("signum", batch_tokens=7 * 8 * 64, max_steps=60, lr=2e-3)
    vote = ["--distributed.aggregate", "vote", *simulated(7)]
    honest = falls(run, path, tmp_path / "honest", *vote)
    attacked = falls(run, path, tmp_path / "attacked", *vote, "--distributed.adversaries", 3)
    lost = falls(run, path, tmp_path / "lost", *vote, "--distributed.adversaries", 4)
    assert honest > 1
    assert attacked > 0.6 * honest, "fewer than half are out-voted"
    assert lost < 0, "more than half make the loss rise"


def test_heterogeneity_changes_what_workers_read_and_not_their_number(run, recipe, tmp_path):
    path = recipe("signum", max_steps=4)
    vote = ["--distributed.aggregate", "vote", *simulated(4)]
    first = {}
    for share in (0, 0.5, 1):
        out = tmp_path / str(share)
        result = run("train", path, "--out", out, *vote, "--distributed.heterogeneity", share)
        assert result.returncode == 0, result.stderr
        first[share] = rows(out)[0]["train/loss"]
    assert len(set(first.values())) == 3


REFUSED = [
    (["--distributed.heterogeneity", "0.5"], "[distributed] heterogeneity concerns simulated workers, and there are none"),
    (["--distributed.adversaries", "1"], "[distributed] adversaries concerns simulated workers, and there are none"),
    (["--distributed.adversary", "stuck"], "[distributed] adversary concerns simulated workers, and there are none"),
    (["--distributed.simulated-workers", "4", "--distributed.adversaries", "4"], "at least one must be honest"),
    (["--distributed.simulated-workers", "4", "--distributed.adversary", "stuck"], "but adversaries is 0"),
    (["--distributed.simulated-workers", "1025"], "[distributed] simulated_workers is 1025"),
    (["--distributed.simulated-workers", "17"], "makes 16 windows a step, fewer than the 17 simulated workers"),
    (["--distributed.simulated-workers", "4", "--distributed.aggregate", "vote", "--distributed.scheme", "auto"],
     "there is no network to measure"),
    (["--distributed.simulated-workers", "4", "--distributed.aggregate", "vote", "--distributed.vote-per", "machine"],
     "simulated workers are on none"),
    (["--distributed.byzantine", "true", "--distributed.aggregate", "vote", "--train.non-finite", "abstain",
      "--distributed.scheme", "halving"], "byzantine votes always go from every rank to every other"),
    (["--distributed.simulated-workers", "4", "--optimizer.method", "alias"], "but step \"alias\" measures one step size"),
    (["--distributed.simulated-workers", "4", "--distributed.aggregate", "ef-mean", "--distributed.adversaries", "1",
      "--distributed.adversary", "drop"], "needs every worker"),
    (["--distributed.byzantine", "true"], "can change the result by any amount; use \"vote\""),
    (["--distributed.byzantine", "true", "--distributed.aggregate", "vote"], "use \"abstain\""),
    (["--distributed.byzantine", "true", "--distributed.aggregate", "vote", "--train.non-finite", "abstain",
      "--distributed.simulated-workers", "4"], "is for messages between real ranks"),
    (["--distributed.byzantine", "true", "--distributed.aggregate", "vote", "--train.non-finite", "abstain",
      "--train.clip-norm", "1"], "any rank can invent"),
    (["--distributed.byzantine", "true", "--distributed.aggregate", "vote", "--train.non-finite", "abstain",
      "--optimizer.vector.direction", "identity"], "is averaged, not voted on"),
]


@pytest.mark.parametrize("flags, sentence", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_sentence(run, recipe, tmp_path, flags, sentence):
    result = run("train", recipe("signum"), "--out", tmp_path / "out", *flags)
    assert result.returncode == 2, result.stderr
    assert sentence in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_simulated_workers_on_several_ranks_are_refused(run, recipe, ranks, tmp_path):
    result = run("train", recipe("signum"), "--out", tmp_path / "out", *simulated(4), launcher=ranks(2), env=ONE_THREAD)
    assert result.returncode != 0
    assert "[distributed] simulated_workers is 4, but 2 ranks were started; start one process" in result.stderr


def test_byzantine_votes_of_honest_ranks_are_plain_votes(run, recipe, ranks, tmp_path):
    path = recipe("signum", non_finite="abstain")
    options = {"launcher": ranks(4), "env": ONE_THREAD}
    for name, flags in (("plain", []), ("byzantine", ["--distributed.byzantine", "true"])):
        result = run("train", path, "--out", tmp_path / name, "--distributed.aggregate", "vote", *flags, **options)
        assert result.returncode == 0, result.stderr
        assert "warning" not in result.stdout, result.stdout
    assert "vote, byzantine: bears 1 rank(s) that lie in any way" in result.stdout
    assert_same_checkpoint(last_checkpoint(tmp_path / "plain"), last_checkpoint(tmp_path / "byzantine"))
    assert [row[:2] for row in curve(tmp_path / "plain")] == [row[:2] for row in curve(tmp_path / "byzantine")]
