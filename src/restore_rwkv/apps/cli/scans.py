"""Commands on scans: restore, degrade and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import progress_bar, score_row, score_table, show
from restore_rwkv.apps.cli.options import (
    Device,
    OutputFile,
    Overwrite,
    Quiet,
    Seed,
    Series,
    TaskName,
    Weights,
    parse_memory,
    series_of,
)
from restore_rwkv.errors import InputError


def restore(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="NIfTI, PNG, TIFF, NPY, or a folder of DICOM."),
    ],
    output: OutputFile,
    task: TaskName = "auto",
    weights: Weights = None,
    device: Device = "auto",
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="MRI on its coarse native grid: to a grid finer by this factor."
        ),
    ] = None,
    plane: Annotated[
        Literal["auto", "axial", "coronal", "sagittal"],
        typer.Option(help="Slices to restore."),
    ] = "auto",
    scaling: Annotated[
        Literal["auto", "robust", "paper"],
        typer.Option(help="paper is for data prepared as the paper's."),
    ] = "auto",
    unit: Annotated[
        Literal["auto", "SUV"],
        typer.Option(help="SUV for PET whose file does not say that it is."),
    ] = "auto",
    memory: Annotated[str, typer.Option(help="For the network's activations.")] = "2GiB",
    dtype: Annotated[
        Literal["auto", "float32", "source"],
        typer.Option(help="source: the source's type, clipped."),
    ] = "auto",
    series: Series = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, and what would be refused; write nothing."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Restore a scan; grid (without --scale), affine, units and header stay as they are."""
    from restore_rwkv.io import record_of
    from restore_rwkv.restoration import RestoreOptions, Restorer

    options = RestoreOptions(
        plane=plane, scaling=scaling, memory=parse_memory(memory), scale=scale, unit=unit
    )
    restorer = Restorer(task, weights, device)
    chosen = series_of(series)
    if dry_run:
        preview = restorer.preview(
            source, output, options, dtype=dtype, overwrite=overwrite, series=chosen
        )
        for line in preview.plan.lines() if preview.plan else ():
            typer.echo(line)
        if preview.refusals:
            raise InputError("\n  ".join(["refused:", *preview.refusals]))
        return
    with progress_bar("restoring", "slices", quiet) as progress:
        restored = restorer.file(
            *(source, output, options),
            dtype=dtype,
            overwrite=overwrite,
            series=chosen,
            progress=progress,
        )
    if not quiet:
        volume = restored.volume
        if task == "auto":
            typer.echo(f"{volume.name}: {volume.modality}, restored with {restored.record.task}")
        typer.echo(f"{output}: restored; how it was made: {record_of(output)}")


def degrade(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A good scan: NIfTI, or a folder of DICOM.")
    ],
    output: OutputFile,
    task: TaskName = "auto",
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
    from restore_rwkv.tasks import DegradeOptions, degrade_file

    record = degrade_file(
        source,
        output,
        task=task,
        options=DegradeOptions(factor=factor, sigma=sigma, photons=photons, axes=axes, dose=dose),
        seed=seed,
        truth=truth,
        series=series_of(series),
        overwrite=overwrite,
    )
    if not quiet:
        typer.echo(f"{output}: degraded; how it was made: {record}")


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "demo-output"
    ),
    device: Device = "auto",
) -> None:
    """Restore a shipped scan of known truth, print what it gains, and draw it."""
    from restore_rwkv.apps.cli.demo import run_demo

    result = run_demo(output, device)
    table = score_table()
    for name, score in result.evaluation.scores.items():
        table.add_row(*score_row(name, score))
    show(table)
    for what, path in result.files.items():
        typer.echo(f"{what}: {path}")
