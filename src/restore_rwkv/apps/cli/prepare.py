"""`restore-rwkv data`: prepared sets from each source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import progress_bar
from restore_rwkv.apps.cli.options import Seed

if TYPE_CHECKING:
    from restore_rwkv.data.sources.jobs import Report
    from restore_rwkv.restoration.tiles import Progress

data_app = typer.Typer(
    help="Prepare data sets for training and evaluation, and check them.",
    rich_markup_mode=None,
)
prepare_app = typer.Typer(help="Make prepared sets from a source.", rich_markup_mode=None)
data_app.add_typer(prepare_app, name="prepare")

Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of the source.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to make; must not exist.")
]
Skip = Annotated[
    bool,
    typer.Option("--skip-faulty", help="Leave faulty volumes out and list them; not refuse all."),
]


@prepare_app.command()
def ixi(source: Source, output: Output, skip: Skip = False) -> None:
    """IXI T2 as the paper used it: the central 100 axial slices, split by patient."""
    from restore_rwkv.data.sources.ixi import prepare_ixi

    _run("volumes", lambda progress: prepare_ixi(source, output, skip=skip, progress=progress))


@prepare_app.command()
def aapm(
    source: Source,
    output: Output,
    thickness: Annotated[float, typer.Option(help="Of the slices, in mm: 3 or 1.")] = 3.0,
    validation: Annotated[
        list[str] | None, typer.Option(help="Patient for validation; may be repeated. L109.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="Patient for testing; may be repeated. L506.")
    ] = None,
    skip: Skip = False,
) -> None:
    """AAPM low-dose CT grand challenge: full and quarter dose, DICOM, paired by position."""
    from restore_rwkv.data.sources.aapm import prepare_aapm

    _run(
        "volumes",
        lambda progress: prepare_aapm(
            source,
            output,
            thickness=thickness,
            validation=validation or ("L109",),
            test=test or ("L506",),
            skip=skip,
            progress=progress,
        ),
    )


@prepare_app.command()
def release(source: Source, output: Output, skip: Skip = False) -> None:
    """The authors' preprocessed release; its pickles are read without running anything."""
    from restore_rwkv.data.sources.release import prepare_release

    _run("patients", lambda progress: prepare_release(source, output, skip=skip, progress=progress))


@prepare_app.command()
def folder(
    source: Source,
    output: Output,
    task: Annotated[str, typer.Option("--task", "-t", help="mri-sr, ct-denoise, pet-synth.")],
    factor: Annotated[
        float | None, typer.Option(help="Low quality: 4 is a quarter; the task's by default.")
    ] = None,
    seed: Seed = 0,
    validation: Annotated[float, typer.Option(help="Share of the patients.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the patients.")] = 0.1,
    planes: Annotated[
        Literal["task", "all"], typer.Option(help="MRI: task, or all with square pixels.")
    ] = "task",
    patient: Annotated[
        str | None, typer.Option(metavar="REGEX", help="What of a path names the patient.")
    ] = None,
    skip: Skip = False,
) -> None:
    """NIfTI and DICOM of your own: pairs in LQ and HQ, or good scans that are degraded."""
    from restore_rwkv.data.sources.folder import FolderOptions, prepare_folder

    options = FolderOptions(
        task,
        factor=factor,
        seed=seed,
        validation=validation,
        test=test,
        planes=planes,
        patient=patient,
    )
    _run(
        "volumes",
        lambda progress: prepare_folder(source, output, options, skip=skip, progress=progress),
    )


@prepare_app.command(name="open")
def open_(
    output: Output,
    scans: Annotated[
        Path | None, typer.Option(help="Folder with the scans, fetched before; works offline.")
    ] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Folder with the packages, downloaded before.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """The openly licensed scans that the shipped weights are made from; fetches packages."""
    from restore_rwkv.data.open_scans.sets import prepare_open

    _run(
        "steps",
        lambda progress: prepare_open(
            output, scans=scans, downloads=downloads, seed=seed, progress=progress
        ),
    )


@data_app.command()
def check(
    source: Annotated[
        Path, typer.Argument(metavar="SET", help="A prepared set, or a folder of sets.")
    ],
) -> None:
    """Hash every file of prepared sets, and look for patients in two splits."""
    from restore_rwkv.data.sources.jobs import check_sets

    _run("volumes", lambda progress: check_sets(source, progress=progress))


def _run(unit: str, prepare: Callable[[Progress | None], Report]) -> None:
    with progress_bar("reading", unit, quiet=False) as progress:
        report = prepare(progress)
    for line in report.lines():
        typer.echo(line)
