"""The rows of the paper's ablation tables 5 to 8, each trained under one small budget.

    python -m benchmarks.ablations train runs/open [--runs runs/ablations] [--seeds 3]
    python -m benchmarks.ablations table [--runs runs/ablations] [-o docs/ablations.json]

`train` trains what has not ended, all rows with one seed before the next seed, and resumes.
`table` prints the tables beside the paper's figures, from the runs, or from a file written by
`table -o` where the runs are not there. Every row has the same data, crops, optimiser, iterations
and seeds; only the keys of `recipes/ablations/` differ.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.campaign import Run, run, scores_of
from benchmarks.train_shipped import ROOT
from restore_rwkv.io import atomic_file
from restore_rwkv.training.recipe import Recipe, overlaid

BUDGET: dict[str, Any] = {
    "task": "mri-sr",
    "network": {"dim": 16, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "scaling": "own",
    "data": {
        "crop": 64,
        "balance": "tasks",
        "augment": True,
        "avoid_air": True,
        "validation_slices": 4,
    },
    "training": {
        "iterations": 800,
        "batch_size": 2,
        "optimizer": "muon",
        "learning_rate": 1.5e-3,
        "matrix_rate": 0.02,
        "final_learning_rate": 1e-6,
        "warm_up": 20,
        "start_at_identity": True,
        "clip": 1.0,
        "ema": 0.99,
        "validate_every": 200,
    },
}
"""The recipe that all rows share: a network of 16 channels, of one block a level."""

SLICES = {"validation": 0, "test": 24}
OWN = "re-wkv-omni-shift"  # M = 2, k = 5: the network of the paper, in every table
TABLES: dict[str, list[tuple[str, str, float]]] = {
    "Table 5, attention and shift": [
        ("Uni-WKV + Uni-Shift", "table5-uni-wkv-uni-shift", 31.3184),
        ("Bi-WKV + Quad-Shift", "table5-bi-wkv-quad-shift", 31.7261),
        ("Re-WKV + Quad-Shift", "table5-re-wkv-quad-shift", 31.9273),
        ("Bi-WKV + Omni-Shift", "table6-m1-rows", 31.9377),
        ("Re-WKV + Omni-Shift", OWN, 32.0913),
    ],
    "Table 6, number and direction of the scans": [
        ("M = 1, rows", "table6-m1-rows", 31.9377),
        ("M = 1, columns", "table6-m1-columns", 31.9337),
        ("M = 2", OWN, 32.0913),
        ("M = 3", "table6-m3", 32.1082),
        ("M = 4", "table6-m4", 32.1133),
    ],
    "Table 7, how the scans are combined": [
        ("recurrent", OWN, 32.0913),
        ("alternating between blocks", "table7-alternating", 31.9728),
        ("sum in a block", "table7-sum", 31.8968),
    ],
    "Table 8, context of Omni-Shift": [
        ("k = 1", "table8-k1", 31.8545),
        ("k = 3", "table8-k3", 31.9865),
        ("k = 5", OWN, 32.0913),
        ("k = 7", "table8-k7", 32.0578),
        ("k = 9", "table8-k9", 32.0290),
        ("k = 5, one branch", "table8-k5-one-branch", 32.0050),
    ],
}
"""Rows of each table: the paper's name, the recipe in `recipes/ablations`, and its PSNR in dB."""


def recipe_of(row: str, seed: int) -> Recipe:
    """Return the recipe of a row: that of the budget, with the network's keys of the row."""
    changes: dict[str, Any] = {"seed": seed}
    if row != OWN:
        whole = Recipe.read(ROOT / "recipes" / "ablations" / f"{row}.toml").network.to_dict()
        base = Recipe.read(ROOT / "recipes" / "base-mri-sr.toml").network.to_dict()
        changes["network"] = {key: x for key, x in whole.items() if x != base[key]}
    return Recipe.from_dict(overlaid(BUDGET, changes))


def runs_of(seeds: int) -> list[Run]:
    """Return the runs of all tables, each row once, all rows of a seed before the next seed."""
    rows = dict.fromkeys(row for table in TABLES.values() for _, row, _ in table)
    return [Run(row, recipe_of(row, seed)) for seed in range(seeds) for row in rows]


def collected(runs: Path, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the scores of the runs that have ended, by row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in runs_of(seeds):
        scores = scores_of(entry.folder(runs), entry.recipe)
        if scores is not None:
            found.setdefault(entry.row, []).append(scores)
    return found


def table(scores: dict[str, list[dict[str, Any]]]) -> str:
    """Return the tables as Markdown, each with whether the order of the paper holds."""
    lines = []
    for title, rows in TABLES.items():
        lines += [f"### {title}", "", "| | paper, dB | validation, dB | test, dB | seeds |"]
        lines += ["|---|---|---|---|---|"]
        for name, row, paper in rows:
            gains = scores.get(row, [])
            cells = [_spread([s["gain"][split] for s in gains]) for split in ("validation", "test")]
            lines.append(f"| {name} | {paper:.4f} | {cells[0]} | {cells[1]} | {len(gains)} |")
        lines += ["", _order(rows, scores), ""]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.2f}{spread}"


def _order(rows: list[tuple[str, str, float]], scores: dict[str, list[dict[str, Any]]]) -> str:
    """Say how many pairs of rows are in the order of the paper, and by how many it is certain."""
    kept = clear = pairs = 0
    for i, (_, first, a) in enumerate(rows):
        for _, second, b in rows[:i]:
            ours = [[s["gain"]["test"] for s in scores.get(row, [])] for row in (first, second)]
            if not all(ours):
                continue
            difference = statistics.mean(ours[0]) - statistics.mean(ours[1])
            agrees = difference * (a - b) > 0
            errors = [statistics.stdev(x) / math.sqrt(len(x)) if x[1:] else math.inf for x in ours]
            pairs, kept = pairs + 1, kept + agrees
            clear += abs(difference) > 2 * math.hypot(*errors)
    return (
        f"Of {pairs} pairs of rows, {kept} are in the order of the paper on the test subjects; in "
        f"{clear} of all pairs the difference is larger than twice its standard error."
    )


def main() -> None:
    """Train, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("train", "table"))
    parser.add_argument("data", nargs="?", type=Path, default=ROOT / "runs" / "open")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="file of the scores, to be committed")
    words = parser.parse_args()
    if words.do == "train":
        run(runs_of(words.seeds), words.data, words.runs, SLICES)
    scores = collected(words.runs, words.seeds)
    if words.output and scores:
        with atomic_file(words.output) as temporary:
            temporary.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    elif words.output:
        scores = json.loads(words.output.read_text(encoding="utf-8"))
    print(table(scores))


if __name__ == "__main__":
    main()
