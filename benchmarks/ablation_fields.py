"""Effective receptive fields of the ablations, at the start and trained.

    python -m benchmarks.ablation_fields runs/open [--runs runs/ablations] [-o docs/ablations.png]

For rows of `benchmarks.ablations`, with each seed, the field of random weights and that of the
trained ones, as `restore-rwkv erf` measures it on validation slices. The table has means and
standard deviations over seeds of the high-contribution area ratio; the picture has the first seed.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from benchmarks.ablations import OWN, recipe_of
from benchmarks.campaign import Run
from benchmarks.train_shipped import ROOT
from restore_rwkv.evaluation.figures import receptive_fields
from restore_rwkv.evaluation.receptive_field import (
    Field,
    effective_receptive_field,
    field_images,
    high_contribution_area,
)
from restore_rwkv.model import build_network, load_weights

ROWS = {
    "Uni-WKV + Uni-Shift": "table5-uni-wkv-uni-shift",
    "Bi-WKV + Quad-Shift": "table5-bi-wkv-quad-shift",
    "Re-WKV + Quad-Shift": "table5-re-wkv-quad-shift",
    "Bi-WKV + Omni-Shift": "table6-m1-rows",
    "Re-WKV + Omni-Shift": OWN,
}
_SIZE = 160
_SHARES = (0.5, 0.95)
_STATES = ("at the start", "trained")


def fields_of(row: str, seed: int, data: Path, runs: Path) -> list[Field]:
    """Return the field of random weights, and that of trained ones if the run has ended."""
    recipe = recipe_of(row, seed)
    torch.manual_seed(seed)
    networks = [build_network(recipe.network).eval()]
    trained = Run(row, recipe).folder(runs) / "best.safetensors"
    if trained.exists() and (trained.parent / "scores.json").exists():
        networks.append(load_weights(trained)[0])
    rules = {task.name: recipe.rule(task) for task in recipe.tasks}
    images, _ = field_images(data, _SIZE, rules)
    return [effective_receptive_field(network, images) for network in networks]


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=ROOT / "runs" / "open")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "ablations.png")
    words = parser.parse_args()
    torch.set_num_threads(1)
    columns = [f"r({share:g}) {state}" for share in _SHARES for state in _STATES]
    print(f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|", sep="\n")
    drawn: dict[str, dict[str, tuple[Field, str]]] = {state: {} for state in _STATES}
    for name, row in ROWS.items():
        found = [fields_of(row, seed, words.data, words.runs) for seed in range(words.seeds)]
        cells = []
        for share in _SHARES:
            for number, _ in enumerate(_STATES):
                areas = [high_contribution_area(f[number], share) for f in found if f[number:]]
                cells.append(_spread(areas))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        for state, field in zip(_STATES, found[0], strict=False):
            area = high_contribution_area(field)
            drawn[state][f"{name}, {state}"] = (field, f"half of it in {area:.2%} of the area")
    receptive_fields(drawn["at the start"] | drawn["trained"], words.output)


def _spread(areas: list[float]) -> str:
    if not areas:
        return "-"
    spread = f" ± {100 * statistics.stdev(areas):.2g}" if areas[1:] else ""
    return f"{100 * statistics.mean(areas):.3g}{spread} % ({len(areas)})"


if __name__ == "__main__":
    main()
