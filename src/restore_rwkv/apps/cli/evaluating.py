"""The command evaluate."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import spread_table
from restore_rwkv.apps.cli.options import (
    Consistency,
    Device,
    Ensemble,
    Force,
    Json,
    Overwrite,
    Quiet,
    Seed,
    Strength,
    Strict,
    TaskName,
    Verbose,
)
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say, show, show_json
from restore_rwkv.errors import ConfigError

if TYPE_CHECKING:
    from restore_rwkv.io import Volume
    from restore_rwkv.restoration import RestoreOptions, Restorer

_WORDS = {"csv": "all values as CSV", "parquet": "all values as Parquet", "report": "the report"}


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN|SET|TRUTH...",
            help="High-quality scans, folders of prepared sets, or with --restored what images "
            "are compared with.",
        ),
    ],
    task: TaskName = "auto",
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Name of shipped weights, or a weight file; repeatable."),
    ] = None,
    restored: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FOLDER", help="Images restored by anything, of one method; repeatable."
        ),
    ] = None,
    low: Annotated[
        Path | None,
        typer.Option("--input", metavar="FOLDER", help="Their low-quality images."),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Part of the name that is the patient.")
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="paper by default; repeatable.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further measure, or all; repeatable."),
    ] = None,
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
    force: Force = False,
    strict: Strict = False,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose",
            help="Also print how much the attention differs over an image, block by block.",
        ),
    ] = False,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all values as CSV.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all values as Parquet.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report as one page of HTML.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="New folder for the computed images."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score images against the truth: means over patients, intervals, and tests between methods.

    Scans are degraded first, as by `degrade`; prepared sets come with their low-quality images; and
    images that are restored already are scored as they are.
    """
    spreads: list[tuple[str, dict[str, float]]] = []

    def inspect(name: str, low: Volume, restorer: Restorer, options: RestoreOptions) -> None:
        from restore_rwkv.evaluation import diagnose as measure_spread

        spreads.append((name, measure_spread(low, restorer, options)))

    with progress_bar("loading PyTorch", "restoring", "slices") as progress:
        from restore_rwkv.apps.cli.study_tables import study_tables
        from restore_rwkv.evaluation.study.files import PANELS, StudyFiles
        from restore_rwkv.evaluation.study.request import StudyRequest
        from restore_rwkv.evaluation.study.run import evaluate_study
        from restore_rwkv.evaluation.study.tables import study_values
        from restore_rwkv.restoration import RestoreOptions

        files = StudyFiles(csv=table, parquet=parquet, report=report, overwrite=overwrite)
        request = StudyRequest(
            truths=tuple(sources),
            restored=named_folders(restored or []),
            low=low,
            weights=tuple(weights or ()),
            task=task,
            patient=patient,
            protocols=tuple(protocol or ("paper",)),
            measures=tuple(measure or ()),
            split=split,
            axes=axes,
            seed=seed,
            device=device,
            options=RestoreOptions(
                consistency=consistency,
                ensemble=ensemble,
                strength=strength,
                force=force,
                strict=strict,
            ),
            keep=keep,
            panels=PANELS if report is not None else 0,
            command=shlex.join(["restore-rwkv", *sys.argv[1:]]),
        )
        files.check(request.inputs)
        with files.claimed():
            study = evaluate_study(
                request, inspect=inspect if diagnose else None, progress=progress
            )
            # Before the files, as the disk may be full.
            show(*study_tables(study), *(spread_table(*item) for item in spreads))
            files.write(study)
    for kind, path in files.paths.items():
        say(f"{path}: {_WORDS[kind]}")
    if keep is not None:
        say(f"{keep}: the computed images")
    if as_json:
        show_json(study_values(study) | ({"attention": dict(spreads)} if diagnose else {}))


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of `--restored` by the name of their method.

    What exists as it was typed is a folder, also with a "=" in its name.

    Raises:
        ConfigError: two methods have the same name.
    """
    from restore_rwkv.evaluation.study.naming import unique_names

    given: dict[str, Path] = {}
    unnamed: list[Path] = []
    for text in texts:
        name, sign, folder = text.partition("=")
        if os.path.exists(text) or not (sign and name and folder):
            unnamed.append(Path(text))
            continue
        if name in given:
            raise ConfigError(f"restored: {name!r} names two folders; give each a name of its own")
        given[name] = Path(folder)
    for name, path in zip(unique_names(unnamed), unnamed, strict=True):
        if name in given:
            raise ConfigError(f"restored: {name!r} names two folders; give each a name of its own")
        given[name] = path
    return given
