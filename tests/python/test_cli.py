"""The command line as the README promises it: help, exit codes, one plain sentence for every misuse."""

import json
import re
import tomllib

import pytest

VERBS = ("prepare", "train", "eval", "generate", "methods")
OPTIONS = {
    "prepare": ["--out", "--vocab-size", "--tokenizer", "--val-fraction"],
    "train": ["--resume", "--out", "--print-config"],
    "eval": ["--data", "--tokens", "--json"],
    "generate": ["--prompt", "--max-tokens", "--temperature", "--top-k", "--seed"],
    "methods": ["--json"],
}
RECIPE = """
[model]
config = "llama-9m"
[data]
path = "data"
[optimizer]
method = "signum"
lr = 0.25
[train]
max_steps = 7
seed = 11
"""


@pytest.fixture
def recipe(tmp_path):
    """recipe(text) -> path of a file that holds it."""

    def write(text=RECIPE):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def refused(result, *words, code=2):
    """The program exited with `code` after one line on stderr that has all the words, and printed nothing else."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("steepest: ")
    for word in words:
        assert word in lines[0]


def test_help_lists_every_verb(run):
    result = run("--help")
    assert result.returncode == 0
    for verb in VERBS:
        assert f"  {verb} " in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_lists_its_options(run, verb):
    result = run(verb, "--help")
    assert result.returncode == 0
    for option in OPTIONS[verb]:
        assert option in result.stdout


def test_version(run):
    result = run("--version")
    assert result.returncode == 0
    version, kernels = result.stdout.splitlines()
    assert re.fullmatch(r"steepest \d+\.\d+\.\d+", version)
    assert kernels.startswith("kernels: ")


def test_version_names_the_kernels_and_how_to_force_them(run):
    kernels = run("--version").stdout.splitlines()[1]
    used, others = re.fullmatch(r"kernels: (\w+)(?: \(also (.*); STEEPEST_KERNELS=\w+ forces one\))?", kernels).groups()
    for name in others.split(", ") if others else []:
        forced = run("--version", env={"STEEPEST_KERNELS": name}).stdout.splitlines()[1]
        assert forced.startswith(f"kernels: {name} (also {used}")
    refused(run("--version", env={"STEEPEST_KERNELS": "abacus"}), "[STEEPEST_KERNELS]", "abacus", used)


def test_no_verb(run):
    refused(run(), "verb", "train")


@pytest.mark.parametrize("wrong, near", [("trian", "train"), ("preprae", "prepare"), ("method", "methods"), ("genrate", "generate")])
def test_unknown_verb_names_the_nearest(run, wrong, near):
    refused(run(wrong), f'"{wrong}"', near)


def test_unknown_verb_like_none_lists_all(run):
    refused(run("xylophone"), *VERBS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "text.txt", "--out", "data"),
        ("eval", "checkpoint", "--data", "data"),
        ("generate", "checkpoint", "--prompt", "a"),
        ("methods",),
    ],
)
def test_unknown_option(run, arguments):
    refused(run(*arguments, "--no-such-option"), "--no-such-option")


def test_unknown_option_of_train(run, recipe):
    refused(run("train", recipe(), "--no-such-option"), "--no-such-option")


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare",),
        ("prepare", "text.txt"),
        ("train",),
        ("eval",),
        ("eval", "checkpoint"),
        ("generate",),
        ("generate", "checkpoint"),
    ],
)
def test_missing_arguments(run, arguments):
    refused(run(*arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "text.txt", "--out", "data", "--vocab-size", "many"),
        ("eval", "checkpoint", "--data", "data", "--tokens", "1.5"),
        ("generate", "checkpoint", "--prompt", "a", "--max-tokens", "-1"),
        ("generate", "checkpoint", "--prompt", "a", "--temperature", "-0.5"),
        ("generate", "checkpoint", "--prompt", "a", "--temperature", "nan"),
        ("generate", "checkpoint", "--prompt", "a", "--top-k", "-3"),
    ],
)
def test_wrong_values_of_options(run, arguments):
    refused(run(*arguments), arguments[-2])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("prepare", "no-such-text", "--out", "data"), ["no-such-text", "exist"]),
        (("eval", "no-such-checkpoint", "--data", "data"), ["no-such-checkpoint"]),
        (("generate", "no-such-checkpoint", "--prompt", "a"), ["no-such-checkpoint"]),
    ],
)
def test_what_does_not_exist_is_named(run, tmp_path, arguments, words):
    refused(run(*arguments, cwd=tmp_path), *words, code=1)


def test_missing_recipe(run):
    refused(run("train", "no-such-recipe.toml"), "no-such-recipe.toml")


@pytest.mark.parametrize(
    "flag, value, words",
    [
        ("--train.max-stepz", "3", ["max_steps"]),
        ("--train.max_stepz", "3", ["max_steps"]),
        ("--trian.max-steps", "3", ["train"]),
        ("--optimizer.matrx.lr", "3", ["optimizer.matrix"]),
        ("--train.max-steps", "-5", ["max_steps is -5; it must be at least 1"]),
        ("--train.max-steps", "many", ["max_steps", "many", "integer"]),
        ("--train.max-steps", "1.5", ["max_steps", "1.5", "integer"]),
        ("--train.schedule", "cosin", ["schedule", "cosin", "cosine, linear, constant, wsd"]),
        ("--train.precision", "fp64", ["precision", "fp64"]),
        ("--optimizer.lr", "nan", ["lr", "nan"]),
        ("--optimizer.method", "sinkdg", ["sinkdg", "sinkgd"]),
        ("--distributed.aggregate", "median", ["aggregate", "median", "vote"]),
    ],
)
def test_wrong_keys_and_values_of_the_configuration(run, recipe, flag, value, words):
    refused(run("train", recipe(), flag, value), *words)


def test_unknown_model(run, recipe, dataset, tmp_path):
    arguments = ["--data.path", dataset, "--out", tmp_path / "run"]
    refused(run("train", recipe(), "--model.config", "llama-20", *arguments), "llama-20", "llama-20m")


def test_flag_without_value(run, recipe):
    refused(run("train", recipe(), "--train.max-steps"), "--train.max-steps", "value")


@pytest.mark.parametrize(
    "line, words",
    [
        ("max_stepz = 3", ["max_stepz", "max_steps"]),
        ("max_steps = ", ["TOML", "line 3"]),
        ('max_steps = "3"', ["max_steps", "integer"]),
        ("max_steps = 3\nmax_steps = 4", ["TOML", "line 4"]),
        ("max_steps = 99999999999999999999", ["TOML", "line 3"]),
        ("max_steps = [1]", ["max_steps"]),
        ("[tarin]\nseed = 3", ["tarin", "train"]),
    ],
)
def test_wrong_recipes(run, recipe, line, words):
    path = recipe(f"# a recipe\n[train]\n{line}\n")
    refused(run("train", path, "--print-config"), *words)


def test_recipe_errors_name_file_and_line(run, recipe):
    path = recipe("[train]\nseed = 1\nwarmup_stepz = 3\n")
    refused(run("train", path), f"{path} line 3", "warmup_steps")


def test_binary_recipe(run, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(bytes(range(256)))
    refused(run("train", path), str(path))


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("STEEPEST_TRAIN_MAX_STEPZ", "3", ["STEEPEST_TRAIN_MAX_STEPZ", "max_steps"]),
        ("STEEPEST_TRIAN_SEED", "3", ["STEEPEST_TRIAN_SEED"]),
        ("STEEPEST_TRAIN_MAX_STEPS", "0", ["max_steps is 0", "STEEPEST_TRAIN_MAX_STEPS"]),
    ],
)
def test_wrong_environment_variables(run, recipe, name, value, words):
    refused(run("train", recipe(), env={name: value}), *words)


def test_launcher_variables_that_contradict_each_other(run, recipe):
    variables = {"RANK": 2, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    refused(run("train", recipe(), env=variables), "RANK")


def test_later_sources_win(run, recipe):
    environment = {"STEEPEST_TRAIN_MAX_STEPS": 8, "STEEPEST_TRAIN_SEED": 12, "STEEPEST_OPTIMIZER_MATRIX_LR": 0.5}
    result = run("train", recipe(), "--print-config", "--train.seed", 13, env=environment)
    assert result.returncode == 0, result.stderr
    config = tomllib.loads(result.stdout)
    assert config["model"]["config"] == "llama-9m"  # from the file
    assert config["train"]["max_steps"] == 8  # from the environment
    assert config["train"]["seed"] == 13  # from the flag
    assert config["train"]["schedule"] == "cosine"  # the default
    assert config["optimizer"]["matrix"]["lr"] == 0.5
    assert config["optimizer"]["head"]["lr"] == 0.25


def test_flags_take_both_spellings(run, recipe):
    outputs = {
        run("train", recipe(), "--print-config", *flags).stdout
        for flags in (["--train.max-steps", 9], ["--train.max_steps", 9], ["--train.max-steps=9"])
    }
    assert len(outputs) == 1
    assert tomllib.loads(outputs.pop())["train"]["max_steps"] == 9


def test_methods_as_table(run):
    result = run("methods")
    assert result.returncode == 0
    for name in ("adamw", "sgd", "signsgd", "signum", "lion", "sinkgd"):
        assert name in result.stdout


def test_methods_as_json(run):
    result = run("methods", "--json")
    assert result.returncode == 0
    table = {row["name"]: row for row in json.loads(result.stdout)}
    assert {"adamw", "sgd", "signsgd", "signum", "lion", "sinkgd"} <= table.keys()
    for row in table.values():
        assert {"paper", "formula", "roles", "state_bytes_per_param", "wire_bits_per_param"} <= row.keys()


def test_one_method(run):
    assert "Sinkhorn" in run("methods", "sinkgd").stdout or "sinkhorn" in run("methods", "sinkgd").stdout
    assert [row["name"] for row in json.loads(run("methods", "signum", "--json").stdout)] == ["signum"]
    refused(run("methods", "sgn"), "sgd")


def test_output_that_cannot_be_written_is_a_failure(run):
    with open("/dev/full", "w") as full:
        assert run("methods", stdout=full).returncode == 1


def test_documented_methods_are_the_real_ones(run, repository):
    """docs/methods.md is what `steepest methods --markdown` prints."""
    printed = run("methods", "--markdown")
    assert printed.returncode == 0 and "## sinkgd" in printed.stdout
    assert (repository / "docs" / "methods.md").read_text() == printed.stdout


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("eval", "checkpoint", "--dat", "data"), "[--dat] is not an option of eval; did you mean --data?"),
        (("generate", "--promt", "a"), "[--promt] is not an option of generate; did you mean --prompt?"),
        (("generate", "checkpoint", "--xylophone=1"), "[--xylophone] is not an option of generate; see steepest generate --help"),
        (("prepare", "a.txt", "--vocabsize", "512"), "[--vocabsize] is not an option of prepare; did you mean --vocab-size?"),
        (("eval", "checkpoint", "more", "--data", "data"), "[more] is one argument too many for eval"),
        (("train", "RECIPE", "--resum", "auto"), "[--resum] is not an option of train; did you mean --resume?"),
        (("train", "--resum", "RECIPE"), "[--resum] is not an option of train; did you mean --resume?"),
        (("train", "RECIPE", "extra.toml"), "[extra.toml] is one argument too many; train takes one recipe"),
        (("tune", "RECIPE", "--sequence", "auto"), "[--sequence] is not an option of tune; configuration keys are written"),
        (("tune", "RECIPE", "--resume", "auto"), "[--resume] is not an option of tune"),
        (("methods", "sinkgdd"), '[methods] NAME is "sinkgdd"; did you mean "sinkgd"?'),
        (("methods", "xylophone"), '[methods] NAME is "xylophone"; it must be one of adamw, adam, '),
    ],
)
def test_what_is_unknown_is_said_before_what_is_missing(run, recipe, arguments, sentence):
    refused(run(*(recipe() if word == "RECIPE" else word for word in arguments)), sentence)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("eval", "c", "--data", "d", "--tokens", "abc"), "[--tokens] is abc; it must be a whole number of at least 1"),
        (("eval", "c", "--data", "d", "--tokens", "0"), "[--tokens] is 0; it must be a whole number of at least 1"),
        (("eval", "c", "--data", "d", "--sequence-length", "1.5"), "[--sequence-length] is 1.5; it must be a whole number"),
        (("generate", "c", "--prompt", "a", "--seed", "-1"), "[--seed] is -1; it must be a whole number of at least 0"),
        (("generate", "c", "--prompt", "a", "--top-k", "9" * 15), "it must be at most 1099511627776"),
        (("generate", "c", "--prompt", "a", "--temperature", "inf"), "[--temperature] is inf; it must be a number"),
        (("prepare", "a", "--out", "b", "--vocab-size", "300"), "[--vocab-size] is 300; it must be between 320 and 1000000"),
        (("tune", "RECIPE", "--gs", "-1"), "[--gs] is -1; it must be a number above 0"),
        (("tune", "RECIPE", "--gs", "2000"), "[--gs] is 2000; it must be below 1000"),
        (("tune", "RECIPE", "--steps", "0"), "[--steps] is 0; it must be a whole number of at least 1"),
        (("train", "RECIPE", "--data.vocab-size", "319"), "[data] vocab_size is 319; it must be at least 320"),
        (("train", "RECIPE", "--optimizer.betas", "0.9"), "[optimizer] betas has 1 number; it needs 2"),
        (("train", "RECIPE", "--train.learning-rate", "1"), "[train] learning_rate is not a known key; did you mean lr of [optimizer]?"),
        (("train", "RECIPE", "--eval.max-steps", "1"), "[eval] max_steps is not a known key; it belongs to [train]"),
        (("train", "RECIPE", "--train.xylophone", "1"), "is not a known key; steepest train --keys lists all keys"),
    ],
)
def test_numbers_and_keys_are_refused_in_one_sentence(run, recipe, arguments, sentence):
    refused(run(*(recipe() if word == "RECIPE" else word for word in arguments)), sentence)


@pytest.mark.parametrize("verb", VERBS + ("tune",))
def test_help_shows_no_internal_names_of_types(run, verb):
    assert not {"INT", "UINT", "FLOAT"} & set(run(verb, "--help").stdout.replace(":", " ").split())


def test_a_text_given_as_recipe(run, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("To be, or not to be.\n" * 100_000)
    refused(run("train", path), str(path), "a recipe is expected, a TOML file")


def test_a_folder_that_is_no_checkpoint(run, recipe, tmp_path):
    (tmp_path / "folder").mkdir()
    for arguments in (("eval", "folder", "--data", "data"), ("generate", "folder", "--prompt", "a"),
                      ("train", recipe(), "--model.init-from", "folder")):
        refused(run(*arguments, cwd=tmp_path), "[folder] is not a checkpoint; name a folder such as runs/", code=1)
