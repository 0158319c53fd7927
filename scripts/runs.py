"""Reads what a training run left in its folder: metrics.jsonl and the merged recipe."""

import json
import tomllib
from pathlib import Path


class Run:
    """One run folder: `title`, `rows` (one dictionary a logged step, None where nothing was measured)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with open(self.folder / "recipe.toml", "rb") as file:
            self.recipe = tomllib.load(file)
        method = self.recipe["optimizer"]["method"]
        self.title = method if self.folder.name == method else f"{self.folder.name} ({method})"
        with open(self.folder / "metrics.jsonl", encoding="utf-8") as file:
            self.rows = [json.loads(line) for line in file if line.strip()]

    def series(self, metric):
        """(steps, values) of the rows where the metric was measured."""
        pairs = [(row["step"], row[metric]) for row in self.rows if row.get(metric) is not None]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def last(self, metric):
        """The metric's last measured value, or None."""
        values = self.series(metric)[1]
        return values[-1] if values else None
