"""Runs bench/convex and draws the step sizes it measured: one panel per problem, gamma over steps, the best constant step as
a line.

    .venv/bin/python bench/convex.py [--program build/bench/convex] [--json results.json] [--picture convex.png]
"""

import argparse
import json
import subprocess
from pathlib import Path


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(4.5 * len(results), 3.6), squeeze=False)
    shown = ("alias II full", "alias I full", "alias II directional", "alias II minmax_signed", "alias II minmax")
    for panel, problem in zip(axes[0], results):
        rows = {row["method"]: row for row in problem["rows"]}
        for method in shown:
            panel.plot(rows[method]["gamma"], label=method, linewidth=1.2)
        best = next(row for name, row in rows.items() if name.startswith("best constant"))
        panel.axhline(best["last_gamma"], color="black", linestyle="--", linewidth=1, label="best constant")
        panel.axhline(rows["sos"]["last_gamma"], color="grey", linestyle=":", linewidth=1, label="sos")
        panel.set(title=problem["problem"], xlabel="step", yscale="log")
    axes[0][0].set_ylabel("step size")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=Path("build/bench/convex"))
    parser.add_argument("--json", type=Path, default=Path("convex.json"))
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    subprocess.run([options.program, options.json], check=True)
    if options.picture:
        draw(json.loads(options.json.read_text()), options.picture)


if __name__ == "__main__":
    main()
