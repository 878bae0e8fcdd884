"""Gain on validation of single choices of a recipe, trained for equal processor time.

Each row changes the row above it, or the first row where it says so::

    python -m benchmarks.training_switches mri runs/open --seconds 120 --seeds 3

The learning rates follow their whole schedule within the time, which is that of the training
process without validation. The table shows mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore_rwkv.data.prepared import find_sets
from restore_rwkv.data.slice import slices_of
from restore_rwkv.training.loop import Machine
from restore_rwkv.training.pairs import PairSampler
from restore_rwkv.training.recipe import Recipe, overlaid
from restore_rwkv.training.state import Trainer
from restore_rwkv.training.validation import Validator

_TIMED = 10
_SHIPPED_BEFORE: dict[str, Any] = {
    "network": "light",
    "scaling": "own",
    "data": {"crop": 64, "balance": "tasks", "augment": True, "avoid_air": True},
    "training": {
        "learning_rate": 1.5e-3,
        "warm_up": 20,
        "start_at_identity": True,
        "clip": 1.0,
        "ema": 0.99,
    },
}
_MUON = {"training": {"optimizer": "muon", "matrix_rate": 0.02}}
_GAINS = {"data": {"gain": [0.5, 1.2], "gamma": [0.6, 1.6]}}
_NO_GAINS = {"data": {"gain": [1.0, 1.0], "gamma": [1.0, 1.0]}}
_LARGE = {"data": {"crop": 128, "stages": [[0.5, 96]]}}
_PATCHES = {"network": "patch2", "data": {"crop": 96, "stages": [[0.5, 64]]}}

# Task, and rows of: name, changes, and whether they change the first row instead of the row above.
TABLES: dict[str, tuple[str, list[tuple[str, dict[str, Any], bool]]]] = {
    "mri": (
        "mri-sr",
        [
            ("Adam, gains and contrast curves", _GAINS, False),
            ("AdamW, decay 0.05", {"training": {"optimizer": "adamw", "weight_decay": 0.05}}, True),
            ("Adam, matrices at 3e-4", {"training": {"matrix_rate": 3e-4}}, True),
            ("Muon", _MUON, True),
            ("+ no gains and contrast curves", _NO_GAINS, False),
            ("+ crops of 32, then 64", {"data": {"stages": [[0.5, 32]]}}, False),
            ("+ patches of 2 x 2, 28 channels, crops of 64, then 96", _PATCHES, False),
        ],
    ),
    "ct": (
        "ct-denoise",
        [
            ("Adam, gains", {"data": {"gain": [0.5, 2.0]}}, False),
            ("Muon", _MUON, False),
            ("+ no gains", _NO_GAINS, False),
            ("+ weight 0.2 outside the window", {"training": {"outside": 0.2}}, False),
            ("+ noise of 3 to 40 HU", {"data": {"noise": [3.0, 40.0]}}, False),
            ("+ patches of 2 x 2, 28 channels, crops of 64, then 96", _PATCHES, False),
        ],
    ),
    "decay": (
        "mri-sr",
        [
            ("decay of the paper", {**_MUON, **_PATCHES}, False),
            ("ranges of 2 to 256 pixels", {"network": {"decay_range": [2, 256]}}, True),
            ("ranges of 8 to 2048 pixels", {"network": {"decay_range": [8, 2048]}}, True),
        ],
    ),
    "width": (
        "mri-sr",
        [
            ("patch 1, 16 channels", {**_MUON, "data": {"stages": [[0.5, 48]]}}, False),
            ("patch 1, 24 channels", {"network": {"dim": 24}}, True),
            ("patch 2, 20 channels", {**_PATCHES, "network": {"patch": 2, "dim": 20}}, True),
            ("patch 2, 28 channels", _PATCHES, True),
            ("patch 2, 40 channels", {**_PATCHES, "network": {"patch": 2, "dim": 40}}, True),
            ("patch 4, 32 channels", {**_LARGE, "network": {"patch": 4, "dim": 32}}, True),
            ("patch 4, 48 channels", {**_LARGE, "network": {"patch": 4, "dim": 48}}, True),
        ],
    ),
}


def main() -> None:
    """Train each row with each seed and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| setting | iterations | gain dB |\n|---|---|---|")
    task, _ = TABLES[arguments.table]
    for name, table in settings(arguments.table):
        gains, iterations = [], []
        for seed in range(arguments.seeds):
            recipe = {**table, "task": task, "seed": seed}
            count, gain = trained(recipe, arguments.data, arguments.seconds)
            gains.append(gain)
            iterations.append(count)
        spread = f" ± {np.std(gains, ddof=1):.2f}" if len(gains) > 1 else ""
        print(f"| {name} | {np.mean(iterations):.0f} | {np.mean(gains):+.2f}{spread} |", flush=True)


def settings(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the whole table of each row."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for row, changes, from_first in TABLES[name][1]:
        before = rows[0 if from_first else -1][1] if rows else _SHIPPED_BEFORE
        rows.append((row, overlaid(before, changes)))
    return rows


def trained(table: dict[str, Any], data: Path, seconds: float) -> tuple[int, float]:
    """Train for a time; returns the number of iterations and the gain on validation in dB.

    Stages are given as fractions of the iterations.
    """
    fractions = table["data"].get("stages", [])
    probe = _recipe(table, iterations=100, stages=[])
    sets = find_sets([data], (probe.task,))
    per_step = _seconds_per_step(probe, sets)
    for fraction, crop in fractions:
        smaller = overlaid(table, {"data": {"crop": crop, "stages": []}})
        faster = _seconds_per_step(_recipe(smaller, iterations=100, stages=[]), sets)
        per_step = fraction * faster + (1 - fraction) * per_step
    iterations = max(1, round(seconds / per_step))
    stages = [[max(1, round(fraction * iterations)), crop] for fraction, crop in fractions]
    recipe = _recipe(table, iterations=iterations, stages=stages)
    trainer = Trainer(recipe, Machine().fabric("32-true"))
    sampler = PairSampler(sets, recipe)
    for iteration in range(iterations):
        crop = recipe.data.crop_at(iteration)
        trainer.step(*sampler.batch(sampler.draws(iteration), crop))
    slices = slices_of(sets, "validation", 10)
    gain = Validator(slices, recipe, trainer.fabric)(trainer.average.merged()).gains[recipe.task]
    return iterations, float("nan") if gain is None else gain


def _recipe(table: dict[str, Any], *, iterations: int, stages: list[Any]) -> Recipe:
    changes = {"training": {"iterations": iterations}, "data": {"stages": stages}}
    return Recipe.from_dict(overlaid(table, changes))


def _seconds_per_step(recipe: Recipe, sets: Any) -> float:
    trainer = Trainer(recipe, Machine().fabric("32-true"))
    sampler = PairSampler(sets, recipe)
    start = 0.0
    for iteration in range(_TIMED + 2):
        if iteration == 2:  # buffers are made in the first steps
            start = time.process_time()
        trainer.step(*sampler.batch(sampler.draws(iteration), recipe.data.crop))
    return (time.process_time() - start) / _TIMED


if __name__ == "__main__":
    main()
