"""`steepest eval` and `steepest generate` on bare Hugging Face folders, against transformers."""

import json
import math

import numpy
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

WINDOW = 32


def fields(message):
    """(number, value) of a protobuf message: what a SentencePiece model is made of."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            length = {1: 8, 5: 4}.get(key & 7) or varint()
            value = message[at : at + length]
            at += length
        yield key >> 3, value


NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def pieces_of(folder):
    """(text, type) of every piece of a tokenizer.model."""
    pieces = []
    for number, value in fields((folder / "tokenizer.model").read_bytes()):
        if number == 1:
            piece = dict(fields(value))
            pieces.append((piece[1].decode(), piece.get(3, NORMAL)))
    return pieces


@pytest.fixture(scope="session")
def folder(dataset, tmp_path_factory):
    """A random model in transformers' own format, with the tokenizer beside it."""
    folder = tmp_path_factory.mktemp("hf") / "model"
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(pieces_of(dataset)),
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.3,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes((dataset / "tokenizer.model").read_bytes())
    return folder


def validation_tokens(dataset):
    return numpy.concatenate(
        [numpy.fromfile(path, dtype=numpy.uint16)[512:] for path in sorted(dataset.glob("val_*.bin"))]
    ).astype(numpy.int64)


@pytest.mark.parametrize("tokens", [None, 5 * WINDOW, 5 * WINDOW + 7])
def test_eval_equals_transformers(run, dataset, folder, tokens):
    arguments = ["eval", folder, "--data", dataset, "--json"] + ([] if tokens is None else ["--tokens", tokens])
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    data = torch.from_numpy(validation_tokens(dataset))
    count = (len(data) - 1) // WINDOW * WINDOW if tokens is None else tokens
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    total = 0.0
    with torch.no_grad():
        for first in range(0, count, WINDOW):
            length = min(WINDOW, count - first)
            logits = model(input_ids=data[None, first : first + length]).logits
            total += torch.nn.functional.cross_entropy(
                logits[0], data[first + 1 : first + 1 + length], reduction="sum"
            ).item()
    assert result["tokens"] == count
    assert result["loss"] == pytest.approx(total / count, abs=1e-4)
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]), rel=1e-9)


def test_eval_prints_four_decimals(run, dataset, folder):
    done = run("eval", folder, "--data", dataset, "--tokens", WINDOW)
    assert done.returncode == 0, done.stderr
    loss = dict(line.split() for line in done.stdout.splitlines())["loss"]
    assert len(loss.split(".")[1]) >= 4


def test_greedy_text_equals_transformers(run, folder):
    pieces = pieces_of(folder)
    begin = [text for text, _ in pieces].index("<s>")
    done = run("generate", folder, "--prompt", "", "--max-tokens", 20, "--temperature", 0)
    assert done.returncode == 0, done.stderr
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokens = model.generate(torch.tensor([[begin]]), do_sample=False, max_new_tokens=20)[0].tolist()[1:]
    expected = b""
    for text, kind in (pieces[token] for token in tokens):
        if kind == BYTE:
            expected += bytes([int(text[3:5], 16)])
        elif kind != CONTROL:
            expected += text.replace("\u2581", " ").encode()
    assert done.stdout == expected.decode(errors="replace") + "\n"


def test_the_prompt_stands_before_its_continuation(run, folder):
    done = run("generate", folder, "--prompt", "The river", "--max-tokens", 5)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The river") and len(done.stdout) > len("The river\n")


def test_seeds_decide_the_text(run, folder):
    def text(seed):
        done = run("generate", folder, "--prompt", "The", "--max-tokens", 20, "--top-k", 50, "--seed", seed)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert text(1) == text(1)
    assert text(1) != text(2)
