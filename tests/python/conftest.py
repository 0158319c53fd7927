"""Fixtures of the end-to-end tests: the program itself, a text made on the spot, the data prepared from it.

Nothing is downloaded. Every child process starts from a clean environment: no variables of a launcher and none of
steepest's own, so that a test means the same on a cluster node as on a laptop.
"""

import json
import os
import random
import socket
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHER_PREFIXES = ("STEEPEST_", "OMPI_", "PMI_", "PMIX_", "SLURM_", "TORCHELASTIC_")
LAUNCHER_NAMES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"}


def pytest_addoption(parser):
    parser.addoption("--program", default=str(REPOSITORY / "build" / "steepest"), help="the steepest program under test")


def clean_environment(extra=None):
    """This process's environment without launcher variables, plus `extra` (None removes a variable).

    One thread unless a test asks for more: the models are tiny, and spinning threads on a busy machine cost minutes.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_NAMES and not name.startswith(LAUNCHER_PREFIXES)
    }
    environment["OMP_NUM_THREADS"] = "1"
    for name, value in (extra or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = str(value)
    return environment


def make_text(lines=6000, seed=1):
    """English-like sentences from a small grammar: regular enough that a tiny model learns within a few steps."""
    generator = random.Random(seed)
    nouns = "river mountain garden letter window captain harbour candle forest engine teacher market".split()
    verbs = "carries follows remembers watches answers repairs forgets paints measures visits".split()
    adjectives = "quiet old bright narrow patient heavy distant green honest curious".split()
    adverbs = "slowly often gladly never twice today".split()

    def phrase():
        adjective = f"{generator.choice(adjectives)} " if generator.random() < 0.6 else ""
        return f"the {adjective}{generator.choice(nouns)}"

    def sentence():
        text = f"{phrase()} {generator.choice(verbs)} {phrase()} {generator.choice(adverbs)}"
        return text[0].upper() + text[1:] + generator.choice([".", ".", "!", "?"])

    return "\n".join(f"{number}. {sentence()} {sentence()}" for number in range(1, lines + 1)) + "\n"


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def program(request):
    """Path of the program under test (build/steepest, or --program)."""
    path = Path(request.config.getoption("--program")).resolve()
    if not path.is_file():
        pytest.fail(f"{path} is missing; run `make build` first", pytrace=False)
    return path


@pytest.fixture(scope="session")
def torchrun():
    """Path of the virtual environment's torchrun."""
    return REPOSITORY / ".venv" / "bin" / "torchrun"


@pytest.fixture(scope="session")
def run(program):
    """run("eval", folder, "--json", env={...}, cwd=..., timeout=...) -> CompletedProcess with text stdout and stderr.

    `launcher=[...]` goes before the program: run("train", recipe, launcher=[torchrun, "--no-python", ...]).
    """

    def call(*arguments, env=None, cwd=None, timeout=300, launcher=(), **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run(
            [*map(str, launcher), str(program), *map(str, arguments)],
            env=clean_environment(env),
            cwd=cwd,
            timeout=timeout,
            text=True,
            errors="replace",
            **options,
        )

    return call


@pytest.fixture
def start(program):
    """Like run, but returns the started Popen; whatever is still running at the end of the test is killed."""
    started = []

    def call(*arguments, env=None, cwd=None, launcher=(), **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [*map(str, launcher), str(program), *map(str, arguments)],
            env=clean_environment(env),
            cwd=cwd,
            text=True,
            errors="replace",
            **options,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def free_port():
    """free_port() -> a TCP port of the loopback interface that nobody listens on now."""

    def find():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A text file of about 600 KB, the same in every run."""
    path = tmp_path_factory.mktemp("corpus") / "sentences.txt"
    path.write_text(make_text(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def dataset(run, corpus, tmp_path_factory):
    """The corpus prepared with 512 pieces: tokenizer, train_*.bin and val_*.bin."""
    folder = tmp_path_factory.mktemp("dataset") / "sentences"
    result = run("prepare", corpus, "--out", folder, "--vocab-size", 512, "--val-fraction", 0.05)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A LLaMA of about 60 thousand parameters."""
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(
        json.dumps(
            {
                "model_type": "llama",
                "vocab_size": 512,
                "hidden_size": 48,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
                "rms_norm_eps": 1e-6,
            }
        )
    )
    return path


@pytest.fixture
def recipe(tmp_path, dataset, tiny_model):
    """recipe(method="signum", **keys of [train]) -> path of a recipe."""

    def make(method="signum", lr=None, name="recipe", extra="", **train):
        keys = {"batch_tokens": 1024, "micro_batch_size": 8, "max_steps": 12, "warmup_steps": 3, "seed": 7, **train}
        lines = [f'[model]\nconfig = "{tiny_model}"', f'[data]\npath = "{dataset}"\nsequence_length = 64']
        lines.append(f'[optimizer]\nmethod = "{method}"' + (f"\nlr = {lr}" if lr else ""))
        lines.append("[train]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in keys.items()))
        lines.append("[eval]\nevery = 6\ntokens = 2048\n[checkpoint]\nevery = 4\n" + extra)
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines))
        return path

    return make


@pytest.fixture
def ranks(torchrun):
    """ranks(2) -> launcher arguments; one thread each, since two ranks share this machine."""

    def launcher(count, *options):
        return [torchrun, "--no-python", "--standalone", f"--nproc-per-node={count}", *options]

    return launcher
