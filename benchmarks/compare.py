"""Restore-RWKV and other networks in one harness: the same data, crops, seeds, loss and choices.

    python -m benchmarks.compare time runs/open      # seconds of a training step, interleaved
    python -m benchmarks.compare train runs/open     # the sweep, then both budgets; resumes
    python -m benchmarks.compare filters runs/open   # methods without training
    python -m benchmarks.compare costs               # seconds, memory and MACs of a slice
    python -m benchmarks.compare table               # docs/compare.json -> tables and a plot

Every network has about as many parameters as `light`. A sweep over the same optimisers and rates,
on the validation subject with a seed of its own, gives each network its own. The two budgets then
train it with three seeds (a slow one with one seed for equal iterations): for as many iterations
as every other, and for as many seconds of one thread as `light` takes for these. Seconds are
turned into iterations by the times of `time`, so that a run can be repeated to the bit.

`--runs` (runs/compare) holds the runs; results go to `--output` (docs/compare.json) as they come.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.campaign import Run, run, scores_of
from benchmarks.compare_filters import filter_rows
from benchmarks.compare_tables import TASKS, costs, draw, filter_table, sweep_table, table
from benchmarks.train_shipped import ROOT
from restore_rwkv.data.prepared import find_sets
from restore_rwkv.io import atomic_file
from restore_rwkv.training.loop import Machine
from restore_rwkv.training.pairs import PairSampler
from restore_rwkv.training.recipe import Recipe, overlaid
from restore_rwkv.training.state import Trainer

NETWORKS: dict[str, Any] = {
    "light": "light",
    "unet": {"name": "unet", "residual": True},
    "restormer": "restormer",
    "nafnet": "nafnet",
    # Smaller, since one as large as `light` takes many times as long a step on a CPU.
    "swinir-light": {"name": "swinir-light", "width": 32, "depth": [3, 3, 3, 3]},
    "redcnn": "redcnn",
    "edsr": {"name": "edsr", "residual": True},
    "dncnn": "dncnn",
}
"""The networks, as recipes name them; the first is the one that seconds are measured by. All add
their input to their output and start as the identity: else so few iterations teach little more."""
ITERATIONS = {"mri-sr": 500, "ct-denoise": 300}
SWEEP_ITERATIONS = 100
SEEDS = (0, 1, 2)
_SWEEP_SEED = 100  # no seed of the compared runs
SWEEP: dict[str, dict[str, Any]] = {
    "adam-5e-4": {"optimizer": "adam", "learning_rate": 5e-4},
    "adam-2e-3": {"optimizer": "adam", "learning_rate": 2e-3},
    "muon-1e-2": {"optimizer": "muon", "learning_rate": 1.5e-3, "matrix_rate": 1e-2},
    "muon-3e-2": {"optimizer": "muon", "learning_rate": 1.5e-3, "matrix_rate": 3e-2},
}
"""Optimisers and rates, by name; the same for every network."""
BUDGET: dict[str, Any] = {
    "scaling": "own",
    "data": {
        "crop": 64,
        "balance": "tasks",
        "augment": True,
        "avoid_air": True,
        "validation_slices": 4,
    },
    "training": {
        "batch_size": 2,
        "final_learning_rate": 1e-6,
        "warm_up": 20,
        "start_at_identity": True,
        "clip": 1.0,
        "ema": 0.98,
    },
}
"""What all runs share."""
SLICES = {"validation": 4, "test": 8}
_SLOW = 2.5  # times the seconds of ours, from which equal iterations are trained with one seed
_ROUNDS, _STEPS = 5, 3


def recipe_of(task: str, network: str, choice: str, iterations: int, seed: int) -> Recipe:
    """Return the recipe of one run."""
    training = {**SWEEP[choice], "iterations": iterations, "validate_every": iterations}
    changes = {"task": task, "network": NETWORKS[network], "training": training, "seed": seed}
    return Recipe.from_dict(overlaid(BUDGET, changes))


def step_seconds(networks: Sequence[str], data: Path) -> dict[str, float]:
    """Measure a training step of each network in seconds of processor time.

    Medians over rounds in which all take turns, so that other load tells on all of them.
    """
    torch.set_num_threads(1)
    sets = find_sets([data], ("mri-sr",))
    trainers = {}
    for name in networks:
        recipe = recipe_of("mri-sr", name, "muon-1e-2", SWEEP_ITERATIONS, 0)
        trainers[name] = Trainer(recipe, Machine().fabric("32-true")), PairSampler(sets, recipe)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(_ROUNDS + 1):  # the first is not counted
        for name, (trainer, sampler) in trainers.items():
            batch = sampler.batch(sampler.draws(number), BUDGET["data"]["crop"])
            start = time.process_time()
            for _ in range(_STEPS):
                trainer.step(*batch)
            if number:
                times[name].append((time.process_time() - start) / _STEPS)
    return {name: statistics.median(found) for name, found in times.items()}


def sweep_runs(task: str, networks: Sequence[str]) -> list[Run]:
    """Return the runs of the sweep of a task."""
    return [
        Run(
            f"{task}/sweep/{name}-{choice}",
            recipe_of(task, name, choice, SWEEP_ITERATIONS, _SWEEP_SEED),
        )
        for choice in SWEEP
        for name in networks
    ]


def chosen(task: str, network: str, runs: Path) -> str | None:
    """Return the choice of the sweep that is best on validation; None before it has ended."""
    gains: dict[str, float] = {}
    for choice, entry in zip(SWEEP, sweep_runs(task, [network]), strict=True):
        scores = scores_of(entry.folder(runs), entry.recipe)
        if scores is None:
            return None
        gains[choice] = scores["gain"]["validation"]
    return max(gains, key=gains.__getitem__)


def budget_runs(task: str, network: str, choice: str, times: dict[str, float]) -> list[Run]:
    """Return the runs of both budgets of a network, for as many seeds."""
    seconds = ITERATIONS[task] * times[next(iter(NETWORKS))]
    budgets = {"iterations": ITERATIONS[task], "seconds": max(1, round(seconds / times[network]))}
    if budgets["seconds"] == ITERATIONS[task]:
        del budgets["seconds"]  # it is the same run
    slow = times[network] > _SLOW * times[next(iter(NETWORKS))]
    return [
        Run(f"{task}/{budget}/{network}", recipe_of(task, network, choice, iterations, seed))
        for budget, iterations in budgets.items()
        for seed in (SEEDS[:1] if slow and budget == "iterations" else SEEDS)
    ]


def train_all(tasks: Sequence[str], words: argparse.Namespace) -> None:
    """Run the sweeps and both budgets, one seed of all networks after the other."""
    times = read(words.output)["step_seconds"]
    for seed in SEEDS:
        for task in tasks:
            run(sweep_runs(task, words.only), words.data, words.runs, {"validation": 4})
            entries = [
                entry
                for name in words.only
                for entry in budget_runs(task, name, str(chosen(task, name, words.runs)), times)
                if entry.recipe.seed == seed
            ]
            run(entries, words.data, words.runs, SLICES)
            collect(words)


def collect(words: argparse.Namespace) -> None:
    """Write what has ended into the file of the results."""
    results = read(words.output)
    for task in TASKS:
        of_task = results.setdefault(task, {})
        for name in NETWORKS:
            sweep = {
                choice: scores["gain"]["validation"]
                for choice, entry in zip(SWEEP, sweep_runs(task, [name]), strict=True)
                if (scores := scores_of(entry.folder(words.runs), entry.recipe))
            }
            choice = chosen(task, name, words.runs)
            if choice is None:
                continue
            row: dict[str, Any] = {"sweep": sweep, "choice": choice}
            for entry in budget_runs(task, name, choice, results["step_seconds"]):
                scores = scores_of(entry.folder(words.runs), entry.recipe)
                if scores is None:
                    continue
                budget = entry.row.split("/")[1]
                kept = {key: scores[key] for key in ("gain", "psnr", "ssim", "rmse", "slices")}
                kept |= {"seed": entry.recipe.seed, "cpu_hours": scores["cpu_hours"]}
                found = row.setdefault(budget, {"iterations": entry.recipe.training.iterations})
                found.setdefault("runs", []).append(kept)
                row["parameters"] = scores["parameters"]
            of_task[name] = row
    write(words.output, results)


def read(path: Path) -> dict[str, Any]:
    """Read the results so far; none without the file."""
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return results


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, train, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("time", "train", "filters", "costs", "table"))
    parser.add_argument("data", nargs="?", type=Path, default=ROOT / "runs" / "open")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "compare")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "compare.json")
    words = parser.parse_args()
    if words.do == "time":
        results = read(words.output)
        write(words.output, {**results, "step_seconds": step_seconds(words.only, words.data)})
    elif words.do == "train":
        train_all(words.tasks, words)
    elif words.do == "filters":
        for task in words.tasks:
            results = read(words.output)
            results.setdefault("filters", {})[task] = filter_rows(task, words.data, SLICES["test"])
            write(words.output, results)
    elif words.do == "costs":
        recipes = {name: recipe_of(TASKS[0], name, "muon-1e-2", 1, 0) for name in words.only}
        write(words.output, {**read(words.output), "costs": costs(recipes)})
    else:
        results = read(words.output)
        for task in words.tasks:
            for lines in (table, filter_table, sweep_table):
                print(
                    f"{task}, {lines.__name__.replace('_', ' ')}:\n",
                    *lines(results, task),
                    sep="\n",
                )
        draw(results, words.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
