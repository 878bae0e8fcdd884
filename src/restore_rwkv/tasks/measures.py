"""Measures of an image that tell whether it is of the kind that weights were trained for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a measure of an image is compared with its range in the training of the weights.

    Attributes:
        title: what is measured, as the subject of a sentence.
        margin: how far outside the range a value may lie: as a factor, or for `differences` as a
            number.
        low: what a smaller value means, and the remedy; None where it means nothing.
        high: what a larger value means, and the remedy; None where it means nothing.
        far: factor above the range from which an image is unfit, not only doubtful; None for never.
        differences: whether values are compared by their difference, not by their ratio.
        percent: whether values are shares, to be shown in percent.
    """

    title: str
    margin: float
    low: str | None = None
    high: str | None = None
    far: float | None = None
    differences: bool = False
    percent: bool = False

    def limits(self, known: tuple[float, float]) -> tuple[float, float]:
        """Return the smallest and the largest value that count as known, from a range."""
        low, high = known
        if self.differences:
            return low - self.margin, high + self.margin
        return low / self.margin, high * self.margin

    def shown(self, value: float) -> str:
        """Return a value as text."""
        return f"{100 * value:.2g} %" if self.percent else f"{value:.3g}"
