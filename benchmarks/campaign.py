"""Training runs of a table, one after the other: each resumes, and is scored when it has ended.

A table is a list of runs, each a recipe and a name. `run` trains those that have not ended, at the
place where they stopped, and writes the scores of each into `scores.json` in its folder, where the
tables of `benchmarks.ablations` and `benchmarks.compare` read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open

from benchmarks.train_shipped import read_log
from restore_rwkv.data.prepared import find_sets
from restore_rwkv.data.slice import slices_of
from restore_rwkv.io import atomic_file
from restore_rwkv.training.loop import CHECKPOINT, Machine, train
from restore_rwkv.training.recipe import Recipe
from restore_rwkv.training.state import Trainer
from restore_rwkv.training.validation import Validator

SCORES = "scores.json"
Slices = Mapping[Literal["validation", "test"], int]
"""Slices of each split that a run is scored on, evenly spaced over the split; 0 for all."""


@dataclass(frozen=True)
class Run:
    """One training run of a table: the row that it belongs to, its recipe (with the seed)."""

    row: str
    recipe: Recipe

    def folder(self, runs: Path) -> Path:
        """Folder of the run below that of the table."""
        return runs / f"{self.row}-seed{self.recipe.seed}"


def run(table: Sequence[Run], data: Path, runs: Path, slices: Slices) -> None:
    """Train and score the runs of a table that have not ended."""
    torch.set_num_threads(1)
    for entry in table:
        folder = entry.folder(runs)
        if scores_of(folder, entry.recipe) is not None:
            continue
        train(entry.recipe, [data], folder)
        scores = score(entry.recipe, folder, data, slices)
        with atomic_file(folder / SCORES) as temporary:
            temporary.write_text(json.dumps(scores, indent=1), encoding="utf-8")
        print(f"{folder.name}: {scores['gain']}", flush=True)


def scores_of(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Read the scores of a run; None where it has not ended.

    Raises:
        SystemExit: the scores are of another recipe.
    """
    path = folder / SCORES
    if not path.exists():
        return None
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if scores["recipe"] != json.loads(json.dumps(recipe.to_dict())):
        raise SystemExit(f"{path}: is of another recipe; remove that folder to train it again")
    return scores


def require_alike(scores: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a table of runs that were scored on other slices or other data than each other.

    Raises:
        SystemExit: they were.
    """
    kinds = {json.dumps([x["slices"], x["data"]], sort_keys=True): x["slices"] for x in scores}
    if len(kinds) > 1:
        raise SystemExit(
            f"runs were scored on other slices or data ({', '.join(map(str, kinds.values()))}), "
            "which cannot be compared; remove the scores.json of one kind to score them again"
        )


def score(recipe: Recipe, folder: Path, data: Path, slices: Slices) -> dict[str, Any]:
    """Score the last weights of a run (their moving average) by the paper's protocol."""
    trainer = Trainer(recipe, Machine().fabric(recipe.training.precision), resumes=True)
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        prefix = "average."
        weights = {
            key.removeprefix(prefix): file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118
            if key.startswith(prefix)
        }
    trainer.average.load_state_dict(weights)
    network = trainer.average.merged()
    sets = find_sets([data], tuple(task.name for task in recipe.tasks))
    found: dict[str, Any] = {"gain": {}, "psnr": {}, "ssim": {}, "rmse": {}, "slices": {}}
    for split, count in slices.items():
        scored = slices_of(sets, split, count)
        result = Validator(scored, recipe, trainer.fabric)(network)
        score = result.scores[recipe.task]
        found["gain"][split] = result.gains[recipe.task]
        found["psnr"][split], found["ssim"][split] = score.psnr, score.ssim
        found["rmse"][split], found["slices"][split] = score.rmse, score.slices
    parameters = sum(weight.numel() for weight in trainer.network.parameters())
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    found |= {"parameters": parameters, "cpu_hours": float(read_log(folder)[-1]["cpu_hours"])}
    return {**found, "recipe": recipe.to_dict(), "data": record["data"], "runs": record["starts"]}
