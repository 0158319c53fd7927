"""Writes docs/results.md: tables, what they say about AdamW, and the pictures of pictures.py."""

import statistics
from dataclasses import dataclass, field

import pictures
import plan


@dataclass
class Result:
    """A method on a shape: the rows of its grid, and those of its best setting with every seed."""

    method: plan.Method
    shape: plan.Shape
    grid: list
    best: list

    @property
    def losses(self):
        return [row["val_loss"] for row in self.best if row and row["val_loss"] is not None]

    @property
    def mean(self):
        return statistics.mean(self.losses) if self.losses else float("inf")

    @property
    def deviation(self):
        return statistics.stdev(self.losses) if len(self.losses) > 1 else float("nan")

    @property
    def rate(self):
        return self.best[0]["settings"].get("lr") if self.best else None

    @property
    def at_edge(self):
        """Whether the best learning rate is the first or last of the grid, so that a better one may lie beyond."""
        return self.method.centre is not None and self.rate in (self.method.centre * plan.FACTORS[0],
                                                                self.method.centre * plan.FACTORS[-1])


@dataclass
class Report:
    shape: plan.Shape
    small: list = field(default_factory=list)
    larger: list = field(default_factory=list)
    start_values: list = field(default_factory=list)
    timing: dict = field(default_factory=dict)
    larger_timing: dict = field(default_factory=dict)
    convex: list = field(default_factory=list)
    missing: int = 0


def ranking(results):
    return sorted(results, key=lambda result: result.mean)


def loss_table(results, timing):
    columns = ["method", "validation loss", "sd", "seeds", "lr", "other settings", "state, B/param"]
    columns += ["step ms", "update ms", "tokens/s"] if timing else []
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for result in ranking(results):
        if not any(result.grid):
            continue  # not run yet: `missing` says so
        if not result.losses:
            lines.append(f"| {result.method.label} | diverged at every rate |" + " |" * (len(columns) - 2))
            continue
        row = result.best[0]
        others = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                           for key, value in row["settings"].items() if key != "lr" and "." not in key)
        time = timing.get(result.method.label)
        times = f" {time['step_ms']:.0f} | {time['optimizer_ms']:.1f} | {time['tokens_per_s']:,.0f} |" if time else " |" * (len(columns) - 7)
        rate = "none" if result.rate is None else f"{result.rate:g}" + (" (edge)" if result.at_edge else "")
        deviation = f"{result.deviation:.4f}" if len(result.losses) > 1 else ""
        state = row["state_bytes"] / pictures.PARAMETERS[result.shape.name]
        lines.append(f"| {result.method.label} | {result.mean:.4f} | {deviation} | {len(result.losses)} | {rate} | "
                     f"{others} | {state:.2f} |{times}")
    return lines


def against_adamw(results):
    """Sentences: which methods beat AdamW by more than twice the standard error of the difference, which lose, which tie."""
    reference = next((result for result in results if result.method.label == "adamw"), None)
    if reference is None or len(reference.losses) < 2:
        return []
    better, worse, tie = [], [], []
    for result in ranking(results):
        if result is reference or len(result.losses) < 2:
            continue
        error = ((result.deviation**2 + reference.deviation**2) / len(result.losses)) ** 0.5
        gap = result.mean - reference.mean
        (better if gap < -2 * error else worse if gap > 2 * error else tie).append(f"{result.method.label} ({gap:+.3f})")
    lines = [f"Differences in the mean of {len(plan.SEEDS)} seeds; they count where they exceed two standard errors."]
    for words, names in (("Lower loss than AdamW", better), ("No difference that three seeds can show", tie),
                         ("AdamW wins against", worse)):
        if names:
            lines.append(f"{words}: {', '.join(names)}.")
    return lines


def remarks(results):
    lines = []
    for result in results:
        if result.method.remark and result.losses:
            lines += [f"{result.method.label}: {result.method.remark}", ""]
    return lines


def grid_table(results):
    lines = ["| method | " + " | ".join(f"x {factor:g}" for factor in plan.FACTORS) + " |",
             "|---|" + "---|" * len(plan.FACTORS)]
    for result in results:
        if result.method.centre is None or not any(result.grid):
            continue
        for start in range(0, len(result.grid), len(plan.FACTORS)):
            rows = result.grid[start : start + len(plan.FACTORS)]
            cells = ["" if row is None else "diverged" if row["val_loss"] is None else f"{row['val_loss']:.3f}" for row in rows]
            decay = result.method.decays[start // len(plan.FACTORS)]
            name = result.method.label + ("" if decay is None else f", weight decay {decay:g}")
            lines.append(f"| {name}, centre {result.method.centre:g} | " + " | ".join(cells) + " |")
    return lines


def convex_table(problems):
    methods = [row["method"] for row in problems[0]["rows"]]
    names = [problem["problem"] for problem in problems]
    lines = ["| method | " + " | ".join(f"{name}, mean \\|\\|g\\|\\|_1 | last step | gradients" for name in names) + " |",
             "|---|" + "---|---|---|" * len(names)]
    for place, method in enumerate(methods):
        rows = [problem["rows"][place] for problem in problems]
        lines.append(f"| {method} | " + " | ".join(f"{row['mean_gradient_norm']:.4f} | {row['last_gamma']:.3g} | {row['gradients']}"
                                                 for row in rows) + " |")
    return lines


def write(report, docs):
    shape = report.shape
    shown = [result for result in report.small if any(result.grid)]
    count, tuned = len(shown), sum(result.method.centre is not None for result in shown)
    size = pictures.PARAMETERS[shape.name] / 1e6
    pictures.draw(report, docs / "images")
    text = ["# Results", "",
            f"Does it train? {count} methods and settings on the {shape.name} shape with 4,096 pieces of the GCIDE dictionary ({size:.1f} million parameters),",
            f"{shape.tokens:,} tokens in batches of {shape.batch_tokens:,}, bf16 matrix products, warm-up of 10 % and cosine to 10 %. {tuned} of them have a learning rate, tuned over",
            f"{len(plan.FACTORS)} rates a factor of two apart (AdamW over weight decay too) with seed {plan.SEEDS[0]}; the best is repeated with seeds "
            f"{' and '.join(map(str, plan.SEEDS[1:]))}, and all {len(plan.SEEDS)} count.",
            "Made by `make results`, which resumes where it was interrupted; the runs are in `docs/results/`.", ""]
    if report.missing:
        text += [f"**{report.missing} runs of the plan have not been made yet.**", ""]
    text += [f"## {shape.name}", "", *loss_table(report.small, report.timing), "",
             "Embedding, head and vectors of the methods for matrices are trained by Adam at AdamW's best rate."
             + (" \"edge\": the best rate is the first or last of its grid, so a better one may lie beyond."
                if any(result.at_edge for result in report.small) else ""),
             ("Times are of short runs on an otherwise idle machine with 2 cores." if report.timing else "Times have not been measured yet."), "",
             *remarks(report.small), *against_adamw(report.small), "", "![Validation loss of every method](images/results_loss.png)", "",
             "How much the learning rate matters:", "", "![Validation loss over the learning rate](images/results_rates.png)", "",
             *grid_table(report.small), ""]
    if any(any(result.grid) for result in report.larger):
        text += [f"## {plan.LARGER.name}", "", "The best six and AdamW, tuned again in the same way.", "", *loss_table(report.larger, report.larger_timing), "",
                 *against_adamw(report.larger), ""]
    if report.start_values:
        text += ["## Start values of Adam's second moment", "",
                 "AdamW without decay over the grid around four times its usual rate; the claim of the paper is stability at a rate that is too high.",
                 "", *grid_table(report.start_values), ""]
    if report.convex:
        text += ["## Convex problems", "",
                 "Mean l1 norm of the exact gradient over the run, for P1 (synthetic logistic regression), a9a and w8a, against the best constant step",
                 "of a grid. ALIAS and SOS have nothing tuned.", "", *convex_table(report.convex), ""]
    (docs / "results.md").write_text("\n".join(text), encoding="utf-8")
