"""The pictures of docs/voting.md."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import model
import plan

COLOURS = {plan.MEAN.label: "#666666", plan.VOTE.label: "#0072b2", plan.FEEDBACK.label: "#d55e00", plan.STATELESS.label: "#56b4e9",
           plan.NOISY.label: "#009e73", plan.MEAN_ADAMW.label: "#000000", plan.FEEDBACK_ADAMW.label: "#cc79a7"}
STYLES = {"invert": "o-", "random": "s--", "stuck": "^:", "drop": "x-."}
SCHEME_COLOURS = ("#666666", "#999999", "#cc79a7", "#d55e00", "#0072b2", "#56b4e9", "#009e73")


WORKERS, DATA, LIARS, TIMES = "voting_workers.png", "voting_heterogeneity.png", "voting_liars.png", "voting_time.png"


def frame(columns=1, size=(8, 4.5)):
    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", squeeze=False)
    for each in axes[0]:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#dddddd", linewidth=0.6)
        each.set_axisbelow(True)
    return figure, axes[0]


def finish(figure, axes, path):
    if any(each.get_legend_handles_labels()[0] for each in axes):
        axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def curve(axes, places, points, style, colour, label):
    """The mean as a line, the seeds as dots."""
    known = [(x, point) for x, point in zip(places, points) if point.losses]
    if not known:
        return
    axes.plot([x for x, _ in known], [point.mean for _, point in known], style, color=colour, label=label, markersize=5)
    for x, point in known:
        axes.plot([x] * len(point.losses), point.losses, ".", color=colour, markersize=3)


def draw_workers(same_batch, same_share, path):
    figure, axes = frame(2, (10, 4.5))
    for each, title, results in ((axes[0], "the same batch for all", same_batch), (axes[1], "the same share for each", same_share)):
        for kind, points in results.items():
            curve(each, plan.WORKERS, points, "o-", COLOURS[kind.label], kind.label)
        each.set_xscale("log", base=2)
        each.set_xlabel("workers")
        each.set_title(title, fontsize=10)
    axes[0].set_ylabel("validation loss (nats per token)")
    finish(figure, axes, path)


def draw_data(data, path):
    figure, axes = frame()
    for kind, points in data.items():
        curve(axes[0], plan.SHARES, points, "o-", COLOURS[kind.label], kind.label)
    axes[0].set_xlabel("share of a worker's windows from its own part of the text")
    axes[0].set_ylabel("validation loss (nats per token)")
    finish(figure, axes, path)


def cut_off(axes, points):
    """Losses that liars in the majority drive out of the picture are written at its upper edge."""
    usual = [loss for n, point, _ in points if 2 * n <= plan.COMMITTEE for loss in point.losses]
    low, high = min(usual), max(usual)
    edge = high + 0.15 * (high - low)
    axes.set_ylim(low - 0.1 * (high - low), edge)
    for n, point, label in points:
        if point.mean > edge:
            axes.annotate(f"{label}: {point.mean:.0f}", (n, edge), xytext=(0, -12), textcoords="offset points", ha="right", va="top", fontsize=9)
            axes.plot(n, edge, "k^", clip_on=False, markersize=7)


def draw_liars(liars, path):
    figure, axes = frame()
    for (kind, lie), points in liars.items():
        curve(axes[0], [n for n, _ in points], [p for _, p in points], STYLES[lie], COLOURS[kind.label], f"{kind.label}, {lie}")
    axes[0].axvline(plan.COMMITTEE / 2, color="#bbbbbb", linewidth=1)
    cut_off(axes[0], [(n, p, f"{kind.label}, {lie}") for (kind, lie), points in liars.items() for n, p in points if p.losses])
    axes[0].set_xlabel(f"liars among {plan.COMMITTEE} workers")
    axes[0].set_ylabel("validation loss (nats per token)")
    finish(figure, axes, path)


def draw_times(path):
    workers = sorted({round(2 * 1.2**i) for i in range(48) if 2 * 1.2**i <= 10_000} | {10_000})
    figure, axes = frame(3, (12, 4.5))
    for each, (machine, rate, overlap) in zip(axes, ((model.CPU, 1, 0), (model.CPU, 10, 0), (model.GPU, 100, 0.5))):
        for name, colour in zip(model.SCHEMES, SCHEME_COLOURS):
            times = [model.step(name, machine, m, model.Network(rate), overlap) / machine.compute for m in workers]
            each.plot(workers, times, color=colour, linewidth=1.6, label=name)
        each.set_xscale("log")
        each.set_yscale("log")
        each.set_ylim(0.9, 100)
        each.set_title(f"{machine.parameters / 1e6:,.0f} M parameters, {machine.compute:g} s, {rate} Gb/s", fontsize=10)
        each.set_xlabel("workers")
    axes[0].set_ylabel("step time over compute time")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=7, loc="outside lower center")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw(same_batch, same_share, data, liars, folder):
    """Draws what there are numbers for."""
    folder.mkdir(parents=True, exist_ok=True)
    if known(same_batch.values()):
        draw_workers(same_batch, same_share, folder / WORKERS)
    if known(data.values()):
        draw_data(data, folder / DATA)
    if known([[p for _, p in points] for points in liars.values()]):
        draw_liars(liars, folder / LIARS)
    draw_times(folder / TIMES)


def known(lists):
    return any(point.losses for points in lists for point in points)
