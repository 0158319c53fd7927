"""The convex problems of docs/results.md, measured by build/bench/convex and kept in docs/results/convex.json."""

import json
import subprocess


def convex_problems(root, store):
    """A list of {"problem", "rows": [{"method", "gradients", "mean_gradient_norm", "last_gamma"}]}."""
    program = root / "build" / "bench" / "convex"
    if not store.exists():
        if not program.exists():
            raise SystemExit(f"{program} is missing; build it with `scripts/build.sh release convex`")
        partial = store.with_suffix(".partial")
        subprocess.run([program, partial], check=True, stdout=subprocess.DEVNULL)
        problems = json.loads(partial.read_text(encoding="utf-8"))
        for row in (row for problem in problems for row in problem["rows"]):
            row.pop("gamma", None)  # step by step: nothing here shows it
        store.write_text(json.dumps(problems, indent=1) + "\n", encoding="utf-8")
        partial.unlink()
    return json.loads(store.read_text(encoding="utf-8"))
