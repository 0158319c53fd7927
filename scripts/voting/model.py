"""How long a step of M workers takes, from formulas: what is sent, over which links, and what packing, adding and counting cost.

Nothing here is measured on a network. Bytes on the wire and rounds are those of the schemes as implemented (steepest/comm/vote.h,
feedback_mean.h, process_group.h). Work on vectors is bound by memory: bytes per parameter beyond those of the update itself, which every
scheme needs (packing is part of the momentum's pass, applying bits is the update), over the bandwidth of memory.
"""

import math
from dataclasses import dataclass

# Bytes of memory traffic per parameter.
ADD = 8  # the shards of all workers are read once, the result is written
CONVERT = 12  # to bf16 and back
BITS = 0.5  # a vote and a decision, written and read
ENCODE, DECODE_ADD, DECODE = 20, 8, 4  # of a 1-bit mean: two passes over u, e and signs; as owner; of the result
HEADER = 64  # bytes per message
BLOCK = 4096


@dataclass(frozen=True)
class Machine:
    """`compute`: seconds of the forward and backward pass; `memory`: bytes/s."""

    parameters: float
    compute: float
    memory: float


@dataclass(frozen=True)
class Network:
    """`rate` in Gb/s each way, `latency` and `per_message` in seconds; links are full duplex and nobody shares one."""

    rate: float
    latency: float = 50e-6
    per_message: float = 1e-6  # of the CPU, for each message sent or received


def wire(network, messages, rounds, size):
    """Seconds of an exchange: `messages` of this rank in `rounds` that wait for each other, `size` bytes in all."""
    return rounds * network.latency + 2 * messages * network.per_message + 8 * (size + HEADER * messages) / (network.rate * 1e9)


def ring(machine, workers, network, bytes_each=4, traffic=ADD):
    """All-reduce along a ring: 2 (M - 1) rounds."""
    share, rounds = (workers - 1) / workers, 2 * (workers - 1)
    return traffic * machine.parameters / machine.memory + wire(network, rounds, rounds, 2 * share * bytes_each * machine.parameters)


def shards(machine, workers, network, bytes_each, traffic):
    """All-to-all of shards, then all-gather: 2 rounds of M - 1 messages, whatever is sent."""
    share = (workers - 1) / workers
    return (traffic * machine.parameters / machine.memory
            + wire(network, 2 * (workers - 1), 2, 2 * share * bytes_each * machine.parameters))


def all_gather(machine, workers, network):
    """Scheme (b): every worker reads all votes. Byzantine votes send the same and need some rounds more."""
    traffic = (BITS + workers / 8) * machine.parameters / machine.memory
    return traffic + wire(network, workers - 1, 1, (workers - 1) * machine.parameters / 8)


def halving(machine, workers, network):
    """Scheme (e): counts of growing width are halved in log2 M rounds, decided bits doubled in as many. Workers beyond a power
    of two give their votes to another one first and get the decision last."""
    rounds = int(math.log2(workers))
    core = 2**rounds
    beyond = int(core < workers)
    bits = (core - 1) / core + sum((j + beyond) / 2**j for j in range(1, rounds + 1)) + 2 * beyond
    rounds += beyond
    return (2 * BITS * machine.parameters / machine.memory
            + wire(network, 2 * rounds, 2 * rounds, bits * machine.parameters / 8))


SCHEMES = {
    "fp32 ring": ring,
    "bf16 ring": lambda machine, workers, network: ring(machine, workers, network, 2, ADD / 2 + CONVERT),
    "fp32 mean by shards": lambda machine, workers, network: shards(machine, workers, network, 4, ADD),
    "1-bit mean, error feedback": lambda machine, workers, network: shards(machine, workers, network, 1 / 8 + 4 / BLOCK,
                                                                           ENCODE * (1 + 1 / workers) + DECODE_ADD + DECODE),
    "vote by shards (c)": lambda machine, workers, network: shards(machine, workers, network, 1 / 8, BITS + 1 / 8),
    "vote by all-gather (b)": all_gather,
    "vote by halving counts (e)": halving,
}


def step(scheme, machine, workers, network, overlap=0.0):
    """Seconds of a step; the exchange hides behind up to `overlap` of the forward and backward pass."""
    exchange = SCHEMES[scheme](machine, workers, network) if workers > 1 else 0.0
    return machine.compute + max(0.0, exchange - overlap * machine.compute)


CPU = Machine(100e6, 1.0, 10e9)
GPU = Machine(7e9, 2.0, 1e12)
