"""The pictures of docs/results.md."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import plan

PARAMETERS = {"llama-9m": 1_851_520, "llama-20m": 5_261_568}  # with a vocabulary of 4,096
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"


def frame(size):
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def draw_losses(results, path):
    """One dot a seed, best method on top; the colour tells the state."""
    ranked = sorted((r for r in results if r.losses), key=lambda r: -r.mean)
    worst = max((r.mean for r in ranked if r.method.label == "adamw"), default=ranked[-1].mean) * 1.35
    figure, axes = frame((8, 0.32 * len(ranked) + 1.2))
    for place, result in enumerate(ranked):
        state = result.best[0]["state_bytes"] / PARAMETERS[result.shape.name]
        colour = ORANGE if state > 7.9 else BLUE if state < 5 else GREY
        shown = [min(loss, worst) for loss in result.losses]
        axes.plot(shown, [place] * len(shown), "o", color=colour, markersize=6, alpha=0.75)
        axes.annotate(f"{result.mean:.3f}", (max(shown), place), xytext=(8, 0), textcoords="offset points", va="center",
                      color=colour, fontsize=9)
    axes.set_yticks(range(len(ranked)), [r.method.label for r in ranked])
    axes.set_xlabel("validation loss (nats per token); orange: 8 bytes of state per parameter, blue: less than 5")
    axes.margins(x=0.08)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_rates(results, path):
    """Loss over the learning rate relative to the grid's centre."""
    figure, axes = frame((8, 5))
    tuned = [r for r in results if r.method.centre and r.losses]
    lowest = min(r.mean for r in tuned)
    colours = plt.get_cmap("turbo")
    for place, result in enumerate(tuned):
        pairs = [(factor, row["val_loss"]) for factor, row in zip(plan.FACTORS, result.grid) if row and row["val_loss"]]
        axes.plot([x for x, _ in pairs], [y for _, y in pairs], "o-", color=colours(place / max(1, len(tuned) - 1)),
                  linewidth=1.5, markersize=4, label=result.method.label)
    axes.set_xscale("log", base=2)
    axes.set_ylim(lowest - 0.05, lowest + 1.5)
    axes.set_xlabel("learning rate over the centre of the method's grid")
    axes.set_ylabel("validation loss (nats per token)")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    if any(result.losses for result in report.small):
        draw_losses(report.small, folder / "results_loss.png")
        draw_rates(report.small, folder / "results_rates.png")
