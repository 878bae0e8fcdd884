"""Train the networks whose weights are shipped, resuming what is unfinished.

`make train-shipped` runs it at low priority with one thread::

    python -m benchmarks.train_shipped [NAME...] [--runs runs] [--status]

The runs and their data are in `runs`, outside what git tracks; each folder `runs/NAME` belongs to
the recipe `recipes/NAME.toml`. The open scans are fetched and prepared in `runs/open` if that is
missing. Nothing is committed and no weights are shipped: `python -m benchmarks.ship` does that.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

from restore_rwkv.apps.cli.console import training_report
from restore_rwkv.data.open_scans import prepare_open
from restore_rwkv.training.loop import CHECKPOINT, train
from restore_rwkv.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
SHIPPED = ("light-mri-sr", "light-ct-denoise", "light-pet-synth", "light-all-in-one")
"""Recipes of the shipped weights, in the order in which they are trained."""
STARTS = {"light-mri-sr": "light-mri-sr-start"}
"""Recipes that train the weights which others start from."""


def main() -> None:
    """Print where each run stands, then train the unfinished ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHIPPED))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--status", action="store_true", help="only print where the runs stand")
    arguments = parser.parse_args()
    for name in set(arguments.names) - set(SHIPPED):
        parser.error(f"{name!r} is not shipped; choose from {', '.join(SHIPPED)}")
    wanted = arguments.names or SHIPPED
    names = unfinished(wanted, arguments.runs)
    for name in dict.fromkeys((*wanted, *names)):
        print(status(name, arguments.runs))
    if arguments.status:
        return
    data = arguments.runs / "open"
    if not (data / "mri-sr").exists():
        print(f"preparing the open scans in {data}", flush=True)
        prepare_open(data)
    torch.set_num_threads(1)
    for name in names:
        recipe = recipe_of(name, arguments.runs)
        print(f"{name}:", flush=True)
        report = training_report(recipe.training.iterations)
        train(recipe, [data], arguments.runs / name, report=report)
        print(status(name, arguments.runs))


def recipe_of(name: str, runs: Path = ROOT / "runs") -> Recipe:
    """Read a recipe; weights that another recipe makes are those of its run."""
    recipe = Recipe.read(ROOT / "recipes" / f"{name}.toml")
    if name not in STARTS:
        return recipe
    start = str(runs / STARTS[name] / "best.safetensors")
    return replace(recipe, training=replace(recipe.training, init_from=start))


def unfinished(names: Sequence[str], runs: Path) -> list[str]:
    """Return the recipes that are to be trained, in order, with those that they start from."""
    todo = []
    for name in names:
        if is_finished(name, runs):
            continue
        start = STARTS.get(name)
        started = (runs / name / CHECKPOINT).exists()
        if start is not None and not started and not is_finished(start, runs):
            todo.append(start)
        todo.append(name)
    return todo


def is_finished(name: str, runs: Path) -> bool:
    """Whether a run is at its last iteration, by its checkpoint or, without one, by its log."""
    checkpoint = runs / name / CHECKPOINT
    if checkpoint.exists():
        with safe_open(checkpoint, framework="pt") as file:
            done = json.loads(file.metadata()["progress"])["iteration"]
    else:
        rows = read_log(runs / name)
        done = int(rows[-1]["iteration"]) if rows else 0
    return bool(done >= recipe_of(name).training.iterations)


def status(name: str, runs: Path) -> str:
    """Return a line that says where a run stands: validated iterations, gain, processor time."""
    iterations = recipe_of(name).training.iterations
    rows = read_log(runs / name)
    if not rows:
        state = "not validated yet" if (runs / name / "run.json").exists() else "not started"
        return f"{name}: {state}, {iterations:,} iterations to train"
    best = max(rows, key=lambda row: float(row["psnr"]))
    gains = ", ".join(
        f"{column.removesuffix('.gain')} {float(value):+.2f} dB"
        for column, value in best.items()
        if column.endswith(".gain") and value
    )
    last = rows[-1]
    return (
        f"{name}: {int(last['iteration']):,} of {iterations:,} iterations in "
        f"{float(last.get('cpu_hours', 0)):.2f} h of processor time; best validation at "
        f"{int(best['iteration']):,}: {gains}"
    )


def read_log(run: Path) -> list[dict[str, str]]:
    """Read the validations of a run, in order; none if it has no log yet."""
    path = run / "log.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
