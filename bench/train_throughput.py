"""Training throughput: steepest against PyTorch, alternating in one run on the same threads and allocator.

    python bench/train_throughput.py [--configs llama-9m,llama-20m] [--vocabularies 4096,32000] [--repetitions 7] [--compile]

Peers: Hugging Face LlamaForCausalLM in eager mode under autocast bf16 with fused AdamW; with --compile also a lean LLaMA
(fused projections, scaled_dot_product_attention, no Hugging Face code) under torch.compile. Every process has its own
model, gets tcmalloc by LD_PRELOAD, and runs its steps only while the others wait. The table gives the median tokens/s,
the ratio of medians to steepest's, and the spread (interquartile range over median). `make bench` builds the C++ side.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPES = {  # hidden, feed-forward, heads, layers
    "llama-9m": (128, 352, 4, 4),
    "llama-20m": (256, 688, 4, 4),
    "llama-35m": (384, 1024, 8, 6),
    "llama-60m": (512, 1376, 8, 8),
    "llama-130m": (768, 2048, 12, 12),
}


def lean_llama(vocabulary, hidden, feed, heads, layers, length):
    """The same model without Hugging Face's generality: what a careful user would write for torch.compile."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.RMSNorm(hidden, eps=1e-6)
            self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
            self.out = nn.Linear(hidden, hidden, bias=False)
            self.norm2 = nn.RMSNorm(hidden, eps=1e-6)
            self.gate_up = nn.Linear(hidden, 2 * feed, bias=False)
            self.down = nn.Linear(feed, hidden, bias=False)

        def forward(self, x, cosine, sine):
            batch, time, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, heads, hidden // heads).permute(2, 0, 3, 1, 4)

            def rotate(y):
                low, high = y.chunk(2, dim=-1)
                return torch.cat((low * cosine - high * sine, high * cosine + low * sine), dim=-1).to(v.dtype)

            attended = functional.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(batch, time, hidden))
            gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
            return x + self.down(functional.silu(gate) * up)

    class Lean(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm = nn.RMSNorm(hidden, eps=1e-6)
            self.head = nn.Linear(hidden, vocabulary, bias=False)
            half = hidden // heads // 2
            angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(half) / half)[None, :]
            self.register_buffer("cosine", angles.cos())
            self.register_buffer("sine", angles.sin())
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, inputs, targets):
            x = self.embedding(inputs)
            for block in self.blocks:
                x = block(x, self.cosine, self.sine)
            return functional.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), targets.flatten())

    return Lean()


def serve_peer(kind, config, vocabulary, batch, length):
    """Reads numbers of steps from stdin, answers with milliseconds: the protocol of the C++ side."""
    import time

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    hidden, feed, heads, layers = SHAPES[config]
    if kind == "hugging-face":
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=hidden,
                intermediate_size=feed,
                num_attention_heads=heads,
                num_hidden_layers=layers,
                max_position_embeddings=length,
                use_cache=False,
            )
        )

        def loss_of(inputs, targets):
            # Labels are shifted inside, so both sides predict the same number of tokens up to one per sequence.
            return model(input_ids=inputs, labels=inputs).loss
    else:
        model = lean_llama(vocabulary, hidden, feed, heads, layers, length)
        loss_of = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            tokens = torch.randint(vocabulary, (batch, length + 1))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print((time.perf_counter() - start) * 1e3, loss.item(), flush=True)


class Side:
    def __init__(self, name, command, threads, allocator):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        if allocator:
            environment["LD_PRELOAD"] = allocator
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.milliseconds = []

    def steps(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            sys.exit(f"{self.name} stopped with exit code {self.process.wait()}")
        return float(answer[0]) / count

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def find_allocator():
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"):
        for name in ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"):
            if os.path.exists(os.path.join(folder, name)):
                return os.path.join(folder, name)
    sys.exit("tcmalloc is missing; install libgoogle-perftools-dev")


def measure(arguments, config, vocabulary, allocator):
    shape = [config, str(vocabulary), str(arguments.batch), str(arguments.length)]
    peer = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    sides = [Side("steepest", [str(arguments.program), *shape, "adamw", "bf16"], arguments.threads, allocator)]
    sides.append(Side("hugging-face eager", [*peer, "hugging-face", *shape], arguments.threads, allocator))
    if arguments.compile:
        sides.append(Side("lean torch.compile", [*peer, "lean", *shape], arguments.threads, allocator))
    for side in sides:
        side.steps(2)
    for _ in range(arguments.repetitions):
        for side in sides:
            side.milliseconds.append(side.steps(arguments.steps))
    ours = statistics.median(sides[0].milliseconds)
    for side in sides:
        side.close()
        median = statistics.median(side.milliseconds)
        quarters = statistics.quantiles(side.milliseconds, n=4) if len(side.milliseconds) > 1 else [median] * 3
        print(
            f"{config:11} {vocabulary:7} {side.name:20} {arguments.batch * arguments.length / median * 1e3:9.0f} tokens/s "
            f"{median:8.1f} ms  steepest is {median / ours:5.2f} x  spread {(quarters[2] - quarters[0]) / median:4.0%}",
            flush=True,
        )


def main():
    if sys.argv[1:2] == ["--serve"]:
        kind, config, *numbers = sys.argv[2:]
        return serve_peer(kind, config, *map(int, numbers))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default="llama-9m,llama-20m")
    parser.add_argument("--vocabularies", default="4096,32000")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="steps per repetition")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also measure a lean LLaMA under torch.compile")
    parser.add_argument("--program", type=Path, default=REPOSITORY / "build" / "bench" / "train_throughput")
    arguments = parser.parse_args()
    if not arguments.program.is_file():
        sys.exit(f"{arguments.program} is missing; build it with `scripts/build.sh release benchmarks`")
    allocator = find_allocator()
    for config in arguments.configs.split(","):
        for vocabulary in arguments.vocabularies.split(","):
            measure(arguments, config, int(vocabulary), allocator)


if __name__ == "__main__":
    main()
