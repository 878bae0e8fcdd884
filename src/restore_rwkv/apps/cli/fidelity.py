"""The command fidelity: what supports an image that was restored by anything."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.options import (
    Factor,
    Json,
    Overwrite,
    Plane,
    Quiet,
    Seed,
    Series,
    TaskName,
    Verbose,
    Weights,
    series_of,
)
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.evaluation.fidelity import Fidelity, Figure, Place, ReportFiles


def fidelity(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The scan that was restored.")],
    image: Annotated[
        Path, typer.Argument(metavar="OUT", help="The restored image, by anything, on its grid.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="REPORT",
            help="Page to write; OUT.fidelity.html by default. Numbers and maps come beside it.",
            show_default=False,
        ),
    ] = None,
    task: TaskName = "auto",
    weights: Weights = None,
    factor: Factor = None,
    plane: Plane = "auto",
    series: Series = None,
    restored_series: Annotated[
        str | None, typer.Option(help="The same for OUT.", show_default=False)
    ] = None,
    volume: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Which volume of 4-D images, from 0.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where unit or orientation seem to differ.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Hold a restored image against its scan: what was measured, inferred, removed or added.

    What an image of `restore` needs is in the record beside it.
    """
    with progress_bar(f"reading {source.name}", "measuring", "steps") as progress:
        from restore_rwkv.evaluation.fidelity import (
            FidelityOptions,
            default_page,
            fidelity_of_files,
            fidelity_values,
        )

        options = FidelityOptions(
            task=task,
            weights=weights,
            factor=factor,
            plane=plane,
            series=series_of(series),
            restored_series=series_of(restored_series),
            volume=volume,
            force=force,
            seed=seed,
            command=shlex.join(["restore-rwkv", *sys.argv[1:]]),
        )
        page = default_page(image) if output is None else output
        found, files = fidelity_of_files(
            source, image, options, output=page, overwrite=overwrite, progress=progress
        )
    show_fidelity(found)
    if files is not None:
        for path, what in written(found, files).items():
            say(f"{path}: {what}")
    if as_json:
        paths = {} if files is None else report_paths(files)
        show_json(fidelity_values(found, files) | paths)


def show_fidelity(fidelity: Fidelity) -> None:
    """Print verdict, figures and places of a report."""
    say(fidelity.verdict)
    if fidelity.figures:
        show(_figures(fidelity.figures))
    if fidelity.places:
        show(_places(fidelity))


def written(fidelity: Fidelity, files: ReportFiles) -> dict[str, str]:
    """Return what each file of a report is, by its path."""
    titles = {each.name: each.title for each in fidelity.maps}
    names = {str(files.page): "the report"}
    names |= {str(path): f"map, {titles[name]}" for name, path in files.maps.items()}
    return names if files.numbers is None else {**names, str(files.numbers): "all numbers"}


def report_paths(files: ReportFiles) -> dict[str, Any]:
    """Return where the files of a report lie, for JSON."""
    paths = {"report_path": str(files.page)}
    if files.numbers is not None:
        paths["numbers_path"] = str(files.numbers)
    return paths | {"map_paths": {name: str(path) for name, path in files.maps.items()}}


def _figures(figures: tuple[Figure, ...]) -> Table:
    table = plain_table("figure", "value", "a faithful image has", "support")
    table.title = "What the image is held against"
    for figure in figures:
        table.add_row(figure.title, _value(figure), figure.expected, figure.support)
    _fold(table, "figure", "value", "a faithful image has")
    return table


def _places(fidelity: Fidelity) -> Table:
    table = plain_table("voxel", "mm, RAS+", "score", "beyond", "what is there")
    table.title = "Where to look first"
    table.caption = fidelity.places_by
    table.caption_justify = "left"
    for place in fidelity.places:
        table.add_row(
            " ".join(map(str, place.index)),
            _world(place),
            f"{place.score:+.2f}",
            "yes" if place.flagged else "no",
            place.says,
        )
    _fold(table, "what is there")
    return table


def _value(figure: Figure) -> str:
    if figure.value is None:
        return f"none: {figure.reason}"
    return f"{figure.value:.4g} {figure.unit}".rstrip()


def _world(place: Place) -> str:
    return "none" if place.world is None else " ".join(f"{x:.1f}" for x in place.world)


def _fold(table: Table, *names: str) -> None:
    """Break texts rather than cut them."""
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.header not in names
