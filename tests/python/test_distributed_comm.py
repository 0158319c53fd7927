"""The process group under torchrun, without a model: the ranks of build/tests/test_comm."""

import subprocess

import pytest

from conftest import clean_environment


@pytest.fixture
def run_ranks(repository, torchrun):
    """run_ranks("vote", 2, "--max-restarts=1", env={...}) -> CompletedProcess of torchrun."""
    program = repository / "build" / "tests" / "test_comm"
    if not program.is_file():
        pytest.fail(f"{program} is missing; run `make test`, or build test_comm", pytrace=False)

    def call(scenario, count, *options, env=None):
        command = [torchrun, "--no-python", "--standalone", f"--nproc-per-node={count}", *options, program, "--rank", scenario]
        environment = clean_environment({"OMP_NUM_THREADS": "1", **(env or {})})
        return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=120)

    return call


def test_ranks_of_torchrun_decide_the_same_votes(run_ranks):
    result = run_ranks("vote", 2)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.split()
    assert first == second


def test_torchrun_restarts_ranks_after_one_died(run_ranks):
    result = run_ranks("victim", 2, "--max-restarts=1", env={"VICTIM": 1})
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n").count("20 steps") == 2


def test_survivors_print_no_stack_trace(run_ranks):
    """torchrun may stop the survivor before it speaks; what it says is tested without torchrun, in tests/comm."""
    result = run_ranks("victim", 2, env={"VICTIM": 1})
    assert result.returncode == 1
    assert not any(word in result.stderr for word in ("frame #", "terminate called", "[c10d]", "gloo/transport")), result.stderr
