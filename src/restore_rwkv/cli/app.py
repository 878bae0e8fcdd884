"""The command `restore-rwkv`: each command translates its words into one call of the library."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from restore_rwkv.cli.console import (
    plain_table,
    progress_bar,
    score_row,
    score_table,
    show,
    training_report,
    yes,
)
from restore_rwkv.cli.options import (
    Device,
    Overwrite,
    Quiet,
    Seed,
    Series,
    Weights,
    parse_memory,
    series_of,
)
from restore_rwkv.cli.prepare import data_app
from restore_rwkv.errors import ConfigError, RestoreError

app = typer.Typer(
    name="restore-rwkv",
    help="Medical image restoration with Restore-RWKV. For research only; not a medical device.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")


@app.command()
def restore(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="NIfTI, PNG, TIFF, NPY, or a folder of DICOM."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="File to write, such as out.nii.gz."),
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="auto (by modality), mri-sr, ct-denoise, pet-synth.")
    ] = "auto",
    weights: Weights = None,
    device: Device = "auto",
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="MRI on its coarse native grid: to a grid finer by this factor."
        ),
    ] = None,
    plane: Annotated[
        str, typer.Option(help="Slices to restore: auto, axial, coronal or sagittal.")
    ] = "auto",
    scaling: Annotated[
        str, typer.Option(help="auto, robust, or fixed (for data prepared as the paper's).")
    ] = "auto",
    unit: Annotated[
        str, typer.Option(help="auto, or SUV for PET whose file does not say that it is.")
    ] = "auto",
    memory: Annotated[str, typer.Option(help="For the network's activations.")] = "2GiB",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, or source (the source's type, clipped).")
    ] = "auto",
    series: Series = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Restore a scan; grid (without --scale), affine, units and header stay as they are."""
    import restore_rwkv
    from restore_rwkv.io import record_of
    from restore_rwkv.restoration import Settings
    from restore_rwkv.tasks import task_of

    settings = Settings(plane, scaling, parse_memory(memory), scale, unit)  # type: ignore[arg-type]
    with progress_bar("restoring", "slices", quiet) as progress:
        restored = restore_rwkv.restore(
            source,
            output,
            task=task,
            weights=weights,
            device=device,
            settings=settings,
            dtype=dtype,  # type: ignore[arg-type]
            overwrite=overwrite,
            series=series_of(series),
            progress=progress,
        )
    if not quiet:
        if task == "auto" and restored.modality is not None:
            used = task_of(restored.modality).name
            typer.echo(f"{restored.name}: {restored.modality}, restored with {used}")
        typer.echo(f"{output}: restored; how it was made: {record_of(output)}")


@app.command()
def degrade(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A good scan: NIfTI, or a folder of DICOM.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="File to write, such as out.nii.gz."),
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="auto (by modality), mri-sr, ct-denoise, pet-synth.")
    ] = "auto",
    dose: Annotated[
        float | None,
        typer.Option(help="CT, PET: fraction of the dose; the paper's 0.25, 1/12 by default."),
    ] = None,
    factor: Annotated[
        float | None, typer.Option(help="MRI: full over measured extent of k-space; 4 by default.")
    ] = None,
    sigma: Annotated[
        float, typer.Option(help="MRI: sd of the noise, in image units of a full acquisition.")
    ] = 0.0,
    photons: Annotated[
        float | None,
        typer.Option(help="CT: per ray at the scan's dose; measured from its noise by default."),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(help="PET from a T1 scan of wrong affine: directions of its axes, as PIR."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the scan of full quality on the same grid too."),
    ] = None,
    seed: Seed = 0,
    series: Series = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make a low-quality scan from a good one, as a scanner would have; records the parameters."""
    from restore_rwkv.degradation import Settings, degrade_file

    record = degrade_file(
        source,
        output,
        task=task,
        settings=Settings(factor, sigma, photons, axes, dose),
        seed=seed,
        truth=truth,
        series=series_of(series),
        overwrite=overwrite,
    )
    if not quiet:
        typer.echo(f"{output}: degraded; how it was made: {record}")


@app.command()
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SCAN|SET...", help="Good scans, or folders of prepared sets."),
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="auto (by modality), mri-sr, ct-denoise, pet-synth.")
    ] = "auto",
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
    from restore_rwkv.data.manifest import SPLITS
    from restore_rwkv.evaluation import evaluate_paths

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


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "demo-output"
    ),
    device: Device = "auto",
) -> None:
    """Restore a shipped scan of known truth, print what it gains, and draw it."""
    from restore_rwkv.demo import run_demo

    result = run_demo(output, device)
    table = score_table()
    for name, score in result.evaluation.scores.items():
        table.add_row(*score_row(name, score))
    show(table)
    for what, path in result.files.items():
        typer.echo(f"{what}: {path}")


@app.command()
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
    from restore_rwkv.recipe import Recipe
    from restore_rwkv.restoration import find_device
    from restore_rwkv.training import Machine
    from restore_rwkv.training import train as run_training

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


@app.command()
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


@app.command()
def info() -> None:
    """List tasks, weights, operator backends and devices."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # count GPUs without waking one
    import torch

    from restore_rwkv.model import read_info
    from restore_rwkv.ops import available_backends
    from restore_rwkv.shipped import shipped_weights
    from restore_rwkv.tasks import TASKS

    tasks = plain_table("task", "what it does", "modality", "weights")
    for task in TASKS.values():
        tasks.add_row(task.name, task.title, task.modality, task.weights)
    weights = plain_table("weights", "tasks", "parameters", "SHA-256")
    for name, path in shipped_weights().items():
        record = read_info(path)
        served = ", ".join(record.scaling)
        weights.add_row(name, served, f"{record.parameters:,}", record.sha256[:16])
    machine = plain_table("backend or device", "here")
    for name, here in available_backends().items():
        machine.add_row(f"backend {name}", "yes" if here else "no")
    machine.add_row("device cpu", f"yes, {torch.get_num_threads()} threads")
    machine.add_row("device cuda", yes(torch.cuda.is_available()))
    machine.add_row("device mps", yes(torch.backends.mps.is_available()))
    show(tasks, weights, machine)


def main() -> None:
    """Run the command line; mistakes of the user end in one line and exit code 2."""
    keep_freed_memory()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        message = _told(error)
        if message is None:
            raise
        typer.echo(f"error: {message}", err=True)
        sys.exit(2)


def _told(error: Exception) -> str | None:
    """The line to print of an error; None for a defect of the program."""
    if isinstance(error, RestoreError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{os.fspath(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and free space"
    if hasattr(error, "format_message"):  # of click, which typer brings under changing names
        return f"{error.format_message()} See restore-rwkv --help."
    return None


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks, or each operation pays for its pages anew (2x in time)."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**31 - 1) or mallopt(-3, 2**25)  # M_MMAP_THRESHOLD; limited in older glibc
