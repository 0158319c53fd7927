"""Peak resident memory of training: steepest with signsgd, with fp32 and with bf16 weights, against Hugging Face with fused
AdamW; all with bf16 products under tcmalloc.

    .venv/bin/python bench/peak_memory.py [--model llama-60m] [--vocab 32000] [--repetitions 3]

Each side is a process of its own that trains a few steps of one micro-batch of 8 x 256; the kernel's own accounting of the
finished process (ru_maxrss) is what counts. Sides alternate. The expectation printed is 8 bytes per parameter of AdamW's
state plus one copy of the logits in fp32, which Hugging Face holds and steepest never does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {"llama-9m": (128, 352, 4, 4), "llama-20m": (256, 688, 4, 4), "llama-60m": (512, 1376, 8, 8)}
BATCH, LENGTH, STEPS = 8, 256, 4

PEER = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
hidden, inner, heads, layers, vocab, batch, length, steps = map(int, sys.argv[1:])
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_attention_heads=heads,
                                     num_hidden_layers=layers, max_position_embeddings=length, use_cache=False))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
for _ in range(steps):
    tokens = torch.randint(vocab, (batch, length))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def tcmalloc():
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"):
        for name in ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"):
            if (Path(folder) / name).exists():
                return str(Path(folder) / name)
    sys.exit("libtcmalloc is missing; install libgoogle-perftools-dev")


def peak_mib(command, environment=None):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} failed with status {status}")
    return usage.ru_maxrss / 1024


def write_tokens(folder, vocab):
    """Two llm.c shards of random tokens."""
    generator = numpy.random.default_rng(0)
    for name, count in (("train_000001.bin", 200_000), ("val_000000.bin", 2_000)):
        header = numpy.zeros(256, dtype="<i4")
        header[:3] = (20240520, 1, count)
        tokens = generator.integers(0, vocab, count).astype("<u2")
        (folder / name).write_bytes(header.tobytes() + tokens.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llama-60m", choices=SHAPES)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="steepest's two sides alone")
    options = parser.parse_args()
    hidden, inner, heads, layers = SHAPES[options.model]
    parameters = 2 * options.vocab * hidden + layers * (4 * hidden**2 + 3 * hidden * inner + 2 * hidden) + hidden
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "data").mkdir()
        write_tokens(folder / "data", options.vocab)
        (folder / "recipe.toml").write_text(
            f'[model]\nconfig = "{options.model}"\nvocab_size = {options.vocab}\n[data]\npath = "{folder}/data"\n'
            f'sequence_length = {LENGTH}\n[optimizer]\nmethod = "signsgd"\n[train]\nbatch_tokens = {BATCH * LENGTH}\n'
            f"micro_batch_size = {BATCH}\nmax_steps = {STEPS}\n[eval]\nevery = 0\ntokens = 256\n"
        )
        peer = [sys.executable, "-c", PEER, *map(str, (hidden, inner, heads, layers, options.vocab, BATCH, LENGTH, STEPS))]
        sides = {"steepest": [], "steepest, bf16 weights": [], "peer": []}
        for repetition in range(options.repetitions):
            for precision, name in (("bf16", "steepest"), ("bf16-weights", "steepest, bf16 weights")):
                out = folder / f"{precision}{repetition}"
                run = [ROOT / "build/steepest", "train", folder / "recipe.toml", "--out", out, "--train.precision", precision]
                sides[name].append(peak_mib([str(part) for part in run]))
            if not options.no_peer:
                sides["peer"].append(peak_mib(peer, {"LD_PRELOAD": tcmalloc()}))
        median = {name: statistics.median(peaks) for name, peaks in sides.items() if peaks}
        for name in median:
            print(f"{name:22} peak {median[name]:8.0f} MiB  (min {min(sides[name]):.0f}, max {max(sides[name]):.0f})")
        narrow = median["steepest"] - median["steepest, bf16 weights"]
        print(f"bf16 weights save {narrow:.0f} MiB; 2 bytes per parameter are {2 * parameters / 2**20:.0f} MiB")
        if options.no_peer:
            return
        expected = (8 * parameters + 4 * BATCH * LENGTH * options.vocab) / 2**20
        saved = median["peer"] - median["steepest"]
        print(f"saved {saved:.0f} MiB; AdamW's state and one fp32 copy of the logits are {expected:.0f} MiB")


if __name__ == "__main__":
    main()
