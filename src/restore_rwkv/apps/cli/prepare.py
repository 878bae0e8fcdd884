"""The commands `restore-rwkv data`: make prepared sets from each source, and check them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore_rwkv.apps.cli.options import Quiet, Seed, Task, Verbose
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say

if TYPE_CHECKING:
    from restore_rwkv.data.sources.jobs import Preparation
    from restore_rwkv.io import Progress

data_app = typer.Typer(
    help="Prepare data sets for training and evaluation, and check them.",
    rich_markup_mode=None,
)
prepare_app = typer.Typer(help="Make prepared sets from a source.", rich_markup_mode=None)
data_app.add_typer(prepare_app, name="prepare")

Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of the source.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to make; must not exist yet.")
]
Skip = Annotated[
    bool,
    typer.Option(
        "--skip-faulty", help="Leave faulty volumes out and list them, rather than refuse all."
    ),
]


@prepare_app.command()
def ixi(
    source: Source,
    output: Output,
    skip: Skip = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """IXI T2 as the paper used it: the central 100 axial slices, split by patient."""
    from restore_rwkv.data.sources.ixi import prepare_ixi

    _run("volumes", lambda progress: prepare_ixi(source, output, skip=skip, progress=progress))


@prepare_app.command()
def aapm(
    source: Source,
    output: Output,
    thickness: Annotated[float, typer.Option(metavar="MM", help="Slice thickness, 3 or 1.")] = 3.0,
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Patients for validation, one each; L109 by default."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="Patients for testing, one each; L506 by default."),
    ] = None,
    skip: Skip = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
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
    """The authors' preprocessed data; their pickle files are read without running code in them."""
    from restore_rwkv.data.sources.release import prepare_release

    _run("patients", lambda progress: prepare_release(source, output, skip=skip, progress=progress))


@prepare_app.command()
def folder(
    source: Source,
    output: Output,
    task: Annotated[Task, typer.Option("--task", "-t", help="Task that the set is for.")],
    factor: Annotated[
        float | None,
        typer.Option(help="How much less is measured, 4 for a quarter; the task's by default."),
    ] = None,
    seed: Seed = 0,
    validation: Annotated[float, typer.Option(help="Share of patients for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of patients for testing.")] = 0.1,
    planes: Annotated[
        Literal["task", "all"], typer.Option(help="all (MRI only): every plane with square pixels.")
    ] = "task",
    patient: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Part of the path that names the patient.")
    ] = None,
    skip: Skip = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Your own NIfTI and DICOM: pairs in folders LQ and HQ, or high-quality scans to degrade."""
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
        Path | None, typer.Option(help="Folder with scans fetched earlier; works offline.")
    ] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Folder with packages downloaded earlier.")
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The openly licensed scans that the shipped weights are trained on; downloads packages."""
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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Verify the hash of every file of prepared sets, and that no patient is in two splits."""
    from restore_rwkv.data.sources.jobs import check_sets

    _run("volumes", lambda progress: check_sets(source, progress=progress))


def _run(unit: str, prepare: Callable[[Progress | None], Preparation]) -> None:
    with progress_bar("reading", "reading", unit) as progress:
        report = prepare(progress)
    for line in report.lines():
        say(line)
