"""Commands on networks: train, evaluate, convert and info."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import (
    score_row,
    score_table,
    show,
    spread_table,
    training_report,
)
from restore_rwkv.apps.cli.options import (
    Consistency,
    Device,
    Ensemble,
    Overwrite,
    Quiet,
    Seed,
    Strength,
    Task,
    TaskName,
    Weights,
)

if TYPE_CHECKING:
    from restore_rwkv.io import Volume
    from restore_rwkv.restoration import Restorer


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/base-mri-sr.toml.")],
    data: Annotated[
        list[Path], typer.Option(help="Prepared set, or a folder of them; may be repeated.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read data; by default 0 on a CPU, 4 on a GPU."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network; the same command resumes a stopped run.

    For several GPUs or machines: torchrun ... -m restore_rwkv train ...
    """
    from restore_rwkv.restoration import find_device
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
    if leading and best is not None:
        typer.echo(f"best weights: {best}")
    elif leading:
        typer.echo(
            f"{output}: no weights, as no validation was better than the input; train longer, or "
            "see docs/training.md on learning rates"
        )


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN|SET...", help="High-quality scans, or folders of prepared sets."
        ),
    ],
    task: TaskName = "auto",
    weights: Weights = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Part of the prepared sets.")
    ] = "test",
    axes: Annotated[
        str | None,
        typer.Option(
            help="PET made from a T1 scan with a wrong affine: directions of its axes, as PIR."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    consistency: Consistency = None,
    ensemble: Ensemble = False,
    strength: Strength = None,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose",
            help="Also print how much the attention differs over an image, block by block.",
        ),
    ] = False,
) -> None:
    """Score restored images against the low-quality input, by the paper's protocol.

    Scans are degraded first, as by `degrade`; prepared sets come with their low-quality images.
    """
    from restore_rwkv.evaluation import diagnose as measure_spread
    from restore_rwkv.evaluation.scores import evaluate_paths
    from restore_rwkv.restoration import RestoreOptions

    options = RestoreOptions(consistency=consistency, ensemble=ensemble, strength=strength)
    table, spreads = score_table("scan or patient"), []

    def inspect(name: str, low: Volume, restorer: Restorer, options: RestoreOptions) -> None:
        spreads.append(spread_table(name, measure_spread(low, restorer, options)))

    try:
        for name, scores in evaluate_paths(
            sources,
            task=task,
            weights=weights,
            split=split,
            axes=axes,
            seed=seed,
            device=device,
            options=options,
            inspect=inspect if diagnose else None,
        ):
            for image, score in scores.items():
                table.add_row(name, *score_row(image, score))
    finally:
        if table.rows:  # also where a later scan fails
            show(table, *spreads)


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="PTH", help="Published checkpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Weight file: *.safetensors.")
    ],
    task: Annotated[
        Literal[Task, "all-in-one"],
        typer.Option("--task", "-t", help="Task that the checkpoint was trained for."),
    ] = "mri-sr",
    overwrite: Overwrite = False,
) -> None:
    """Convert a published checkpoint (.pth) to a weight file, without running code in it."""
    from restore_rwkv.io.files import check_writable
    from restore_rwkv.model import convert_published
    from restore_rwkv.tasks import get_tasks

    check_writable(output, source=checkpoint, overwrite=overwrite)
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
