"""The command evaluate, and its scores as a table, JSON or CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restore_rwkv.apps.cli.console import plain_table, score_row, spread_table
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
    Weights,
)
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.evaluation.metrics import MeanScore
    from restore_rwkv.io import Volume
    from restore_rwkv.restoration import RestoreOptions, Restorer


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
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the scores to a CSV file."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score restored images against the low-quality input, by the paper's protocol.

    Scans are degraded first, as by `degrade`; prepared sets come with their low-quality images.
    """
    spreads: list[tuple[str, dict[str, float]]] = []
    rows: list[ScoreRow] = []

    def inspect(name: str, low: Volume, restorer: Restorer, options: RestoreOptions) -> None:
        from restore_rwkv.evaluation import diagnose as measure_spread

        spreads.append((name, measure_spread(low, restorer, options)))

    try:
        with progress_bar("loading PyTorch", "restoring", "slices") as progress:
            from restore_rwkv.evaluation.paths import evaluate_paths
            from restore_rwkv.io.files import check_writable
            from restore_rwkv.restoration import RestoreOptions

            if table is not None:
                check_writable(table, overwrite=overwrite)
            for name, scores in evaluate_paths(
                sources,
                task=task,
                weights=weights,
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
                inspect=inspect if diagnose else None,
                progress=progress,
            ):
                rows += score_rows(name, scores)
    finally:
        if rows:  # also where a later scan fails
            show(score_table(rows, "scan or patient"), *(spread_table(*item) for item in spreads))
    if table is not None:
        write_csv(table, rows)
        say(f"{table}: the scores as CSV")
    if as_json:
        show_json(scores_as_json(rows) | ({"attention": dict(spreads)} if diagnose else {}))


@dataclass(frozen=True)
class ScoreRow:
    """Mean score of one image of one scan or patient.

    Attributes:
        name: of the scan or patient, or which mean it is.
        image: "input", "restored" and others.
        score: mean over the slices.
    """

    name: str
    image: str
    score: MeanScore

    def values(self) -> dict[str, Any]:
        """Return the row as plain values, for JSON and CSV."""
        score = self.score
        return {
            "name": self.name,
            "image": self.image,
            "psnr_db": score.psnr,
            "ssim": score.ssim,
            "rmse": score.rmse,
            "slices": score.slices,
            "slices_without_score": score.slices_without_score,
        }


def score_rows(name: str, scores: dict[str, MeanScore]) -> list[ScoreRow]:
    """Return the rows of one scan or patient."""
    return [ScoreRow(name, image, score) for image, score in scores.items()]


def score_table(rows: Sequence[ScoreRow], first: str = "") -> Table:
    """Return rows as a table titled with their protocol, names in a column titled `first`.

    Names are told once for their rows, and are broken rather than cut where space lacks, as those
    of many scans differ at their ends only. Without a title there is no column of names.
    """
    from restore_rwkv.evaluation.metrics import PAPER_PROTOCOL

    names = (first,) if first else ()
    table = plain_table(*names, "image", "PSNR dB", "SSIM", "RMSE", "slices")
    table.title = f"means over slices, {PAPER_PROTOCOL} protocol"
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", column.header != first
    before = None
    for row in rows:
        shown = (row.name if row.name != before else "",) if first else ()
        table.add_row(*shown, *score_row(row.image, row.score))
        before = row.name
    return table


def scores_as_json(rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """Return rows as one plain value."""
    from restore_rwkv.evaluation.metrics import PAPER_PROTOCOL

    return {"protocol": PAPER_PROTOCOL, "scores": [row.values() for row in rows]}


def write_csv(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write rows to a CSV file with a header, whole or not at all; its folder is made."""
    from restore_rwkv.io import atomic_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0].values()))
        writer.writeheader()
        writer.writerows(row.values() for row in rows)
