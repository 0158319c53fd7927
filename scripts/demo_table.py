"""demo_table.py RUN...: what each run reached, what its optimizer kept and what a process sent per step."""

import sys

from runs import Run


def with_unit(count):
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000


def row(run):
    sent = run.series("comm/bytes_sent")[1]
    return [
        run.title,
        f"{run.rows[-1]['step']}",
        f"{run.last('val/loss'):.4f}",
        with_unit(run.last("mem/optimizer_state_bytes")),
        with_unit(sum(sent) / len(sent) if sent else 0),
        f"{run.last('perf/tokens_per_s'):,.0f}",
    ]


def main(folders):
    table = [["run", "step", "validation loss", "optimizer state", "sent per step", "tokens/s"]]
    table += [row(Run(folder)) for folder in folders]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(table[0]))]
    for number, cells in enumerate(table):
        print("  ".join(f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(cells, widths))))
        if number == 0:
            print("  ".join("-" * width for width in widths))


if __name__ == "__main__":
    main(sys.argv[1:])
