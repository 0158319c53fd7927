"""plot_loss.py RUN... --out loss.png: training and validation loss of run folders, over the steps."""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from runs import Run

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito: told apart by everyone
GREY = "#666666"


def smoothed(values):
    """Mean over a centred window of about a thirtieth of the run, narrower towards the ends."""
    half = max(1, len(values) // 60)
    result = []
    for middle in range(len(values)):
        reach = min(half, middle, len(values) - 1 - middle)
        window = values[middle - reach : middle + reach + 1]
        result.append(sum(window) / len(window))
    return result


def draw(axes, run, colour):
    steps, losses = run.series("train/loss")
    axes.plot(steps, losses, color=colour, alpha=0.2, linewidth=0.8)
    axes.plot(steps, smoothed(losses), color=colour, linewidth=1.8, label=f"{run.title}, training")
    steps, losses = run.series("val/loss")
    if not losses:
        return
    axes.plot(steps, losses, "o", color=colour, markersize=5, markerfacecolor="white", markeredgewidth=1.5,
              label=f"{run.title}, validation")
    axes.annotate(f"{losses[-1]:.2f}", (steps[-1], losses[-1]), xytext=(7, 0), textcoords="offset points",
                  va="center", color=colour, fontweight="bold")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", default="loss.png")
    arguments = parser.parse_args()

    plt.rcParams.update({"font.size": 11, "axes.edgecolor": GREY, "axes.labelcolor": GREY,
                         "xtick.color": GREY, "ytick.color": GREY})
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, folder in enumerate(arguments.runs):
        draw(axes, Run(folder), COLOURS[number % len(COLOURS)])
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title("Loss on training and validation text", loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.08)
    axes.legend(frameon=False)
    figure.savefig(arguments.out, dpi=150)


if __name__ == "__main__":
    main()
