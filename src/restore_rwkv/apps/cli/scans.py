"""Commands on scans: restore, degrade and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import progress_bar, score_row, score_table, show
from restore_rwkv.apps.cli.options import (
    Consistency,
    Device,
    Ensemble,
    OutputFile,
    Overwrite,
    Quiet,
    Seed,
    Series,
    Strength,
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
            metavar="F", help="MRI on its coarse native grid: restore on a grid finer by F."
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
        typer.Option(help="SUV for PET in SUV whose file does not say so."),
    ] = "auto",
    consistency: Consistency = None,
    ensemble: Ensemble = False,
    factor: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="How much less was measured. MRI: full over measured extent of k-space, 4 by "
            "default. CT, PET: full over given dose; by default found from the noise.",
            show_default=False,
        ),
    ] = None,
    strength: Strength = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory for the activations of the network.")
    ] = "2GiB",
    dtype: Annotated[
        Literal["auto", "float32", "source"],
        typer.Option(help="Type of the output; source is the input's type, clipped."),
    ] = "auto",
    series: Series = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, and what would be refused; write nothing."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Restore a scan. Affine, units and header are kept, and the grid unless --scale is given."""
    from restore_rwkv.io import record_of
    from restore_rwkv.restoration import RestoreOptions, Restorer

    options = RestoreOptions(
        plane=plane,
        scaling=scaling,
        memory=parse_memory(memory),
        scale=scale,
        unit=unit,
        consistency=consistency,
        ensemble=ensemble,
        factor=factor,
        strength=strength,
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
            raise InputError("\n  ".join([f"{output}: would be refused:", *preview.refusals]))
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
        Path, typer.Argument(metavar="IN", help="High-quality scan: NIfTI, or a folder of DICOM.")
    ],
    output: OutputFile,
    task: TaskName = "auto",
    dose: Annotated[
        float | None,
        typer.Option(help="CT, PET: fraction of the dose; 0.25 and 1/12 by default, as the paper."),
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(help="MRI: full over measured extent of k-space; 4 by default."),
    ] = None,
    sigma: Annotated[
        float,
        typer.Option(help="MRI: noise (standard deviation), in units of the full image."),
    ] = 0.0,
    photons: Annotated[
        float | None,
        typer.Option(
            help="CT: photons per ray at the scan's dose; estimated from its noise by default."
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="PET made from a T1 scan with a wrong affine: directions of its axes, as PIR."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the full-quality scan on the same grid."),
    ] = None,
    seed: Seed = 0,
    series: Series = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a low-quality scan from a high-quality one, and record the parameters."""
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
    """Degrade and restore the sample scan, print the scores, and draw a comparison."""
    from restore_rwkv.apps.cli.demo import run_demo

    result = run_demo(output, device)
    table = score_table()
    for name, score in result.evaluation.scores.items():
        table.add_row(*score_row(name, score))
    show(table)
    for name, path in result.files.items():
        typer.echo(f"{name}: {path}")
