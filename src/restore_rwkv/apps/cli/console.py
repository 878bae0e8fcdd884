"""Tables that commands print, and the line of a training run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import typer

from restore_rwkv.apps.cli.terminal import screen

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.evaluation.metrics import MeanScore
    from restore_rwkv.training import Step


def training_report(iterations: int) -> Callable[[Step], None]:
    """Print one line per validation and, on a terminal, a line that is updated in place."""
    rate: list[float] = []
    waiting: list[float] = []
    terminal = sys.stdout.isatty()

    def report(step: Step) -> None:
        if not rate and step.iteration > 1:
            typer.echo(f"resuming from iteration {step.iteration - 1}")
        rate.append(step.seconds)
        waiting.append(step.waiting)
        left = (iterations - step.iteration) * sum(rate[-50:]) / len(rate[-50:]) / 60
        share = sum(waiting[-50:]) / len(waiting[-50:])
        line = (
            f"{step.iteration}/{iterations} loss {step.loss:.5f} "
            f"{left:.0f} min left, {share:.1%} waiting for data"
        )
        if step.validation is not None:
            line += f"  validation {step.validation.psnr:.3f} dB"
            gains = [
                f"{task} {gain:+.2f}"
                for task, gain in step.validation.gains.items()
                if gain is not None
            ]
            line += f" (over the input: {', '.join(gains)})"
            typer.echo(f"\r{line}" if terminal else line)
            screen.open_line = False
        elif terminal:
            typer.echo(f"\r{line}   ", nl=False)
            screen.open_line = True

    return report


def score_row(name: str, score: MeanScore) -> tuple[str, ...]:
    """Cells of a row with the mean score of an image."""
    slices = f"{score.slices}"
    if score.slices_without_score:
        slices += f" of {score.slices + score.slices_without_score}"
    if score.psnr is None:
        return (name, "none", "none", "none", slices)
    rmse = "none" if score.rmse is None else f"{score.rmse:.{2 if score.rmse >= 1 else 4}f}"
    return (name, f"{score.psnr:.2f}", f"{score.ssim:.4f}", rmse, slices)


def spread_table(name: str, spreads: Mapping[str, float]) -> Table:
    """Table of how much the attention of each block differs over an image."""
    table = plain_table("block", "attention over the image: sd / rms")
    table.title = name
    for block, spread in spreads.items():
        table.add_row(block, f"{spread:.4f}")
    return table


def plain_table(*columns: str) -> Table:
    """Empty table with these columns."""
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def yes_no(present: bool) -> str:
    """The word "yes" or "no"."""
    return "yes" if present else "no"
