"""Time of a SinkGD step on the hidden matrices of llama-60m (25.3 M parameters in 56 tensors, fp32), against PyTorch.

    python bench/sinkhorn_step.py [--threads 1,2] [--repetitions 7]

Peers, all in one other process: the algorithm as written in eager mode (naive), the same under torch.compile, the vector
form r = n / (A c), c = m / (A^T r) with torch.mv, torch's fused AdamW, and torch's in-place SGD on one flat tensor of
as many elements, which is the speed of memory. steepest's own AdamW, and SinkGD with 1, 2 and 5 iterations, go through
steepest::Optimizer. Sides alternate, each step runs while the other process waits; both use tcmalloc. The table gives
medians, how many times longer than steepest's L = 5 and than its own AdamW, and the spread (interquartile range over
median). `make bench` builds the C++ side.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from train_throughput import REPOSITORY, find_allocator

SHAPES = 8 * (4 * [(512, 512)] + 2 * [(1376, 512)] + [(512, 1376)])
OURS = {
    "steepest SinkGD L=5": "sinkgd 5",
    "steepest SinkGD L=2": "sinkgd 2",
    "steepest SinkGD L=1": "sinkgd 1",
    "steepest AdamW": "adamw 0",
}
PEERS = ["naive eager", "naive torch.compile", "torch.mv", "torch fused AdamW", "torch SGD, one flat tensor"]
STEP = 1e-6


def serve_peers():
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    weights = [torch.randn(shape) * 0.02 for shape in SHAPES]
    gradients = [torch.randn(shape) * 1e-3 for shape in SHAPES]
    parameters = [torch.nn.Parameter(w) for w in weights]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient
    adamw = torch.optim.AdamW(parameters, lr=STEP, fused=True)
    flat = [torch.randn(sum(w.numel() for w in weights)) for _ in range(2)]

    def naive(w, g):
        rows, cols = g.shape
        x = g
        for _ in range(5):
            x = x * (cols**0.5 / x.norm(dim=1, keepdim=True))
            x = x * (rows**0.5 / x.norm(dim=0, keepdim=True))
        w.sub_(x, alpha=STEP)

    def vectors(w, g):
        rows, cols = g.shape
        squares = g * g
        c = torch.ones(cols)
        for _ in range(5):
            r = cols / torch.mv(squares, c)
            c = rows / torch.mv(squares.t(), r)
        w.sub_(g * r.sqrt()[:, None] * c.sqrt()[None, :], alpha=STEP)

    def over_matrices(step):
        return lambda: [step(w, g) for w, g in zip(weights, gradients)]

    sides = {
        "naive eager": over_matrices(naive),
        "naive torch.compile": over_matrices(torch.compile(naive, dynamic=False)),
        "torch.mv": over_matrices(vectors),
        "torch fused AdamW": adamw.step,
        "torch SGD, one flat tensor": lambda: flat[0].sub_(flat[1], alpha=STEP),
    }
    with torch.no_grad():
        for line in sys.stdin:
            name, count = line.rstrip().rsplit(" ", 1)
            start = time.perf_counter()
            for _ in range(int(count)):
                sides[name]()
            print((time.perf_counter() - start) * 1e3, flush=True)


class Process:
    def __init__(self, command, threads):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
            "LD_PRELOAD": find_allocator(),
        }
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def milliseconds(self, what, count):
        self.process.stdin.write(f"{what} {count}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{what} stopped with exit code {self.process.wait()}")
        return float(answer) / count

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(program, threads, repetitions):
    ours = Process([str(program)], threads)
    peers = Process([sys.executable, str(Path(__file__).resolve()), "--serve"], threads)
    sides = {name: (ours, what, 5) for name, what in OURS.items()}
    sides |= {name: (peers, name, 1 if name.startswith("naive") else 3) for name in PEERS}
    times = {name: [] for name in sides}
    for process, what, _ in sides.values():
        process.milliseconds(what, 2)
    for _ in range(repetitions):
        for name, (process, what, count) in sides.items():
            times[name].append(process.milliseconds(what, count))
    ours.close()
    peers.close()
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"\n{threads} thread{'s' if threads > 1 else ''}{'':24} ms   / L=5   / AdamW   spread")
    for name, values in times.items():
        quarters = statistics.quantiles(values, n=4)
        print(
            f"{name:27} {median[name]:8.1f} {median[name] / median['steepest SinkGD L=5']:7.2f} "
            f"{median[name] / median['steepest AdamW']:9.2f} {(quarters[2] - quarters[0]) / median[name]:8.0%}",
            flush=True,
        )


def main():
    if sys.argv[1:] == ["--serve"]:
        return serve_peers()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--program", type=Path, default=REPOSITORY / "build" / "bench" / "sinkhorn_step")
    arguments = parser.parse_args()
    if not arguments.program.is_file():
        sys.exit(f"{arguments.program} is missing; build it with `scripts/build.sh release benchmarks`")
    for threads in arguments.threads.split(","):
        measure(arguments.program, int(threads), arguments.repetitions)


if __name__ == "__main__":
    main()
