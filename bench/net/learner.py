"""PyTorch's side of bench/powersgd.py: one rank of DistributedDataParallel that trains on token shards with AdamW.

    torchrun --nproc-per-node 2 learner.py KIND CONFIG DATA BATCH LENGTH STEPS LR

KIND as in peer.py. Warm-up over 10 % of the steps and cosine to 10 %, decay 0.1 on matrices, bf16 autocast, windows in the
order of one permutation. Rank 0 prints the validation loss.
"""

import math
import sys
from pathlib import Path

import numpy
import torch
import torch.distributed as dist
from peer import ddp_model

DECAY, WARMUP, FINAL, SEED = 0.1, 0.1, 0.1, 1


def tokens_of(folder, prefix):
    shards = [numpy.fromfile(path, dtype=numpy.uint16, offset=1024) for path in sorted(Path(folder).glob(f"{prefix}_*.bin"))]
    return torch.from_numpy(numpy.concatenate(shards).astype(numpy.int64))


def windows(tokens, which, length):
    rows = torch.stack([tokens[w * length : w * length + length + 1] for w in which])
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def rate(step, steps):
    """The share of the learning rate at a step, as `steepest train` has it."""
    warmup = int(steps * WARMUP)
    if step < warmup:
        return (step + 1) / warmup
    return FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def main():
    kind, config, data, *numbers = sys.argv[1:]
    batch, length, steps = map(int, numbers[:3])
    lr = float(numbers[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    train, val = tokens_of(data, "train"), tokens_of(data, "val")
    vocabulary = 4096
    model = ddp_model(kind, config, vocabulary, length)
    groups = [{"params": [p for p in model.parameters() if (p.dim() == 2) == matrices], "weight_decay": DECAY * matrices}
              for matrices in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    order = torch.from_numpy(numpy.random.default_rng(SEED).permutation((len(train) - 1) // length))

    def loss_of(inputs, targets, network):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(inputs, targets)

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, steps)
        first = (step * ranks + rank) * batch
        loss_of(*windows(train, order[torch.arange(first, first + batch) % len(order)], length), model).backward()
        optimizer.step()
        optimizer.zero_grad()
    if rank == 0:
        with torch.no_grad():
            count = (len(val) - 1) // length // batch
            losses = [loss_of(*windows(val, range(k * batch, (k + 1) * batch), length), model.module) for k in range(count)]
        print(f"validation loss {sum(map(float, losses)) / count:.4f}", flush=True)
    dist.barrier()


if __name__ == "__main__":
    main()
