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

Adam and Muon take other times, so that each network has the seconds of the optimiser that it is
trained with. `--runs` (runs/compare) holds the runs; results go to `--output` (docs/compare.json)
as they come.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import product
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
SWEEP_ITERATIONS = {"mri-sr": 200, "ct-denoise": 120}
SEEDS = (0, 1, 2)
_SWEEP_SEED = 100  # no seed of the compared runs
SWEEP: dict[str, dict[str, Any]] = {
    "adam-5e-4": {"optimizer": "adam", "learning_rate": 5e-4},
    "adam-2e-3": {"optimizer": "adam", "learning_rate": 2e-3},
    "muon-5e-3": {"optimizer": "muon", "learning_rate": 1.5e-3, "matrix_rate": 5e-3},
    "muon-1e-2": {"optimizer": "muon", "learning_rate": 1.5e-3, "matrix_rate": 1e-2},
    "muon-3e-2": {"optimizer": "muon", "learning_rate": 1.5e-3, "matrix_rate": 3e-2},
    "muon-6e-2": {"optimizer": "muon", "learning_rate": 1.5e-3, "matrix_rate": 6e-2},
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
_OURS = next(iter(NETWORKS))
_KEPT = ("gain", "psnr", "ssim", "rmse", "slices", "data", "cpu_hours")


def recipe_of(task: str, network: str, choice: str, iterations: int, seed: int) -> Recipe:
    """Return the recipe of one run."""
    training = {**SWEEP[choice], "iterations": iterations, "validate_every": iterations}
    changes = {"task": task, "network": NETWORKS[network], "training": training, "seed": seed}
    return Recipe.from_dict(overlaid(BUDGET, changes))


Seconds = Mapping[str, Mapping[str, float]]
"""Seconds of a training step, by network and optimiser."""


def step_seconds(networks: Sequence[str], data: Path) -> Seconds:
    """Measure a training step of each network with each optimiser in seconds of processor time.

    Medians over rounds in which all take turns, so that other load tells on all of them.
    """
    torch.set_num_threads(1)
    sets = find_sets([data], ("mri-sr",))
    trainers = {}
    choices = {values["optimizer"]: choice for choice, values in SWEEP.items()}
    for name, optimizer in product(networks, choices):
        recipe = recipe_of(TASKS[0], name, choices[optimizer], SWEEP_ITERATIONS[TASKS[0]], 0)
        trainer = Trainer(recipe, Machine().fabric("32-true"))
        trainers[name, optimizer] = trainer, PairSampler(sets, recipe)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in trainers}
    for number in range(_ROUNDS + 1):  # the first is not counted
        for key, (trainer, sampler) in trainers.items():
            batch = sampler.batch(sampler.draws(number), BUDGET["data"]["crop"])
            start = time.process_time()
            for _ in range(_STEPS):
                trainer.step(*batch)
            if number:
                times[key].append((time.process_time() - start) / _STEPS)
    return {
        name: {optimizer: statistics.median(times[name, optimizer]) for optimizer in choices}
        for name in networks
    }


def seconds_of(times: Seconds, network: str, choice: str) -> float:
    """Return the seconds of a training step of a network with a choice of the sweep."""
    return times[network][SWEEP[choice]["optimizer"]]


def sweep_runs(task: str, networks: Sequence[str]) -> list[Run]:
    """Return the runs of the sweep of a task."""
    return [
        Run(
            f"{task}/sweep/{name}-{choice}",
            recipe_of(task, name, choice, SWEEP_ITERATIONS[task], _SWEEP_SEED),
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


def budget_runs(
    task: str, network: str, choices: Mapping[str, str], times: Seconds
) -> dict[str, list[Run]]:
    """Return the runs of a network, for as many seeds, by budget: "iterations" and "seconds".

    Where both budgets are as many iterations, as for ours, they have the same runs.
    """
    ours, step = (seconds_of(times, name, choices[name]) for name in (_OURS, network))
    equal = ITERATIONS[task]
    seconds = max(1, round(equal * ours / step))

    def runs(budget: str, iterations: int, seeds: Sequence[int]) -> list[Run]:
        return [
            Run(
                f"{task}/{budget}/{network}",
                recipe_of(task, network, choices[network], iterations, seed),
            )
            for seed in seeds
        ]

    found = {"iterations": runs("iterations", equal, SEEDS[:1] if step > _SLOW * ours else SEEDS)}
    same = seconds == equal
    return {**found, "seconds": found["iterations"] if same else runs("seconds", seconds, SEEDS)}


def train_all(tasks: Sequence[str], words: argparse.Namespace) -> None:
    """Run the sweeps and both budgets, one seed of all networks after the other."""
    times = read(words.output)["step_seconds"]
    networks = list(dict.fromkeys((_OURS, *words.only)))
    for seed in SEEDS:
        for task in tasks:
            run(sweep_runs(task, networks), words.data, words.runs, {"validation": 8})
            choices = {name: str(chosen(task, name, words.runs)) for name in networks}
            entries = {
                entry.folder(words.runs): entry
                for name in words.only
                for runs in budget_runs(task, name, choices, times).values()
                for entry in runs
                if entry.recipe.seed == seed
            }
            run(list(entries.values()), words.data, words.runs, SLICES)
            collect(words)


def collect(words: argparse.Namespace) -> None:
    """Write what has ended into the file of the results."""
    results = read(words.output)
    for task in TASKS:
        found = {name: chosen(task, name, words.runs) for name in NETWORKS}
        choices = {name: choice for name, choice in found.items() if choice is not None}
        if _OURS not in choices:
            continue
        results[task] = {
            name: collected(task, name, choices, results["step_seconds"], words.runs)
            for name in choices
        }
    write(words.output, results)


def collected(
    task: str, network: str, choices: Mapping[str, str], times: Seconds, runs: Path
) -> dict[str, Any]:
    """Return what the file of results keeps of a network: its sweep, and its runs by budget."""
    choice = choices[network]
    row: dict[str, Any] = {"sweep": {}, "choice": choice}
    row["step_seconds"] = seconds_of(times, network, choice)
    for tried, entry in zip(SWEEP, sweep_runs(task, [network]), strict=True):
        scores = scores_of(entry.folder(runs), entry.recipe)
        row["sweep"] |= {tried: scores["gain"]["validation"]} if scores else {}
    for budget, entries in budget_runs(task, network, choices, times).items():
        ended = [(x, scores_of(x.folder(runs), x.recipe)) for x in entries]
        kept = [
            {key: scores[key] for key in _KEPT} | {"seed": entry.recipe.seed}
            for entry, scores in ended
            if scores is not None
        ]
        if kept:
            row[budget] = {"iterations": entries[0].recipe.training.iterations, "runs": kept}
    return row


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
