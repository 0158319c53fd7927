"""The pictures of docs/results.md."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import plan

PARAMETERS = {"llama-9m": 1_851_520, "llama-20m": 5_261_568}  # with a vocabulary of 4,096
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"
COLUMNS = 6  # panels of learning rates side by side


def frame(size):
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def draw_losses(results, path):
    """One dot a seed, best method on top, an arrow where the loss lies beyond; the colour tells the state."""
    ranked = sorted((r for r in results if r.losses), key=lambda r: -r.mean)
    worst = max((r.mean for r in ranked if r.method.label == "adamw"), default=ranked[-1].mean) * 1.35
    figure, axes = frame((8, 0.32 * len(ranked) + 1.2))
    for place, result in enumerate(ranked):
        state = result.best[0]["state_bytes"] / PARAMETERS[result.shape.name]
        colour = ORANGE if state > 7.9 else BLUE if state < 5 else GREY
        shown = [min(loss, worst) for loss in result.losses]
        for loss in shown:
            axes.plot(loss, place, ">" if loss == worst else "o", color=colour, markersize=6, alpha=0.75)
        axes.annotate(f"{result.mean:.3f}", (max(shown), place), xytext=(8, 0), textcoords="offset points", va="center",
                      color=colour, fontsize=9)
    axes.set_yticks(range(len(ranked)), [r.method.label for r in ranked])
    axes.set_xlabel("validation loss (nats per token)\norange: 8 and more bytes of state per parameter, blue: less than 5, grey: between; arrow: beyond")
    axes.margins(x=0.08)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def curve(result):
    """(factors, losses) of the grid's runs that did not diverge; of AdamW with its own decay."""
    rows = zip(plan.FACTORS, result.grid)
    return zip(*[(factor, row["val_loss"]) for factor, row in rows if row and row["val_loss"]])


def draw_rates(results, path):
    """A panel a method: loss over the learning rate relative to the grid's centre, AdamW's in grey behind."""
    tuned = sorted((r for r in results if r.method.centre and r.losses), key=lambda r: r.mean)
    reference = next((r for r in tuned if r.method.label == "adamw"), None)
    lowest = min(r.mean for r in tuned)
    rows = -(-len(tuned) // COLUMNS)
    figure, panels = plt.subplots(rows, COLUMNS, figsize=(10, 1.5 * rows + 0.6), sharex=True, sharey=True, layout="constrained",
                                  squeeze=False)
    for place, axes in enumerate(panels.flat):
        if place >= len(tuned):
            axes.set_axis_off()
            continue
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        if reference:
            axes.plot(*curve(reference), "-", color="#aaaaaa", linewidth=1.2)
        axes.plot(*curve(tuned[place]), "o-", color=BLUE, linewidth=1.5, markersize=3.5)
        axes.set_xscale("log", base=2)
        axes.set_ylim(lowest - 0.1, lowest + 1.5)
        if min(loss for _, loss in zip(*curve(tuned[place]))) > lowest + 1.5:
            axes.text(0.5, 0.9, f"above {lowest + 1.5:.1f}", transform=axes.transAxes, ha="center", va="top", fontsize=8, color=BLUE)
        axes.set_title(tuned[place].method.label, fontsize=9)
        axes.tick_params(labelsize=8)
    figure.supxlabel("learning rate over the centre of the method's grid; grey: AdamW", fontsize=9)
    figure.supylabel("validation loss (nats per token)", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    if any(result.losses for result in report.small):
        draw_losses(report.small, folder / "results_loss.png")
        draw_rates(report.small, folder / "results_rates.png")
