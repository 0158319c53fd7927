"""Optimizer steps in shares of memory bandwidth, against torch's, alternating in one run on the same arrays.

    python bench/optimizer_step.py [--threads 1,2] [--rounds 15] [--compile] [--only PATTERN]

The 58 M parameters of LLaMA-60m (vocabulary 32,000), fp32, as one flat vector and as separate tensors. The roofline is
torch's in-place SGD on the flat vector, 12 bytes per parameter; it runs before every measurement, and a share is a
step's bytes per second over those of the roofline run before it. Bytes are what a step cannot avoid: sign 12, Signum
and Lion 20, AdamW 28, pack 4.125, momentum and pack 12.125, apply 8.125 per parameter. Peers do the same work in more
passes, so their time is given. Packing and votes are compared with a plain read of the same bytes, and what a rank of 8
does for a vote (pack, count its shard, apply) with the plain fused step. Medians and interquartile ranges over the rounds. `make bench` builds the C++ side.
"""

import argparse
import ctypes
import functools
import os
import re
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import torch  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
LR, DECAY = 1e-6, 0.1


def shapes(vocabulary=32000, hidden=512, feed=1376, layers=8):
    block = [(hidden,), (hidden, hidden)] + [(hidden, hidden)] * 3 + [(hidden,), (feed, hidden), (feed, hidden)]
    return [(vocabulary, hidden)] + (block + [(hidden, feed)]) * layers + [(hidden,), (vocabulary, hidden)]


class Arrays:
    """Weights, gradients and two states of a list of tensors, with steepest's view of them."""

    def __init__(self, library, sizes):
        self.library = library
        self.size = sum(sizes)
        self.weights = [torch.randn(n) for n in sizes]
        self.gradients = [torch.randn(n) * 1e-3 for n in sizes]
        self.first = [torch.zeros(n) for n in sizes]
        self.second = [torch.zeros(n) for n in sizes]
        self.words = torch.zeros((self.size + 63) // 64, dtype=torch.int64)
        pointers = [
            (ctypes.c_void_p * len(sizes))(*(t.data_ptr() for t in tensors))
            for tensors in (self.weights, self.gradients, self.first, self.second)
        ]
        self.handle = ctypes.c_void_p(
            library.bench_tensors(ctypes.c_size_t(len(sizes)), *pointers, (ctypes.c_size_t * len(sizes))(*sizes))
        )

    def step(self, method):
        return lambda: self.library.bench_step(self.handle, method.encode())

    def pack(self, method):
        return lambda: self.library.bench_pack(self.handle, method.encode(), ctypes.c_void_p(self.words.data_ptr()))

    def apply(self):
        return lambda: self.library.bench_apply(self.handle, ctypes.c_void_p(self.words.data_ptr()))


def sign_step(weights, gradients):
    for w, g in zip(weights, gradients, strict=True):
        w.mul_(1 - LR * DECAY).add_(g.sign(), alpha=-LR)


def sign_step_foreach(weights, gradients):
    torch._foreach_mul_(weights, 1 - LR * DECAY)
    torch._foreach_add_(weights, torch._foreach_sign(gradients), alpha=-LR)


def lion_step(weights, gradients, first):
    for w, g, m in zip(weights, gradients, first, strict=True):
        update = torch.lerp(m, g, 0.1).sign_()
        w.mul_(1 - LR * DECAY).add_(update, alpha=-LR)
        m.lerp_(g, 0.01)


def lion_pytorch(weights, gradients, first):
    """The passes of the lion-pytorch package."""
    for w, g, m in zip(weights, gradients, first, strict=True):
        w.mul_(1 - LR * DECAY)
        update = m.clone().mul_(0.9).add(g, alpha=0.1).sign_()
        w.add_(update, alpha=-LR)
        m.mul_(0.99).add_(g, alpha=0.01)


def torch_adamw(arrays):
    parameters = [torch.nn.Parameter(w) for w in arrays.weights]
    for p, g in zip(parameters, arrays.gradients, strict=True):
        p.grad = g
    return torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY, fused=True).step


def no_grad(function, *arguments):
    def run():
        with torch.no_grad():
            function(*arguments)

    return run


def items(arrays, compiled):
    """(name, bytes per parameter or None, function)"""
    a = arrays
    yield "steepest sign", 12, a.step("sign")
    yield "torch sign eager", None, no_grad(sign_step, a.weights, a.gradients)
    yield "torch sign foreach", None, no_grad(sign_step_foreach, a.weights, a.gradients)
    if compiled:
        yield "torch sign compiled", 12, no_grad(torch.compile(sign_step), a.weights, a.gradients)
    yield "steepest signum", 20, a.step("signum")
    yield "steepest lion", 20, a.step("lion")
    yield "torch lion eager", None, no_grad(lion_step, a.weights, a.gradients, a.first)
    yield "lion-pytorch's passes", None, no_grad(lion_pytorch, a.weights, a.gradients, a.first)
    if compiled:
        yield "torch lion compiled", 20, no_grad(torch.compile(lion_step), a.weights, a.gradients, a.first)
    yield "steepest adamw", 28, a.step("adamw")
    yield "torch adamw fused", 28, torch_adamw(a)
    yield "steepest pack", 4.125, a.pack("sign")
    yield "steepest momentum + pack", 12.125, a.pack("signum")
    yield "steepest apply", 8.125, a.apply()


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values):
    quarters = statistics.quantiles(values, n=4)
    return statistics.median(values), quarters[0], quarters[2]


def measure_steps(title, arrays, roofline, size, arguments):
    print(f"\n{title}\n{'':28}{'ms':>8}{'GB/s':>8}{'share of roofline':>22}")
    chosen = [i for i in items(arrays, arguments.compile) if not arguments.only or re.search(arguments.only, i[0])]
    times = {name: [] for name, _, _ in chosen}
    roof = {name: [] for name, _, _ in chosen}
    for _, _, function in chosen:
        function()
    for _ in range(arguments.rounds):
        for name, _, function in chosen:
            roof[name].append(seconds(roofline))
            times[name].append(seconds(function))
    every = [t for part in roof.values() for t in part]
    median = statistics.median(every)
    print(f"{'roofline: torch sgd, flat':28}{median * 1e3:8.1f}{12 * size / median / 1e9:8.2f}")
    for name, width, _ in chosen:
        median = statistics.median(times[name])
        line = f"{name:28}{median * 1e3:8.1f}"
        if width:
            share, low, high = spread([width / t * r / 12 for t, r in zip(times[name], roof[name], strict=True)])
            line += f"{width * size / median / 1e9:8.2f}{share:10.0%} ({low:.0%} to {high:.0%})"
        print(line, flush=True)


def measure_reads(library, arrays, arguments):
    """Packing and voting against a plain read of the same bytes, from memory and from the cache."""
    print(f"\nagainst a plain read of the same bytes\n{'':28}{'ns/param':>9}{'times a read':>22}")
    pointer, number = ctypes.c_void_p, ctypes.c_size_t

    def read(tensor, repetitions=1):
        words = tensor.numel() * tensor.element_size() // 8
        return lambda: library.bench_read(pointer(tensor.data_ptr()), number(words), number(repetitions))

    def row(name, parameters, function, reference, rounds):
        function(), reference()
        times, ratios = [], []
        for _ in range(rounds):
            base = seconds(reference)
            times.append(seconds(function))
            ratios.append(times[-1] / base)
        ratio, low, high = spread(ratios)
        time_each = statistics.median(times) / parameters * 1e9
        print(f"{name:28}{time_each:9.4f}{ratio:10.2f} ({low:.2f} to {high:.2f})", flush=True)

    row("pack", arrays.size, arrays.pack("sign"), read(arrays.gradients[0]), arguments.rounds)
    for where, words, repetitions in (("memory", arrays.size // 64, 1), ("cache", 512, 100)):
        for voters in (3, 8, 15, 32):
            stride = words + 8  # the vectors of real models do not all start at the same place of a page
            votes = torch.randint(-(2**62), 2**62, (voters, stride), dtype=torch.int64)
            decided = torch.zeros(words, dtype=torch.int64)
            sizes = map(number, (voters, words, stride))
            call = (pointer(votes.data_ptr()), *sizes, pointer(decided.data_ptr()), number(repetitions))
            rounds = arguments.rounds if where == "memory" else 50 * arguments.rounds
            vote = functools.partial(library.bench_vote, *call)
            row(f"vote of {voters} from {where}", words * 64 * repetitions, vote, read(votes, repetitions), rounds)


def measure_vote_path(library, arrays, arguments, voters=8):
    """Pack, the vote of one shard of `voters`, apply: what a vote adds to the critical path, over the fused step."""
    print(f"\npack + vote of a shard + apply, {voters} ranks\n{'':28}{'ms':>8}{'times the fused step':>26}")
    words = arrays.size // 64 // voters
    votes = torch.randint(-(2**62), 2**62, (voters, words + 8), dtype=torch.int64)
    decided = torch.zeros(words, dtype=torch.int64)
    sizes = map(ctypes.c_size_t, (voters, words, words + 8))
    vote = functools.partial(library.bench_vote, ctypes.c_void_p(votes.data_ptr()), *sizes,
                             ctypes.c_void_p(decided.data_ptr()), ctypes.c_size_t(1))
    for method in ("sign", "signum", "lion"):
        parts, step = (arrays.pack(method), vote, arrays.apply()), arrays.step(method)
        times, ratios = [], []
        for round_ in range(arguments.rounds + 1):
            plain = seconds(step)
            whole = seconds(lambda parts=parts: [part() for part in parts])
            if round_ > 0:  # the first one warms up
                times.append(whole)
                ratios.append(whole / plain)
        ratio, low, high = spread(ratios)
        print(f"{method:28}{statistics.median(times) * 1e3:8.1f}{ratio:14.2f} ({low:.2f} to {high:.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile'd steps (slow to start)")
    parser.add_argument("--only", help="measure only steps whose name matches this pattern")
    parser.add_argument("--library", type=Path, default=REPOSITORY / "build" / "bench" / "liboptimizer_step.so")
    arguments = parser.parse_args()
    if not arguments.library.is_file():
        sys.exit(f"{arguments.library} is missing; build it with `scripts/build.sh release benchmarks`")
    library = ctypes.CDLL(str(arguments.library))
    library.bench_tensors.restype = ctypes.c_void_p
    library.bench_read.restype = ctypes.c_uint64
    torch.manual_seed(1)
    sizes = [torch.Size(shape).numel() for shape in shapes()]
    flat = Arrays(library, [sum(sizes)])
    separate = Arrays(library, sizes)
    print(f"{flat.size:,} parameters, {len(sizes)} tensors, torch {torch.__version__}")
    for threads in map(int, arguments.threads.split(",")):
        torch.set_num_threads(threads)
        roofline = no_grad(lambda: flat.weights[0].add_(flat.gradients[0], alpha=-LR))
        measure_steps(f"flat, {threads} threads", flat, roofline, flat.size, arguments)
        measure_steps(f"separate tensors, {threads} threads", separate, roofline, flat.size, arguments)
        measure_reads(library, flat, arguments)
        measure_vote_path(library, separate, arguments)


if __name__ == "__main__":
    main()
