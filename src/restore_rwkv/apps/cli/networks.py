"""Commands on networks: train, convert and info."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import training_report
from restore_rwkv.apps.cli.options import Device, Json, Overwrite, Quiet, Task, Verbose
from restore_rwkv.apps.cli.terminal import say, show, show_json


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
    verbose: Verbose = False,
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
        say(f"best weights: {best}")
    elif leading:
        say(
            f"{output}: no weights, as no validation was better than the input; train longer, or "
            "see docs/training.md on learning rates"
        )


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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Convert a published checkpoint (.pth) to a weight file, without running code in it."""
    from restore_rwkv.io.files import check_writable
    from restore_rwkv.model import convert_published
    from restore_rwkv.tasks import get_tasks

    check_writable(output, source=checkpoint, overwrite=overwrite)
    scaling = {trained.name: trained.paper_scaling for trained in get_tasks(task)}
    record = convert_published(checkpoint, output, scaling=scaling)
    say(f"{output}: {record.parameters:,} parameters, SHA-256 {record.sha256}")


def info(
    as_json: Json = False,
    record_schema: Annotated[
        bool,
        typer.Option("--record-schema", help="Print the JSON Schema of the records of restore."),
    ] = False,
) -> None:
    """List tasks, weights, operator backends and devices."""
    if record_schema:
        from restore_rwkv.io.schema import record_schema as schema

        print(json.dumps(schema(), indent=2))
        return
    from restore_rwkv.apps.cli.about import about, about_tables

    facts = about()
    if as_json:
        show_json(facts)
    else:
        show(*about_tables(facts))
