"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from restore_rwkv.apps.cli.terminal import screen

Task = Literal["mri-sr", "ct-denoise", "pet-synth"]  # as in `tasks.TASKS`, which a test compares

HIGHEST_SEED = 2**63 - 1


def _set_quiet(value: bool) -> bool:
    screen.quiet = value
    return value


def _set_verbose(value: bool) -> bool:
    screen.verbose = value
    return value


def _set_json(value: bool) -> bool:
    screen.as_json = value
    return value


OutputFile = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="OUT", help="File to write, such as out.nii.gz."),
]
TaskName = Annotated[
    Literal["auto", Task],
    typer.Option("--task", "-t", help="auto chooses by the modality of the scan."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda (or cuda:1, ...) or mps.")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Name of shipped weights, a weight file, or an exported network.", show_default=False
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", "-f", help="Replace existing outputs.")]
# These three act where they are read: they set what `terminal.screen` shows.
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Print errors only.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_set_verbose, help="Print also what is chosen."),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=_set_json, help="Print one JSON object on stdout, and no tables."
    ),
]
Series = Annotated[
    str | None,
    typer.Option(
        help="Number or UID of the series, if a DICOM folder has several.", show_default=False
    ),
]
Consistency = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="MRI: steps that keep the measured k-space; 5 by default (0 on a finer grid).",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Go on with an image that the weights are not for."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse an image also where it is only doubtful."),
]
Ensemble = Annotated[
    bool,
    typer.Option("--ensemble", help="Mean over 4 or 8 turns and mirrors: as many times the time."),
]
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="A",
        help="CT, PET: part of the correction to apply, 0 to 1; by default as calibrated, else 1.",
        show_default=False,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(metavar="F", help="MRI on its coarse native grid: restore on a grid finer by F."),
]
Plane = Annotated[
    Literal["auto", "axial", "coronal", "sagittal"], typer.Option(help="Slices to restore.")
]
ScalingName = Annotated[
    Literal["auto", "robust", "paper"],
    typer.Option("--scaling", help="paper is for data prepared as the paper's."),
]
UnitName = Annotated[
    Literal["auto", "SUV"],
    typer.Option("--unit", help="SUV for PET in SUV whose file does not say so."),
]
Factor = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="How much less was measured. MRI: full over measured extent of k-space, 4 by "
        "default. CT, PET: full over given dose; by default found from the noise.",
        show_default=False,
    ),
]
Report = Annotated[
    bool,
    typer.Option("--report", help="Write beside OUT what supports it: a page, and maps."),
]
Uncertainty = Annotated[
    Literal["none", "turns", "bootstrap"],
    typer.Option(
        help="Intervals of the report: by turns and mirrors, or by simulated noise (slow)."
    ),
]
Memory = Annotated[
    str, typer.Option(metavar="SIZE", help="Memory for the activations of the network.")
]
Dtype = Annotated[
    Literal["auto", "float32", "source"],
    typer.Option(help="Type of the output; source is the input's type, clipped."),
]
KeepNan = Annotated[
    bool, typer.Option("--keep-nan", help="Write NaN where the input has it outside the body.")
]
Seed = Annotated[int, typer.Option(min=0, max=HIGHEST_SEED, help="Seed of all random numbers.")]


def series_of(text: str | None) -> int | str | None:
    """Number of a series if the text is one, else its UID."""
    return int(text) if text and text.isdecimal() else text


def print_version(wanted: bool) -> None:
    """Print the versions that a report of a fault needs, and end the command."""
    if not wanted:
        return
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "is not installed"
    typer.echo(
        f"restore-rwkv {version('restore-rwkv')}, Python {platform.python_version()}, "
        f"PyTorch {torch}"
    )
    raise typer.Exit
