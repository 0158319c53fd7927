"""Parameter-free steps end to end: the step size is measured and reported, resuming gives the same bits, ranks agree, and
`steepest tune` finds a constant step."""

import hashlib
import json

import pytest
from test_train import wait_for_step


@pytest.fixture(scope="session")
def alias_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("alias_model") / "config.json"
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "vocab_size": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    }
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def recipe(dataset, alias_model, tmp_path):
    """recipe('method = "alias"', train="max_steps = 5") -> path of a recipe file."""

    def write(optimizer, train="", distributed="", name="recipe.toml"):
        path = tmp_path / name
        path.write_text(
            f'[model]\nconfig = "{alias_model}"\n[data]\npath = "{dataset}"\nsequence_length = 32\n'
            f"[optimizer]\n{optimizer}\n"
            f'[train]\nbatch_tokens = 256\nmicro_batch_size = 4\nmax_steps = 12\nprecision = "fp32"\nschedule = "constant"\n{train}\n'
            f"[eval]\nevery = 0\ntokens = 512\n[checkpoint]\nevery = 4\nkeep = 10\n"
            f"[distributed]\nreplica_check_every = 1\n{distributed}\n"
        )
        return path

    return write


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_of(out, step):
    folder = out / "checkpoints" / f"step_{step:08d}"
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.safetensors", "optimizer.safetensors")]


KINDS = {
    "same backward": 'method = "alias"',
    "same backward option I gap 3": 'method = "alias"\noption = "I"\ngap = 3\nd0 = 0.01',
    "same forward": 'method = "alias"\npair = "forward"',
    "same forward directional option I": 'method = "alias"\npair = "forward"\nestimator = "directional"\noption = "I"',
    "consecutive": 'method = "alias"\nsample = "consecutive"',
    "consecutive directional momentum": 'method = "alias"\nsample = "consecutive"\nestimator = "directional"\nmemory = "ema"',
    "minmax_signed": 'method = "alias"\nsample = "consecutive"\nestimator = "minmax_signed"\noption = "I"\ngamma_max = 0.01',
    "llm": 'method = "alias_llm"\ngap = 2',
    "paper": 'method = "alias_llm_paper"\ngap = 2',
    "adam": 'method = "alias_scale"',
    "sinkhorn": 'method = "alias"\ndirection = "identity"\n[optimizer.matrix]\ndirection = "sinkhorn"',
}


@pytest.mark.parametrize("kind", ["same backward option I gap 3", "consecutive directional momentum", "llm", "sinkhorn"])
def test_resumed_run_has_the_same_bits(run, recipe, tmp_path, kind):
    path = recipe(KINDS[kind])
    whole = run("train", path, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    first = run("train", path, "--out", tmp_path / "parts", "--train.max-steps", 8)
    assert first.returncode == 0, first.stderr
    second = run("train", path, "--out", tmp_path / "parts", "--resume", "auto")
    assert second.returncode == 0, second.stderr
    assert weights_of(tmp_path / "whole", 12) == weights_of(tmp_path / "parts", 12)
    assert [row["opt/step_size"] for row in rows(tmp_path / "whole")] == [
        row["opt/step_size"] for row in rows(tmp_path / "parts")
    ]


def test_paper_scale_is_reported_and_resumes(run, recipe, tmp_path):
    path = recipe('method = "alias_adam"\nd_mode = "paper"')
    whole = run("train", path, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for steps in (8, 12):
        part = run("train", path, "--out", tmp_path / "parts", "--train.max-steps", steps, "--resume", "auto")
        assert part.returncode == 0, part.stderr
    assert weights_of(tmp_path / "whole", 12) == weights_of(tmp_path / "parts", 12)
    written = rows(tmp_path / "whole")
    scales = [row["opt/d"] for row in written]
    assert scales[0] == 1e-8 and scales == sorted(scales)
    assert all(row["opt/step_size"] == row["train/lr"] * row["opt/d"] for row in written)
    refused = run("train", recipe('method = "adamw"\nd_mode = "paper"'), "--out", tmp_path / "refused")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "d_mode" in refused.stderr


def test_interrupted_run_resumes(start, run, recipe, tmp_path):
    path = recipe('method = "alias"\npair = "forward"\noption = "I"', train="log_every = 1")
    length = ("--train.max-steps", 300)
    whole = run("train", path, "--out", tmp_path / "whole", *length)
    assert whole.returncode == 0, whole.stderr
    process = start("train", path, "--out", tmp_path / "parts", *length)
    wait_for_step(tmp_path / "parts", 6, process)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    resumed = run("train", path, "--out", tmp_path / "parts", *length, "--resume", "auto")
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(tmp_path / "whole", 300) == weights_of(tmp_path / "parts", 300)


def test_step_size_is_reported_and_the_loss_falls(run, recipe, tmp_path):
    result = run("train", recipe('method = "alias"'), "--out", tmp_path / "out", "--train.max-steps", 60)
    assert result.returncode == 0, result.stderr
    assert "step size" in result.stdout
    written = rows(tmp_path / "out")
    assert all(row["opt/step_size"] > 0 for row in written)
    assert all(row["train/lr"] == row["opt/step_size"] for row in written)
    eta = [row["opt/eta"] for row in written]
    assert eta == sorted(eta) and eta[-1] > eta[0] > 0
    for name in ("opt/objective", "opt/d", "opt/dtil", "opt/largest_ratio", "opt/largest_weight", "opt/skipped_refreshes"):
        assert all(name in row for row in written)
    assert written[-1]["train/loss"] < written[0]["train/loss"] - 0.3


def test_other_methods_have_no_step_size(run, recipe, tmp_path):
    result = run("train", recipe('method = "signsgd"'), "--out", tmp_path / "out", "--train.max-steps", 2)
    assert result.returncode == 0, result.stderr
    assert all(row["opt/step_size"] is None and "opt/eta" not in row for row in rows(tmp_path / "out"))


@pytest.mark.parametrize(
    "aggregate, optimizer",
    [
        ("mean", 'method = "alias"\npair = "forward"\noption = "I"\nd0 = 0.01'),
        ("vote", 'method = "alias"'),
        ("vote", 'method = "alias"\nsample = "consecutive"\nestimator = "directional"\noption = "I"\nmemory = "ema"'),
    ],
)
def test_two_ranks_stay_equal_and_resume(run, recipe, torchrun, tmp_path, aggregate, optimizer):
    # replica_check_every = 1 stops the run at the first difference between the ranks.
    path = recipe(optimizer, distributed=f'aggregate = "{aggregate}"')
    launcher = [torchrun, "--no-python", "--standalone", "--nproc-per-node", 2]
    for out, steps in (("whole", (12,)), ("parts", (8, 12))):
        for last in steps:
            result = run(
                "train", path, "--out", tmp_path / out, "--train.max-steps", last, "--resume", "auto", launcher=launcher
            )
            assert result.returncode == 0, result.stderr
    assert weights_of(tmp_path / "whole", 12) == weights_of(tmp_path / "parts", 12)
    written = rows(tmp_path / "whole")
    assert all(row["opt/step_size"] > 0 for row in written)
    assert written[-1]["opt/eta"] > written[0]["opt/eta"]


def test_voted_run_continues_with_another_number_of_ranks(run, recipe, torchrun, tmp_path):
    path = recipe('method = "alias"\nsample = "consecutive"', distributed='aggregate = "vote"')
    launcher = [torchrun, "--no-python", "--standalone", "--nproc-per-node", 2]
    first = run("train", path, "--out", tmp_path / "out", "--train.max-steps", 4, launcher=launcher)
    assert first.returncode == 0, first.stderr
    launcher[-1] = 4
    second = run("train", path, "--out", tmp_path / "out", "--train.max-steps", 8, "--resume", "auto", launcher=launcher)
    assert second.returncode == 0, second.stderr
    eta = [row["opt/eta"] for row in rows(tmp_path / "out")]
    assert eta[4] == eta[3]  # the references were those of two other ranks
    assert eta[5] > eta[4]


@pytest.mark.parametrize(
    "optimizer, words",
    [
        ('method = "signsgd"\ngap = 5', "[optimizer] gap"),
        ('method = "alias"\nd0 = 0.0', "[optimizer] d0"),
        ('method = "alias"\nL0 = 0', "gamma_max"),
        ('method = "alias"\nL0 = "none"', "[optimizer] L0"),
        ('method = "alias"\nlr = 0.1', "[optimizer] lr"),
        ('method = "alias"\nalias_warmup = 5', "gamma_max"),
        ('method = "alias"\nsample = "twice"', "same, consecutive"),
        ('method = "alias"\nestimator = "directional"\nsample = "consecutive"\ngap = 2', "directional"),
        ('method = "alias"\nestimator = "minmax"\ndirection = "identity"', "minmax"),
    ],
)
def test_impossible_recipes_are_refused(run, recipe, optimizer, words):
    result = run("train", recipe(optimizer), "--print-config")
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_lower_bound_above_the_loss_is_an_error(run, recipe, tmp_path):
    result = run("train", recipe('method = "alias"\nf_lower = 100.0'), "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "bad f_lower" in result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_printed_configuration_reads_back(run, recipe, tmp_path, kind):
    printed = run("train", recipe(KINDS[kind]), "--print-config")
    assert printed.returncode == 0, printed.stderr
    again = tmp_path / "again.toml"
    again.write_text(printed.stdout)
    assert run("train", again, "--print-config").stdout == printed.stdout


@pytest.mark.parametrize("arguments", [["--sos-fast", "--gs", 1e-3], ["--gs", 1e-5]])
def test_tune_prints_a_line_for_the_recipe(run, recipe, tmp_path, arguments):
    path = recipe('method = "sos"')
    result = run("tune", path, "--steps", 15, "--out", tmp_path / "out", *arguments)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "out" / "tune.json").read_text())
    last = result.stdout.splitlines()[-1]
    assert last.startswith("lr = ") and float(last[5:]) == found["gamma"]
    assert result.stdout.count("gamma ") == len(found["runs"])
    assert len(found["runs"]) == 2 if "--sos-fast" in arguments else len(found["runs"]) > 2
    assert 1e-5 <= found["gamma"] < 1
    # The line, put into the recipe, trains.
    trained = run("train", recipe(f'method = "sos"\n{last}', name="tuned.toml"), "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    written = rows(tmp_path / "run")
    assert written[-1]["train/loss"] < written[0]["train/loss"]


def test_tune_is_the_same_for_one_rank_and_repeats(run, recipe, tmp_path):
    path = recipe('method = "signum"')
    results = [run("tune", path, "--steps", 6, "--sos-fast", "--gs", 1e-3, "--out", tmp_path / name) for name in "ab"]
    assert all(result.returncode == 0 for result in results), results[0].stderr
    assert results[0].stdout == results[1].stdout


@pytest.mark.parametrize(
    "optimizer, arguments, words",
    [
        ('method = "alias"', [], "nothing to tune"),
        ('method = "sos"', ["--gs", 0], "above 0"),
        ('method = "sos"', ["--sos-fast", "--gs", -1], "above 0"),
        ('method = "sos"', ["--steps", 0], "--steps"),
    ],
)
def test_tune_refuses_what_it_cannot_do(run, recipe, tmp_path, optimizer, arguments, words):
    result = run("tune", recipe(optimizer), "--out", tmp_path / "out", *arguments)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
