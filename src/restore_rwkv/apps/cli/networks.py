"""Commands on networks: train, evaluate, convert and info."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from restore_rwkv.apps.cli.console import (
    score_row,
    score_table,
    show,
    training_report,
)
from restore_rwkv.apps.cli.options import Device, Overwrite, Quiet, Seed, TaskName, Weights
from restore_rwkv.errors import ConfigError


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/base-mri-sr.toml.")],
    data: Annotated[
        list[Path], typer.Option(help="Prepared set, or a folder of sets; may be repeated.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read data; 0 on a CPU, 4 on a GPU by default."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network; the same command goes on where a stopped run was.

    For several GPUs or machines: torchrun ... -m restore_rwkv train ...
    """
    from restore_rwkv.restoration.restorer import find_device
    from restore_rwkv.training.loop import Machine
    from restore_rwkv.training.loop import train as run_training
    from restore_rwkv.training.recipe import Recipe

    plan = Recipe.read(recipe)
    leading = os.environ.get("RANK", "0") == "0" and not quiet
    best = run_training(
        plan,
        data,
        output,
        machine=Machine(str(find_device(device)), workers),
        report=training_report(plan.training.iterations) if leading else None,
    )
    if leading:
        typer.echo(f"best weights: {best}")


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SCAN|SET...", help="Good scans, or folders of prepared sets."),
    ],
    task: TaskName = "auto",
    weights: Weights = None,
    split: Annotated[str, typer.Option(help="Of sets: train, validation or test.")] = "test",
    axes: Annotated[
        str | None,
        typer.Option(help="PET from a T1 scan of wrong affine: directions of its axes, as PIR."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Score what restoring gains over the low-quality input, by the paper's protocol.

    Scans are degraded first, as `degrade` would; prepared sets have their low quality.
    """
    from restore_rwkv.data.prepared import SPLITS
    from restore_rwkv.evaluation.evaluate import evaluate_paths

    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; use {', '.join(SPLITS)}")
    table = score_table("scan or patient")
    try:
        for name, scores in evaluate_paths(
            sources, task=task, weights=weights, split=split, axes=axes, seed=seed, device=device
        ):
            for image, score in scores.items():
                table.add_row(name, *score_row(image, score))
    finally:
        if table.rows:  # what was scored before a scan that fails is not lost
            show(table)


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="PTH", help="Published checkpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Weight file: *.safetensors.")
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="What it was trained for; also all-in-one.")
    ] = "mri-sr",
    overwrite: Overwrite = False,
) -> None:
    """Convert a published checkpoint (.pth) to a weight file; executes nothing in it."""
    from restore_rwkv.model import convert_published
    from restore_rwkv.tasks import get_tasks

    if output.exists() and not overwrite:
        raise ConfigError(f"{output}: exists already; name another file, or use --overwrite")
    scaling = {trained.name: trained.paper_scaling for trained in get_tasks(task)}
    record = convert_published(checkpoint, output, scaling=scaling)
    typer.echo(f"{output}: {record.parameters:,} parameters, SHA-256 {record.sha256}")


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List tasks, weights, operator backends and devices."""
    from restore_rwkv.apps.cli.about import about, about_tables

    if as_json:
        typer.echo(json.dumps(about(), indent=2))
    else:
        show(*about_tables(about()))
