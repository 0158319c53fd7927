"""PyTorch's side of bench/network.py: one rank over Gloo, found through RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.

    python peer.py exchange PARAMETERS
    python peer.py train CONFIG VOCABULARY BATCH LENGTH

For every line "KIND K" on stdin it makes K exchanges or steps and prints their milliseconds.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from train_throughput import SHAPES, lean_llama  # noqa: E402


def exchanges(parameters):
    """fp32: the all-reduce of a gradient. uint8: the bytes of a sharded vote, all-to-all and all-gather, nothing else."""
    ranks = dist.get_world_size()
    gradient = torch.randn(parameters)
    shard = -(-parameters // 8 // ranks)
    mine, received = torch.zeros(shard * ranks, dtype=torch.uint8), torch.zeros(shard * ranks, dtype=torch.uint8)
    decided = [torch.zeros(shard, dtype=torch.uint8) for _ in range(ranks)]

    def run(kind):
        if kind == "fp32":
            dist.all_reduce(gradient)
        else:
            dist.all_to_all_single(received, mine)
            dist.all_gather(decided, received[:shard])

    return run


def bf16_hook(group, bucket):
    """Cast, all-reduce, cast back. torch's own bf16_compress_hook is refused by Gloo."""
    half = bucket.buffer().to(torch.bfloat16).div_(group.size())
    future = dist.all_reduce(half, group=group, async_op=True).get_future()

    def back(done):
        return bucket.buffer().copy_(done.value()[0])

    return future.then(back)


def ddp_model(kind, config, vocabulary, length):
    """The lean LLaMA under DistributedDataParallel: fp32, bf16, powersgd-1, powersgd-4."""
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(1)
    hidden, feed, heads, layers = SHAPES[config]
    # Over Gloo, PowerSGD's hook mixes up the collectives of several buckets and stops: it gets one.
    buckets = {"bucket_cap_mb": 4096} if kind.startswith("powersgd-") else {}
    model = DistributedDataParallel(lean_llama(vocabulary, hidden, feed, heads, layers, length), **buckets)
    if kind == "bf16":
        model.register_comm_hook(dist.group.WORLD, bf16_hook)
    elif kind.startswith("powersgd-"):
        rank = int(kind.removeprefix("powersgd-"))
        state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=rank, start_powerSGD_iter=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return model


def steps(config, vocabulary, batch, length):
    """A training step under DistributedDataParallel on random tokens; none: without communication."""
    sides = {}

    def make(kind):
        model = ddp_model(kind, config, vocabulary, length)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def run(kind):
        side = "fp32" if kind == "none" else kind
        if side not in sides:
            sides[side] = make(side)
        model, optimizer = sides[side]
        tokens = torch.randint(vocabulary, (batch, length + 1))
        with model.no_sync() if kind == "none" else contextlib.nullcontext():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main():
    task, *words = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo")
    run = exchanges(int(words[0])) if task == "exchange" else steps(words[0], *map(int, words[1:]))
    for line in sys.stdin:
        kind, count = line.split()
        dist.barrier()
        start = time.perf_counter()
        for _ in range(int(count)):
            run(kind)
        print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    main()
