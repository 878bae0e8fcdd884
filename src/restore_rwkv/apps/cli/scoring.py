"""Mean scores of the images of one scan as a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restore_rwkv.apps.cli.console import plain_table, score_row

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.evaluation.metrics import MeanScore


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
