"""Writes docs/voting.md: what the runs of plan.py say, tables and pictures, and the model of step times."""

import statistics
from pathlib import Path

import model
import pictures
import plan

INTRO = Path(__file__).with_name("intro.md")  # how to use it: the same whatever the runs say


class Study:
    """The runs of the page: `rates` has the learning rate of each kind, None where it is not known yet."""

    def __init__(self, rates):
        self.rates = rates

    def seeds(self, kind, **settings):
        """The runs of one point of a picture; none while the kind has no learning rate."""
        return plan.seeds(kind, self.rates[kind], **settings) if self.rates[kind] else []

    def same_batch(self, kind, workers):
        # The mean of all windows does not depend on who computes it.
        return self.seeds(kind, workers=plan.TUNED_AT if kind.aggregate == "mean" else workers)

    def same_share(self, kind, workers):
        return self.seeds(kind, workers=workers, windows=plan.EACH * workers)

    def heterogeneous(self, kind, share):
        return self.seeds(kind, share=share)

    def attacked(self, kind, lie, liars):
        return self.seeds(kind, liars=liars, lie=lie)

    def experiments(self):
        """All runs, in the order in which they are worth having: lists that may be cut off between two."""
        for workers in plan.WORKERS[:4]:
            yield [e for kind in (plan.MEAN, plan.VOTE, plan.FEEDBACK, plan.STATELESS) for e in self.same_batch(kind, workers)]
        yield [e for (kind, lie), counts in plan.LIARS.items() for liars in counts for e in self.attacked(kind, lie, liars)]
        yield [e for kind in plan.DATA_KINDS for share in plan.SHARES for e in self.heterogeneous(kind, share)]
        for workers in plan.WORKERS[:4]:
            yield [e for kind in (plan.MEAN, plan.VOTE, plan.FEEDBACK) for e in self.same_share(kind, workers)]
        for workers in plan.WORKERS[4:]:
            yield [e for kind in (plan.VOTE, plan.FEEDBACK, plan.STATELESS) for e in self.same_batch(kind, workers)]
        for workers in plan.WORKERS[:4]:
            yield [e for kind in (plan.MEAN_ADAMW, plan.FEEDBACK_ADAMW) for e in self.same_batch(kind, workers)]


class Point:
    """What the seeds of one setting came to."""

    def __init__(self, rows, expected):
        self.losses = [row["val_loss"] for row in rows if row and row["val_loss"] is not None]
        self.failed = [row for row in rows if row and row["val_loss"] is None]
        agreements = [row["agreement"] for row in rows if row and row["agreement"] is not None]
        self.agreement = statistics.mean(agreements) if agreements else None
        self.complete = expected > 0 and len(self.losses) == expected

    @property
    def mean(self):
        return statistics.mean(self.losses) if self.losses else None

    @property
    def text(self):
        if self.failed:
            return "diverged"
        if not self.losses:
            return ""
        half = (max(self.losses) - min(self.losses)) / 2
        return f"{self.mean:.3f}" + (f" +- {half:.3f}" if len(self.losses) > 1 else "")


NOTHING = Point([], 0)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def loss_table(title, columns, rows):
    """rows: (label, points)."""
    return table([title, *columns], [[label, *(point.text for point in points)] for label, points in rows])


def time_table(machine, rates, workers, overlap):
    rows = []
    for name in model.SCHEMES:
        times = [model.step(name, machine, count, model.Network(rate), overlap) / machine.compute for rate in rates for count in workers]
        rows.append([name, *(f"{time:.2f}" if time < 100 else f"{time:,.0f}" for time in times)])
    return table(["exchange", *(f"{rate:g} Gb/s, {count:,}" for rate in rates for count in workers)], rows)


def write(study, runner, docs):
    def point(experiments):
        return Point(runner.rows(experiments), len(experiments))

    same_batch = {kind: [point(study.same_batch(kind, w)) for w in plan.WORKERS]
                  for kind in (plan.MEAN, plan.VOTE, plan.FEEDBACK, plan.STATELESS, plan.MEAN_ADAMW, plan.FEEDBACK_ADAMW)}
    same_share = {kind: [point(study.same_share(kind, w)) for w in plan.WORKERS[:4]] for kind in (plan.MEAN, plan.VOTE, plan.FEEDBACK)}
    data = {kind: [point(study.heterogeneous(kind, share)) for share in plan.SHARES] for kind in plan.DATA_KINDS}
    liars = {(kind, lie): [(0, point(study.seeds(kind))), *((n, point(study.attacked(kind, lie, n))) for n in counts)]
             for (kind, lie), counts in plan.LIARS.items()}
    planned = Study({kind: rate or plan.RATES[0] for kind, rate in study.rates.items()})
    keys = {e.key for list_ in planned.experiments() for e in list_} | {e.key for kind in plan.KINDS for e in plan.grid(kind)}
    missing = len(keys - runner.done.keys())

    pictures.draw(same_batch, same_share, data, liars, docs / "images")
    text = [INTRO.read_text(encoding="utf-8").rstrip(), ""]
    if missing:
        text += [f"**{missing} of {len(keys)} runs of the plan have not been made yet.**", ""]
    rates = ", ".join(f"{kind.label} {rate:g}" for kind, rate in study.rates.items() if rate)
    text += ["## Loss against the number of workers", "",
             f"Validation loss after {plan.STEPS} steps, mean of {len(plan.SEEDS)} seeds and half their distance. All kinds run Signum, those named otherwise signSGD or AdamW, so that",
             f"they differ in how workers agree and in nothing else. Each has one learning rate, the best of {len(plan.RATES)} at {plan.TUNED_AT} workers with seed {plan.SEEDS[0]}:",
             f"{rates or 'not known yet'}.", "",
             f"**The same batch for all, {plan.WINDOWS * plan.LENGTH:,} tokens a step.** This is the comparison that is fair to the vote and to the mean: the same",
             "tokens and the same number of steps; what changes is only into how many votes the batch is cut. With 1,024 workers each",
             f"votes on a single window of {plan.LENGTH} tokens. The exact mean does not depend on the number of workers.", "",
             *loss_table("workers", [f"{w:,}" for w in plan.WORKERS], [(kind.label, points) for kind, points in same_batch.items()]), "",
             *picture(docs, pictures.WORKERS, "Loss against workers"), *agreement(same_batch[plan.VOTE]),
             f"**The same share for each worker, {plan.EACH * plan.LENGTH} tokens.** More workers see more tokens a step; what one learns here is",
             "whether a vote makes as much of them as a mean does.", "",
             *loss_table("workers", [f"{w:,}" for w in plan.WORKERS[:4]], [(kind.label, points) for kind, points in same_share.items()]), "",
             "## Workers whose data differ", "",
             f"{plan.COMMITTEE} workers; a share of each one's windows is from its own sixteenth of the text (`heterogeneity`), a dictionary in",
             "alphabetical order: own letters rather than own languages. A vote follows the median of the workers, a mean the mean.", "",
             *loss_table("share of own data", [f"{share:g}" for share in plan.SHARES], [(kind.label, points) for kind, points in data.items()]), "",
             *picture(docs, pictures.DATA, "Loss against the share of own data"),
             "## Workers that lie", "",
             f"The last of {plan.COMMITTEE} workers lie about the signs of what they send (`adversaries`, `adversary`): to a vote and to a mean alike, with the",
             "magnitudes of the mean untouched. A liar that may choose magnitudes ruins a mean alone, so these curves flatter the means.", ""]
    counts = sorted({n for points in liars.values() for n, _ in points})
    text += loss_table("liars", map(str, counts), [(f"{kind.label}, {lie}", [dict(points).get(n, NOTHING) for n in counts])
                                         for (kind, lie), points in liars.items()])
    text += ["", *picture(docs, pictures.LIARS, "Loss against the number of liars"), *step_times(),
             *picture(docs, pictures.TIMES, "Step time against workers")]
    (docs / "voting.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def picture(docs, name, title):
    return [f"![{title}](images/{name})", ""] if (docs / "images" / name).exists() else []


def agreement(points):
    known = [(w, p.agreement) for w, p in zip(plan.WORKERS, points) if p.agreement is not None]
    if not known:
        return []
    shares = ", ".join(f"{w:,}: {value:.3f}" for w, value in known)
    return [f"Share of a worker's signs that equal the decision in the last step (`opt/sign_agreement`), by number of workers: {shares}.", ""]


def step_times():
    workers = (8, 128, 10_000)
    return ["## A model of step times", "",
            "Computed, not measured (`scripts/voting/model.py`): time of a step over the time of its forward and backward pass, for 8, 128 and",
            "10,000 workers. 1.00 is free communication, 2.00 half the speed. First a CPU host: 100 million parameters, 1 s a step, memory of 10 GB/s,",
            "nothing overlaps.", "", *time_table(model.CPU, (1, 10, 100), workers, 0), "",
            "Then an accelerator: 7 billion parameters, 2 s a step, memory of 1 TB/s, exchanges hidden behind half of the step where they are that short.",
            "", *time_table(model.GPU, (10, 100, 400), workers, 0.5), "",
            "Assumptions: every worker has a full-duplex link of the stated rate to a network that never blocks; 50 us a round; all messages of a",
            "round are in flight together; 1 us of CPU for each message sent or received; 64 bytes of header a message. A ring has 2 (M - 1) rounds,",
            "shards have 2 rounds and 2 (M - 1) messages. Work on vectors costs its bytes: 8 a parameter to add fp32 shards, 0.6 for a vote by shards, M / 8 more",
            "to count M whole votes, 32 for error feedback (nothing of it fused with the update). Real networks block, and stragglers are slower than all",
            "of this.", ""]
