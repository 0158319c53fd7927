"""Injects faults into runs of several ranks and looks whether anything was lost.

    .venv/bin/python scripts/faults.py [--count 300] [--seed 1] [--minutes 60] [--out DIR]

One injection: a run of a tiny model is hurt in a random way at a random moment; then
1. every other rank has to end by itself with exit code 1 and one sentence that names the hurt rank and the place, within
   the timeout (and what a busy machine takes);
2. the same command with --resume auto has to finish, and its weights, optimizer state and metrics have to equal those of
   a run that nobody disturbed, bit for bit.
The ways: kill (SIGKILL), stop (SIGSTOP, as a hanging machine looks), term (SIGTERM: all save and exit 75), two (two ranks
killed at once), checkpoint (SIGKILL to rank 0 between the first and the last file of a checkpoint). Moments are drawn over
the whole run, start and final save included; where they hit is read from what the survivors say. Prints a table.
"""

import argparse
import atexit
import collections
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAM = REPOSITORY / "build" / "steepest"
# How ranks agree: flags of the recipe. Not scheme = "auto", whose choice, and with it the bytes, may differ between runs.
AGREEMENTS = {
    "mean": ["--optimizer.method=adamw", "--optimizer.lr=0.01"],
    "vote": ["--optimizer.method=signum", "--optimizer.lr=0.01", "--distributed.aggregate=vote"],
    "ef-mean": ["--optimizer.method=sgd", "--optimizer.lr=0.01", "--distributed.aggregate=ef-mean"],
}
_VOTE = AGREEMENTS["vote"]
AGREEMENTS |= {
    "bf16 mean": [*AGREEMENTS["mean"], "--distributed.mean-precision=bf16"],
    "all-gather": [*_VOTE, "--distributed.scheme=all-gather"],
    "halving": [*_VOTE, "--distributed.scheme=halving"],
    "two planes": [*_VOTE, "--distributed.zero=zero"],
    "machines": [*_VOTE, "--distributed.vote-per=machine"],
    "byzantine": [*_VOTE, "--distributed.byzantine=true", "--train.non-finite=abstain"],
    "alias": ["--optimizer.method=alias", "--optimizer.gamma-max=0.01", "--distributed.aggregate=vote"],
}
WAYS = ("kill", "stop", "term", "two", "checkpoint")
CHECKED = ("train/loss", "val/loss", "train/lr", "train/grad_norm", "train/tokens", "comm/bytes_sent", "opt/skipped_steps")
PATIENCE = 300  # seconds: [distributed] timeout where nobody is stopped, and what a busy machine may take
QUICK = 30  # seconds in which the end of a rank has to be noticed, on a busy machine
# What a rank may say that has not yet met all others: no place follows its name.
BEFORE_MEETING = re.compile(r"\[distributed\] rank \d+ of \d+(: | could not | lost |, start: )")

CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 48,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
}


@dataclass(frozen=True)
class Setting:
    """A run: how its ranks agree, how many there are, how long it takes."""

    agreement: str = "vote"
    ranks: int = 3
    steps: int = 40

    @property
    def per_machine(self):
        """Ranks that count as one machine."""
        return 2 if self.agreement == "machines" else self.ranks


@dataclass
class Outcome:
    """What an injection showed; no problems: all is well."""

    way: str
    place: str = ""  # where the survivors noticed it
    seconds: float = 0  # from the injection to the end of the last survivor
    problems: list = field(default_factory=list)


def random_tokens(folder, vocabulary=512, count=200_000):
    """Token shards whose next token mostly follows from the last one, so that losses move."""
    import numpy

    generator = numpy.random.default_rng(5)
    steps = generator.choice([1, 3, 7, 100], size=count, p=[0.6, 0.2, 0.1, 0.1])
    tokens = (numpy.cumsum(steps) % vocabulary).astype(numpy.uint16)
    folder.mkdir(parents=True)
    for name, part in (("train_000001.bin", tokens[:-20_000]), ("val_000000.bin", tokens[-20_000:])):
        header = numpy.zeros(256, dtype=numpy.int32)
        header[:3] = (20240520, 1, part.size)
        (folder / name).write_bytes(header.tobytes() + part.tobytes())


class Workplace:
    """The data, the recipe and the undisturbed runs that others are compared with."""

    def __init__(self, folder, program=PROGRAM):
        self.folder = Path(folder)
        self.program = program
        self._references = {}
        self._runs = 0
        random_tokens(self.folder / "data")
        (self.folder / "config.json").write_text(json.dumps(CONFIG))
        (self.folder / "recipe.toml").write_text(
            f'[model]\nconfig = "{self.folder}/config.json"\n[data]\npath = "{self.folder}/data"\nsequence_length = 32\n'
            "[train]\nbatch_tokens = 768\nmicro_batch_size = 4\nwarmup_steps = 5\nseed = 3\nthreads = 1\n"
            "[eval]\nevery = 10\ntokens = 2000\n[checkpoint]\nevery = 3\nkeep = 2\n[distributed]\nreplica_check_every = 1\n"
            "bucket_kib = 4\n"  # several buckets, so that some travel during the backward pass
        )

    def new_folder(self):
        self._runs += 1
        return self.folder / f"run{self._runs}"

    def arguments(self, setting, out, timeout):
        return [
            str(self.program), "train", str(self.folder / "recipe.toml"), "--out", str(out), "--resume", "auto",
            *AGREEMENTS[setting.agreement], "--train.max-steps", str(setting.steps), "--distributed.timeout", str(timeout),
        ]  # fmt: skip

    def reference(self, setting):
        """The folder of the undisturbed run."""
        if setting not in self._references:
            out = self.new_folder()
            for rank in Job(self, setting, out).wait(2 * PATIENCE):
                if rank.code != 0:
                    raise RuntimeError(f"the undisturbed run failed: {rank.errors}")
            self._references[setting] = out
        return self._references[setting]


def environment(**variables):
    """This process's environment without a launcher's variables, plus `variables`."""
    launcher = ("STEEPEST_", "OMPI_", "PMI_", "SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launcher)}
    return {**kept, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in variables.items()}}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


started = []


@atexit.register
def kill_what_runs():
    for process in started:
        if process.poll() is None:
            process.kill()


class Rank:
    def __init__(self, command, variables, folder):
        self._out = tempfile.TemporaryFile("w+", dir=folder)
        self._err = tempfile.TemporaryFile("w+", dir=folder)
        self.process = subprocess.Popen(command, stdout=self._out, stderr=self._err, env=variables, stdin=subprocess.DEVNULL)
        started.append(self.process)

    @property
    def code(self):
        return self.process.poll()

    @staticmethod
    def _text(file):
        file.seek(0)
        return file.read()

    @property
    def output(self):
        return self._text(self._out)

    @property
    def errors(self):
        return self._text(self._err)


class Job:
    """The ranks of one run, on loopback."""

    def __init__(self, place, setting, out, timeout=PATIENCE, **variables):
        self.out = out
        self.timeout = timeout
        self.setting = setting
        common = {"WORLD_SIZE": setting.ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **variables}
        command, size = place.arguments(setting, out, timeout), setting.per_machine
        self.ranks = [
            Rank(command, environment(RANK=r, LOCAL_RANK=r % size, LOCAL_WORLD_SIZE=size, **common), place.folder)
            for r in range(setting.ranks)
        ]

    def steps_done(self):
        """Steps in the metrics so far."""
        try:
            with open(self.out / "metrics.jsonl", "rb") as file:
                return file.read().count(b"\n")
        except FileNotFoundError:
            return 0

    def running(self):
        return [rank for rank in self.ranks if rank.code is None]

    def wait_until(self, condition, patience=60):
        """Polls every 0.3 ms; False when a rank has ended before."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and len(self.running()) == len(self.ranks):
            if condition():
                return True
            time.sleep(0.0003)
        return False

    def send(self, victims, which):
        for r in victims:
            if self.ranks[r].code is None:
                self.ranks[r].process.send_signal(which)

    def wait(self, patience, without=()):
        """Waits for all ranks but `without`; kills what is left."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(
            rank.code is None for r, rank in enumerate(self.ranks) if r not in without
        ):
            time.sleep(0.01)
        late = [r for r, rank in enumerate(self.ranks) if rank.code is None and r not in without]
        for rank in self.running():
            rank.process.kill()
            rank.process.wait()
        self.late = late
        return self.ranks


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def differences(out, reference):
    """In what a finished run differs from the undisturbed one."""
    found = []
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (run / "checkpoints" / (run / "checkpoints/latest").read_text().strip() / name for run in (out, reference))
        if one.parent.name != other.parent.name:
            return [f"it ended with {one.parent.name}, not {other.parent.name}"]
        if one.read_bytes() != other.read_bytes():
            found.append(f"{name} differs")
    mine, theirs = rows(out), rows(reference)
    if [row["step"] for row in mine] != [row["step"] for row in theirs]:
        return [*found, "the metrics have other steps"]
    for a, b in zip(mine, theirs):
        for name in CHECKED:
            if a[name] != b[name]:
                return [*found, f"{name} of step {a['step']} is {a[name]}, not {b[name]}"]
    leftover = [path.name for path in (out / "checkpoints").iterdir() if path.name.endswith((".partial", ".old"))]
    return found + [f"{name} was left behind" for name in leftover]


def half_saved(out):
    """Checkpoints that count although a file is missing."""
    needed = ("model.safetensors", "optimizer.safetensors", "config.json")
    return [
        f"{folder.name} has no {name}"
        for folder in (out / "checkpoints").glob("step_????????")
        if (folder / "trainer.json").exists()
        for name in needed
        if not (folder / name).exists()
    ]


def hurt(job, way, victims, moment):
    """Does it at `moment`: seconds after the start, or (step, seconds after it). False if the run was over before."""
    if way == "checkpoint":
        step, delay = moment
        seen = job.wait_until(lambda: job.steps_done() >= step and any(job.out.glob("checkpoints/*.partial")))
        if not seen:
            return False
        time.sleep(delay)
    elif isinstance(moment, tuple):
        step, delay = moment
        if not job.wait_until(lambda: job.steps_done() >= step):
            return False
        time.sleep(delay)
    else:
        job.wait_until(lambda: False, moment)
    if len(job.running()) < len(job.ranks):
        return False
    job.send(victims, {"stop": signal.SIGSTOP, "term": signal.SIGTERM}.get(way, signal.SIGKILL))
    return True


def inject(place, setting, way, victims, moment, timeout):
    """One injection, the look at the survivors, the resume and the comparison.

    Ranks that are stopped, or die before all have met, are noticed after `timeout`.
    """
    reference = place.reference(setting)
    outcome = Outcome(way)
    out = place.new_folder()
    # A rank that dies before all have met is missed for the timeout too.
    early = not isinstance(moment, tuple) or moment[0] == 0
    short = way == "stop" or early
    job = Job(place, setting, out, timeout if short else PATIENCE)
    happened = hurt(job, way, victims, moment)
    begin = time.monotonic()
    job.wait(job.timeout + PATIENCE, without=victims if way == "stop" else ())
    outcome.seconds = time.monotonic() - begin
    if happened:
        look_at_survivors(job, way, victims, outcome)
        if outcome.seconds > QUICK + (job.timeout if short else 0):
            outcome.problems.append(f"it took {outcome.seconds:.0f} s until the last rank had ended")
    elif all(rank.code == 0 for rank in job.ranks):
        outcome.place = "after the end"
    elif short and all(rank.code == 1 and BEFORE_MEETING.search(rank.errors) for rank in job.ranks):
        outcome.place = "too busy to start"  # the short timeout of a stop holds for the start too
    else:
        outcome.problems += [f"unhurt, rank {r} ended with {rank.code}: {rank.errors.strip()}" for r, rank in enumerate(job.ranks)]
    if out.exists():
        outcome.problems += half_saved(out)
    for rank in Job(place, setting, out).wait(2 * PATIENCE):
        if rank.code != 0:
            outcome.problems.append(f"the resumed run ended with {rank.code}: {rank.errors.strip()}")
    if not outcome.problems:
        outcome.problems += differences(out, reference)
    if not outcome.problems:
        shutil.rmtree(out)
    return outcome


def look_at_survivors(job, way, victims, outcome):
    outcome.problems += [f"rank {r} did not end" for r in job.late]
    for r, rank in enumerate(job.ranks):
        if (r in victims and way != "term") or r in job.late:
            continue
        if way == "term":
            if rank.code == 75 or (rank.code == 0 and job.steps_done() == job.setting.steps):
                outcome.place = "between steps"
                continue
            # Before the program listens to signals, SIGTERM ends it as SIGKILL does.
            if any(job.ranks[v].code == -signal.SIGTERM for v in victims):
                if r in victims:
                    continue
            else:
                outcome.problems.append(f"rank {r} ended with {rank.code}: {rank.errors.strip()}")
                continue
        if rank.code == 0 and job.steps_done() == job.setting.steps:
            outcome.place = "after the end"
            continue
        errors = rank.errors
        if rank.code != 1 or errors.count("\n") != 1:
            outcome.problems.append(f"rank {r} ended with {rank.code} and said {errors!r}")
            continue
        said = re.search(rf"\[distributed\] rank {r} of {len(job.ranks)}, ([^:]+): rank (\d+) ", errors)
        met = BEFORE_MEETING.search(errors)
        if said and int(said[2]) in victims:
            outcome.place = re.sub(r"\d+", "N", said[1])
        elif said:
            outcome.problems.append(f"rank {r} blames rank {said[2]} instead of {victims}: {errors.strip()}")
        elif met:
            outcome.place = "rendezvous"
        else:
            outcome.problems.append(f"rank {r} said {errors.strip()!r}")


def draw(generator, settings, duration):
    """A random injection."""
    setting = generator.choice(settings)
    way = generator.choice(WAYS)
    if way == "two" and setting.ranks < 3:
        way = "kill"
    victims = generator.sample(range(setting.ranks), 2 if way == "two" else 1)
    if way == "checkpoint":
        victims = [0]
        moment = (generator.randrange(0, setting.steps - 4), generator.random() * 0.004)
    elif generator.random() < 0.2:
        moment = generator.random() * duration(setting)  # anywhere, the start included
    else:
        moment = (generator.randrange(0, setting.steps + 1), generator.random() * 0.06)
    return setting, way, victims, moment


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="injections")
    parser.add_argument("--minutes", type=float, default=60, help="begins no injection after this time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=10, help="[distributed] timeout of runs with a stopped rank, seconds")
    parser.add_argument("--program", type=Path, default=PROGRAM)
    parser.add_argument("--out", type=Path, help="keep the folders of runs that went wrong here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    generator = random.Random(arguments.seed)
    settings = [Setting(agreement, ranks) for agreement in AGREEMENTS for ranks in (2, 3, 4)]
    settings = [setting for setting in settings if setting.agreement != "machines" or setting.ranks == 4]
    took = {}
    results, agreements = collections.defaultdict(list), []
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="steepest-faults-"))
    place = Workplace(folder, arguments.program.resolve())
    begin = time.monotonic()

    def duration(setting):
        if setting not in took:
            place.reference(setting)
            start = time.monotonic()
            Job(place, setting, place.new_folder()).wait(2 * PATIENCE)
            took[setting] = time.monotonic() - start
        return took[setting]

    bad = 0
    for number in range(arguments.count):
        if time.monotonic() - begin > arguments.minutes * 60:
            break
        setting, way, victims, moment = draw(generator, settings, duration)
        outcome = inject(place, setting, way, victims, moment, arguments.timeout)
        results[way].append(outcome)
        agreements.append(setting.agreement)
        for problem in outcome.problems:
            print(f"injection {number} ({setting.agreement}, {setting.ranks} ranks, {way} of {victims} at {moment}): {problem}", flush=True)
        bad += bool(outcome.problems)
    total = sum(map(len, results.values()))
    print(f"\n{total} injections in {(time.monotonic() - begin) / 60:.0f} minutes, {bad} with a problem (seed {arguments.seed})\n")
    hit = collections.Counter(agreements)
    print("Runs: " + ", ".join(f"{name} {hit[name]}" for name in AGREEMENTS) + "\n")
    print("| way | injections | noticed in | longest wait, s | problems |\n|---|---|---|---|---|")
    for way in WAYS:
        places = collections.Counter(outcome.place for outcome in results[way])
        where = ", ".join(f"{name or '?'} {count}" for name, count in places.most_common())
        longest = max((outcome.seconds for outcome in results[way]), default=0)
        print(f"| {way} | {len(results[way])} | {where} | {longest:.1f} | {sum(bool(o.problems) for o in results[way])} |")
    if not bad and not arguments.out:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
