"""steepest prepare from the outside: llm.c shards that numpy reads, gzip and folders, errors, and kills that leave nothing."""

import gzip
import json
import random
import shutil
import signal
import time

import numpy as np
import pytest


def read_shard(path):
    header = np.fromfile(path, dtype="<i4", count=256)
    assert not header[3:].any()
    types = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
    tokens = np.fromfile(path, dtype=types[tuple(header[:2])], offset=1024)
    assert len(tokens) == header[2]
    return tokens


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_are_those_of_llm_c(dataset, corpus):
    manifest = json.loads((dataset / "dataset.json").read_text())
    train, val = read_shard(dataset / "train_000001.bin"), read_shard(dataset / "val_000000.bin")
    assert (len(train), len(val)) == (manifest["train_tokens"], manifest["val_tokens"])
    assert max(train.max(), val.max()) < manifest["vocab_size"] == 512
    assert manifest["text_bytes"] == corpus.stat().st_size
    assert 0.03 < len(val) / len(train) < 0.07


def test_gzip_and_plain_text_give_the_same_tokens(run, corpus, dataset, tmp_path):
    packed = tmp_path / "sentences.dz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    result = run("prepare", packed, "--out", tmp_path / "out", "--vocab-size", 512, "--val-fraction", 0.05)
    assert result.returncode == 0, result.stderr
    ours, theirs = contents(tmp_path / "out"), contents(dataset)
    del ours["dataset.json"], theirs["dataset.json"]
    assert ours == theirs


def test_progress_is_lines_on_stderr_and_the_result_on_stdout(run, corpus, tmp_path):
    result = run("prepare", corpus, "--out", tmp_path / "out", "--vocab-size", 400)
    assert result.returncode == 0
    assert "training tokens" in result.stdout and "\r" not in result.stderr
    assert {line.split(":")[0] for line in result.stderr.splitlines()} == {
        "reading", "training the tokenizer", "encoding",
    }


def test_a_given_tokenizer_is_used_unchanged(run, corpus, dataset, tmp_path):
    result = run("prepare", corpus, "--out", tmp_path / "out", "--tokenizer", dataset / "tokenizer.model")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == (dataset / "tokenizer.model").read_bytes()


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["missing.txt", "--out", "out"], 1, "does not exist"),
        (["empty.txt", "--out", "out"], 1, "holds no text"),
        (["tiny.txt", "--out", "out"], 1, "validation"),
        (["broken.gz", "--out", "out"], 1, "broken.gz"),
        (["text.txt", "--out", "tiny.txt"], 1, "not a folder"),
        (["text.txt", "--out", "text.txt"], 2, "also an input"),
        (["text.txt", "--out", "out", "--tokenizer", "text.txt"], 1, "not a SentencePiece model"),
        (["text.txt", "--out", "out", "--vocab-size", "100"], 2, "between 320 and"),
        (["text.txt", "--out", "out", "--vocab-size", "many"], 2, "vocab-size"),
        (["text.txt", "--out", "out", "--val-fraction", "0.9"], 2, "between 0 and 0.5"),
        (["text.txt"], 2, "--out"),
        (["--out", "out"], 2, "input"),
    ],
)
def test_bad_input_gives_one_sentence(run, tmp_path, arguments, code, words):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "tiny.txt").write_text("To be.")
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n\n" * 1000)
    (tmp_path / "broken.gz").write_bytes(gzip.compress(random.Random(1).randbytes(100_000))[:50_000])
    result = run("prepare", *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    message = result.stderr.strip().splitlines()[-1]
    assert words in message
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


def test_a_kill_leaves_nothing_half_written(run, start, corpus, tmp_path):
    large = tmp_path / "large.txt"
    large.write_bytes(corpus.read_bytes() * 20)
    out = tmp_path / "out"
    for delay in (0.0, 0.3, 0.8):
        process = start("prepare", large, "--out", out, "--vocab-size", 512)
        while process.poll() is None and not list(tmp_path.glob("*.partial")):
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():  # killed between the last rename and its exit, or after that
            assert (out / "dataset.json").exists()
            shutil.rmtree(out)
    result = run("prepare", large, "--out", out, "--vocab-size", 512)
    assert result.returncode == 0, result.stderr
    assert sorted(contents(out)) == ["dataset.json", "tokenizer.model", "train_000001.bin", "val_000000.bin"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_with_another_data_set_is_kept(run, corpus, tmp_path):
    out = tmp_path / "out"
    arguments = ["prepare", corpus, "--out", out, "--vocab-size", 400]
    first = run(*arguments)
    assert first.returncode == 0 and "from 590 kB of text in 1 file, " in first.stdout, first.stdout + first.stderr
    assert "kB (100 %)" in first.stderr
    before = contents(out)
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text()[1:])
    for replaced, words in (
        (["prepare", other, "--out", out, "--vocab-size", 400], "a data set of another text"),
        (["prepare", corpus, "--out", out, "--vocab-size", 401], "a data set with vocab-size 400"),
        ([*arguments, "--val-fraction", 0.1], "a data set with val-fraction 0.01"),
    ):
        refused = run(*replaced)
        assert refused.returncode == 1 and words in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
        assert "remove it first" in refused.stderr
    assert contents(out) == before
    assert run(*arguments).returncode == 0
    assert contents(out) == before
