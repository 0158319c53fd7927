"""Communication over rate-limited links: steepest against PyTorch over Gloo, alternating in one run.

    python bench/network.py [exchange] [train] [--hosts 2,4] [--rates "100 Mbit,1 Gbit,unlimited"] [--quick]

2 and 4 hosts are network namespaces on this machine, joined by a bridge, each link limited by `tc tbf`; it needs root and
says so where it cannot make them. Every host is one process with one thread, so 4 hosts on 2 cores compute at half speed;
both sides do.

exchange: a gradient of 10 M parameters, 1-bit vote and 1-bit mean with error feedback against Gloo's fp32 all-reduce and
  against the bare bytes of a vote (uint8 all-to-all and all-gather, nothing computed).
train: steps of `steepest train` (mean as fp32 and bf16, vote, ef-mean) against DistributedDataParallel (fp32, a bf16 hook, PowerSGD of rank
  1 and 4) on the same LLaMA and batch. Exposed: what steepest reports as comm/exposed_ms; for DDP, its step minus its step
  under no_sync. "alone" is a step of each side on all hosts at once, without communication.

Bytes are what the kernel counts as sent on the TCP connections of host 0, each once, in a step or exchange; for `steepest train`
its own comm/bytes_sent. `make bench` builds the C++ side.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from net.namespaces import RATES, Network, Unavailable
from train_throughput import SHAPES, find_allocator

REPOSITORY = Path(__file__).resolve().parents[1]
PEER = [sys.executable, str(REPOSITORY / "bench" / "net" / "peer.py")]
STEEPEST = {  # side: method and [distributed]
    "mean": ("adamw", 'aggregate = "mean"'),
    "mean-bf16": ("adamw", 'aggregate = "mean"\nmean_precision = "bf16"'),
    "vote": ("signum", 'aggregate = "vote"'),
    "ef-mean": ("adamw", 'aggregate = "ef-mean"'),
}
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # c10d warns that the hosts have no names
DDP = ["fp32", "bf16", "powersgd-1", "powersgd-4"]


def environment(rank, ranks, master, port, **more):
    variables = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": master, "MASTER_PORT": port}
    return {
        **os.environ,
        **{name: str(value) for name, value in variables.items() if ranks > 1},
        "GLOO_SOCKET_IFNAME": Network.interface,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "LD_PRELOAD": find_allocator(),
        **more,
    }


class Ranks:
    """One process on each host that runs what its stdin says while the others wait."""

    def __init__(self, network, command, port, **more):
        self.network = network
        self.processes = [
            subprocess.Popen(
                network.command(r, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(r, network.hosts, network.address(0), port, **more),
            )
            for r in range(network.hosts)
        ]

    def run(self, kind, count):
        """(milliseconds, payload bytes host 0 sent) of one of `count` exchanges or steps; the slowest rank counts."""
        before = self.network.bytes_sent(0)
        for process in self.processes:
            process.stdin.write(f"{kind} {count}\n")
            process.stdin.flush()
        answers = [process.stdout.readline() for process in self.processes]
        if not all(answers):
            sys.exit(f"a rank of {self.processes[0].args[-4:]} stopped")
        return max(map(float, answers)) / count, (self.network.bytes_sent(0) - before) / count

    def close(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


class Samples:
    def __init__(self):
        self.values = []

    def add(self, value):
        self.values.append(value)

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def spread(self):
        if len(self.values) < 2:
            return 0
        quarters = statistics.quantiles(self.values, n=4, method="inclusive")
        return (quarters[2] - quarters[0]) / max(self.median, 1e-9)


def measure_exchange(network, rates, parameters, repetitions):
    sides = {
        "steepest": Ranks(network, [REPOSITORY / "build/bench/exchange", parameters], 29401),
        "gloo": Ranks(network, [*PEER, "exchange", parameters], 29402, **QUIET),
    }
    kinds = [("gloo", "fp32"), ("gloo", "uint8"), *(("steepest", kind) for kind in ("vote", "ef-mean", "mean", "mean-bf16"))]
    bits = 2 * (network.hosts - 1) / network.hosts
    try:
        for rate in rates:
            network.limit(RATES[rate])
            times = {kind: Samples() for _, kind in kinds}
            sent = {kind: Samples() for _, kind in kinds}
            for repetition in range(repetitions + 1):
                for side, kind in kinds:
                    milliseconds, payload = sides[side].run(kind, 1 if kind in ("fp32", "mean", "mean-bf16") else 3)
                    if repetition > 0:  # the first one warms up
                        times[kind].add(milliseconds)
                        sent[kind].add(payload)
            for side, kind in kinds:
                print(
                    f"| {network.hosts} | {rate} | {side} {kind} | {times[kind].median:.1f} | {times[kind].spread:.0%} | "
                    f"{times['fp32'].median / times[kind].median:.1f} | {sent[kind].median / 1e6:.3f} | "
                    f"{sent[kind].median * 8 / parameters / bits:.3f} |",
                    flush=True,
                )
    finally:
        for side in sides.values():
            side.close()


def recipe(folder, config, vocabulary, aggregate, ranks, batch, length, steps):
    """A recipe whose data are random tokens: the time of a step does not depend on them."""
    import numpy

    shard = folder / f"data{vocabulary}" / "train_000001.bin"
    if not shard.exists():
        shard.parent.mkdir()
        tokens = numpy.random.default_rng(1).integers(vocabulary, size=1 << 20)
        header = numpy.zeros(256, dtype=numpy.int32)
        header[:3] = (20240520, 1, tokens.size)
        shard.write_bytes(header.tobytes() + tokens.astype(numpy.uint16).tobytes())
    method, distributed = STEEPEST[aggregate]
    path = folder / f"{config}-{vocabulary}-{aggregate}-{ranks}.toml"
    path.write_text(
        f'[model]\nconfig = "{config}"\nvocab_size = {vocabulary}\n[data]\npath = "{shard.parent}"\nsequence_length = {length}\n'
        f'[optimizer]\nmethod = "{method}"\n'
        f"[train]\nbatch_tokens = {ranks * batch * length}\nmicro_batch_size = {batch}\nmax_steps = {steps}\nthreads = 1\n"
        f"[checkpoint]\nevery = 0\n[distributed]\n{distributed}\n"
    )
    return path


def steepest_run(network, folder, settings, aggregate, steps, together, port):
    """Rows of metrics of a run over all hosts, or of host 0 of runs that do not communicate, all at once."""
    config, vocabulary, batch, length = settings
    ranks = network.hosts if together else 1
    path = recipe(folder, config, vocabulary, aggregate, ranks, batch, length, steps)
    outs = [folder / f"out{0 if together else r}" for r in range(network.hosts)]
    processes = [
        subprocess.Popen(
            network.command(r, [REPOSITORY / "build/steepest", "train", path, "--out", outs[r]]),
            stdout=subprocess.DEVNULL,
            env=environment(r, ranks, network.address(0), port),
        )
        for r in range(network.hosts)
    ]
    if any([process.wait() for process in processes]):
        sys.exit(f"steepest train {path} failed")
    rows = [json.loads(line) for line in (outs[0] / "metrics.jsonl").read_text().splitlines()]
    for out in set(outs):
        shutil.rmtree(out)
    return rows[2:]  # the first steps warm up


def parameters_of(config, vocabulary):
    hidden, feed, _, layers = SHAPES[config]
    return 2 * vocabulary * hidden + hidden + layers * (4 * hidden * hidden + 3 * hidden * feed + 2 * hidden)


def measure_train(network, rates, settings, steps, repetitions):
    config, vocabulary, *_ = settings
    bits = 2 * (network.hosts - 1) / network.hosts * parameters_of(config, vocabulary)
    ddp = Ranks(network, [*PEER, "train", *settings], 29403, **QUIET)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            network.limit(None)
            for kind in DDP:  # PowerSGD begins with its third step
                ddp.run(kind, 3)
            for rate in rates:
                network.limit(RATES[rate])
                port = 29500
                times, exposed, sent = {}, {}, {}
                for _ in range(repetitions):
                    for aggregate in STEEPEST:
                        for together in (True, False):
                            port += 1
                            rows = steepest_run(network, folder, settings, aggregate, steps + 2, together, port)
                            side = f"steepest {aggregate}" + ("" if together else " alone")
                            for row in rows:
                                times.setdefault(side, Samples()).add(row["perf/step_ms"])
                                exposed.setdefault(side, Samples()).add(row["comm/exposed_ms"])
                                sent.setdefault(side, Samples()).add(row["comm/bytes_sent"])
                    for kind in ["none", *DDP]:
                        milliseconds, payload = ddp.run(kind, steps)
                        side = "DDP alone" if kind == "none" else f"DDP {kind}"
                        times.setdefault(side, Samples()).add(milliseconds)
                        sent.setdefault(side, Samples()).add(payload)
                fp32 = times["DDP fp32"].median - times["DDP alone"].median
                for side in times:
                    if side.endswith("alone"):
                        continue
                    alone = times["DDP alone" if side.startswith("DDP") else side + " alone"].median
                    waits = times[side].median - alone if side.startswith("DDP") else exposed[side].median
                    print(
                        f"| {config}, {vocabulary:,} | {network.hosts} | {rate} | {side} | {times[side].median:.0f} | "
                        f"{times[side].spread:.0%} | {times[side].median / alone:.2f} | {waits:.0f} | {waits / fp32:.1%} | "
                        f"{times['DDP fp32'].median / times[side].median:.2f} | {sent[side].median / 1e6:.3f} | "
                        f"{sent[side].median * 8 / bits:.3f} |",
                        flush=True,
                    )
        finally:
            ddp.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["exchange", "train"], help="exchange, train")
    parser.add_argument("--hosts", default="2,4")
    parser.add_argument("--rates", default=",".join(RATES))
    parser.add_argument("--parameters", type=int, default=10_000_000, help="of the bare exchange")
    parser.add_argument("--configs", default="llama-9m,llama-20m")
    parser.add_argument("--vocabularies", default="4096,32000")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step and host")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6, help="steps per repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1 M parameters, llama-9m, 2 hosts, 2 repetitions: to try it out")
    arguments = parser.parse_args()
    rates = arguments.rates.split(",")
    if unknown := set(rates) - set(RATES) | set(arguments.what) - {"exchange", "train"}:
        parser.error(f"{', '.join(unknown)} is unknown")
    if arguments.quick:
        arguments.parameters, arguments.hosts, arguments.configs, arguments.vocabularies = 1_000_000, "2", "llama-9m", "4096"
        arguments.steps, arguments.repetitions = 3, 2
    for program in ("build/steepest", "build/bench/exchange"):
        if not (REPOSITORY / program).is_file():
            sys.exit(f"{program} is missing; build it with `scripts/build.sh release benchmarks`")
    try:
        if "exchange" in arguments.what:
            print("| hosts | rate | exchange | ms | spread | times as fast as fp32 | MB sent | over 2(M-1)/M bits |\n" + "|---" * 8 + "|")
            for hosts in map(int, arguments.hosts.split(",")):
                with Network(hosts) as network:
                    measure_exchange(network, rates, arguments.parameters, arguments.repetitions)
        if "train" in arguments.what:
            print(
                "\n| model, vocabulary | hosts | rate | training | step ms | spread | over alone | exposed ms | of DDP fp32's | "
                "times as fast as DDP fp32 | MB sent | over 2(M-1)/M bits |\n" + "|---" * 12 + "|"
            )
            for hosts in map(int, arguments.hosts.split(",")):
                with Network(hosts) as network:
                    for config in arguments.configs.split(","):
                        for vocabulary in map(int, arguments.vocabularies.split(",")):
                            settings = (config, vocabulary, arguments.batch, arguments.length)
                            measure_train(network, rates, settings, arguments.steps, arguments.repetitions)
    except Unavailable as reason:
        print(f"skipped: {reason}")


if __name__ == "__main__":
    main()
