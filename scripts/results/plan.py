"""What docs/results.md compares: methods, learning-rate grids, seeds and shapes, and nothing about how they are run.

Every method gets the same number of learning rates, a factor of two apart around a centre that was found in short runs. AdamW
is tuned over weight decay besides. Methods without a learning rate run as they are. The roles that a method leaves to Adam (embedding,
head, vectors) take the learning rate that is best for AdamW, for every such method.
"""

from dataclasses import dataclass, field

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
SEEDS = (1, 2, 3)
FINALISTS = 6  # methods that go on to the larger shape, with AdamW to compare them with
ADAM_ROLES = ("embedding", "head", "vector")


@dataclass(frozen=True)
class Shape:
    """One model and the run that all methods share."""

    name: str
    batch_tokens: int = 4096
    tokens: int = 1_500_000

    @property
    def steps(self):
        return self.tokens // self.batch_tokens


@dataclass(frozen=True)
class Method:
    """`name`: a preset; `centre`: of the grid, None for a method without learning rate; `settings`: flags of every run."""

    name: str
    centre: float | None
    settings: dict = field(default_factory=dict, hash=False)
    decays: tuple = (None,)  # None: the preset's own
    title: str = ""
    adam_roles: tuple = ()  # roles that its preset gives to Adam
    searched: bool = False  # `steepest tune` finds its learning rate by itself, once per shape
    remark: str = ""  # that the page makes about its result

    @property
    def label(self):
        return self.title or self.name


SMALL = Shape("llama-9m")
LARGER = Shape("llama-20m")

METHODS = (
    Method("adamw", 4e-3, decays=(0.1, 0.0)),
    Method("adamw", 4e-3, decays=(0.0,), title="adam"),
    Method("sgd", 0.125),
    Method("normalized_sgd", 1e-3),
    Method("signsgd", 4e-3),
    Method("noisy_signsgd", 4e-3),
    Method("signum", 1e-3),
    Method("lion", 1e-3),
    Method("scaled_signsgd", 1.0),
    Method("ef_signsgd", 1.0),
    Method("sinkgd", 0.04, adam_roles=ADAM_ROLES),
    Method("sinkgd", 0.04, {"iterations": 1}, title="sinkgd, L = 1", adam_roles=ADAM_ROLES),
    Method("sinkgd", 0.01, {"memory": "nesterov", "momentum": 0.95}, title="sinkgd, Nesterov", adam_roles=ADAM_ROLES),
    Method("sinkgd_deepseek", 8e-3, adam_roles=("vector",)),
    Method("mngd", 0.02, adam_roles=ADAM_ROLES),
    Method("rownorm", 2e-3, adam_roles=ADAM_ROLES),
    Method("scale", 2e-3, adam_roles=("vector",)),
    Method("rmnp", 0.005, adam_roles=ADAM_ROLES),
    Method("mano", 2e-3, adam_roles=ADAM_ROLES),
    Method("racs", 0.04, adam_roles=ADAM_ROLES),
    Method("galore", 0.01, adam_roles=ADAM_ROLES),
    Method("fira", 0.005, adam_roles=ADAM_ROLES),
    Method("apollo", 0.005, adam_roles=ADAM_ROLES),
    Method("apollo_mini", 0.00125, adam_roles=ADAM_ROLES),
    Method("swan", 0.04, adam_roles=ADAM_ROLES),
    Method("muon", 0.02, adam_roles=ADAM_ROLES),
    Method("muon_moonlight", 8e-3, adam_roles=ADAM_ROLES),
    Method("normuon", 8e-3, adam_roles=ADAM_ROLES),
    Method("scion", 4e-4),
    Method("scion", 0.016, {"model.init": "scion"}, title="scion, its own start",
           remark="`init = \"scion\"` starts on the sphere of radius `scale` of each layer's norm. So few steps do not leave it: at the best "
                  "rate, 20 times that of Scion from a normal start, a fifth of the start weights is still there at the end."),
    Method("scion_unconstrained", 4e-4),
    Method("scion_light", 4e-4),
    Method("adafactor", 0.04),
    Method("adam_mini", 4e-3),
    Method("alias_adam", 1e-3),
    Method("alias_scale", None),
    Method("alias", None),
    Method("alias_llm", None),
    Method("alias_llm_paper", None),
    Method("sos", None, {"train.schedule": "constant"}, searched=True),
)

# Adam's start values of the second moment, over the whole grid: their claim is stability at a learning rate that is too high.
START_VALUES = (
    Method("adamw", 16e-3, {"weight_decay": 0}, title="v0 = 0"),
    Method("adamw", 16e-3, {"weight_decay": 0, "v0": "random", "v0_sigma": 1}, title="v0 random, sigma 1"),
    Method("adamw", 16e-3, {"weight_decay": 0, "v0": "random", "v0_sigma": 1e-4}, title="v0 random, sigma 1e-4"),
    Method("adamw", 16e-3, {"weight_decay": 0, "v0": "observed", "v0_sigma": 1}, title="v0 observed, sigma 1"),
    Method("adamw", 16e-3, {"weight_decay": 0, "v0": "observed", "v0_sigma": 100}, title="v0 observed, sigma 100"),
)


@dataclass(frozen=True)
class Experiment:
    """One training run: everything that decides its result."""

    shape: Shape
    method: str
    settings: tuple  # sorted (key of [optimizer], "role.key", "train.key" or "model.key", value)
    seed: int

    @property
    def key(self):
        settings = ",".join(f"{name}={value}" for name, value in self.settings)
        return f"{self.shape.name}/{self.shape.tokens}/{self.shape.batch_tokens}/{self.method}/{settings}/seed{self.seed}"


def experiment(shape, method, lr, decay, adam_lr, seed):
    settings = dict(method.settings)
    if lr is not None:
        settings["lr"] = lr
    if decay is not None:
        settings["weight_decay"] = decay
    if adam_lr is not None:
        settings |= {f"{role}.lr": adam_lr for role in method.adam_roles}
    return Experiment(shape, method.name, tuple(sorted(settings.items())), seed)


def grid(shape, method, adam_lr, found=None):
    """The runs that choose a method's learning rate (and AdamW's decay): seed 1 only. `found`: the rate of a search."""
    rates = [method.centre * factor for factor in FACTORS] if method.centre else [found]
    return [experiment(shape, method, lr, decay, adam_lr, SEEDS[0]) for decay in method.decays for lr in rates]


def repeats(best):
    """The same run with the other seeds."""
    return [Experiment(best.shape, best.method, best.settings, seed) for seed in SEEDS[1:]]
