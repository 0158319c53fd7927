"""What docs/voting.md compares, and nothing about how it is run.

One small LLaMA (289 thousand parameters), 60 steps, sequences of 16 tokens: short, so that a step has 1,024 windows and a worker may have
a single one. All kinds use Signum, so that they differ in how workers agree and in nothing else, but for those that say otherwise.
Each kind has one learning rate for everything, the best of a grid at 16 workers.
"""

from dataclasses import dataclass, field

MODEL = {"model_type": "llama", "vocab_size": 4096, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-6}
LENGTH = 16
STEPS = 60
WARMUP = 6
WINDOWS = 1024  # of a step, unless workers are to have the same number each
SEEDS = (1, 2)
RATES = (4e-3, 8e-3, 16e-3, 32e-3)
TUNED_AT = 16


@dataclass(frozen=True)
class Kind:
    """A way to agree. `flags`: of every run."""

    label: str
    method: str
    aggregate: str
    flags: dict = field(default_factory=dict, hash=False)


# Policies under which a simulation need not keep the gradients of all workers; no gradient of these runs is bad.
MEAN = Kind("fp32 mean", "signum", "mean")
VOTE = Kind("vote", "signum", "vote", {"train.non-finite": "abstain"})
FEEDBACK = Kind("1-bit mean, error feedback", "signum", "ef-mean", {"train.non-finite": "refuse"})
STATELESS = Kind("vote of signSGD, no momentum", "signsgd", "vote", {"train.non-finite": "abstain"})
NOISY = Kind("vote of noisy signSGD", "noisy_signsgd", "vote", {"train.non-finite": "abstain"})
# A method that follows magnitudes, which the signs after a 1-bit mean do not.
MEAN_ADAMW = Kind("fp32 mean, AdamW", "adamw", "mean")
FEEDBACK_ADAMW = Kind("1-bit mean, AdamW", "adamw", "ef-mean", {"train.non-finite": "refuse"})
DATA_KINDS = (MEAN, VOTE, FEEDBACK, STATELESS, NOISY)
KINDS = (*DATA_KINDS, MEAN_ADAMW, FEEDBACK_ADAMW)

WORKERS = (1, 4, 16, 64, 256, 1024)
COMMITTEE = 16  # workers of the studies of data and of liars
EACH = 16  # windows of a worker where all have the same number
SHARES = (0.0, 0.5, 1.0)
LIARS = {
    (VOTE, "invert"): (2, 4, 6, 7, 9),
    (VOTE, "random"): (4, 7, 9),
    (VOTE, "stuck"): (2, 4, 7),
    (VOTE, "drop"): (4, 8),
    (MEAN, "invert"): (2, 4, 6, 7),
    (MEAN, "stuck"): (2, 4, 7),
    (FEEDBACK, "invert"): (2, 4, 7),
    (FEEDBACK, "stuck"): (2, 4, 7),
}


@dataclass(frozen=True)
class Experiment:
    """One training run: everything that decides its result."""

    kind: Kind
    rate: float
    seed: int
    workers: int = COMMITTEE
    windows: int = WINDOWS
    share: float = 0.0
    liars: int = 0
    lie: str = ""

    @property
    def key(self):
        liars = f"/{self.liars}-{self.lie}" if self.liars else ""
        return (f"{self.kind.method}-{self.kind.aggregate}/lr{self.rate:g}/{self.workers}x{self.windows // self.workers}"
                f"/h{self.share:g}{liars}/steps{STEPS}/seed{self.seed}")

    @property
    def flags(self):
        flags = {"optimizer.method": self.kind.method, "optimizer.lr": self.rate, "distributed.aggregate": self.kind.aggregate,
                 "train.batch-tokens": self.windows * LENGTH, "train.seed": self.seed, **self.kind.flags}
        if self.workers > 1:
            flags["distributed.simulated-workers"] = self.workers
        if self.share:
            flags["distributed.heterogeneity"] = self.share
        if self.liars:
            flags |= {"distributed.adversaries": self.liars, "distributed.adversary": self.lie}
        return flags


def grid(kind):
    """The runs that choose a kind's learning rate."""
    return [Experiment(kind, rate, SEEDS[0], TUNED_AT) for rate in RATES]


def seeds(kind, rate, **settings):
    return [Experiment(kind, rate, seed, **settings) for seed in SEEDS]
