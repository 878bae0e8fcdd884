"""The eight turns and mirrors of a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Turn(NamedTuple):
    """A turn or mirror image of a slice: mirrored along its axes, then transposed.

    Attributes:
        rows: whether the order of the rows is reversed.
        columns: whether the order of the columns is reversed.
        transposed: whether rows become columns.
    """

    rows: bool
    columns: bool
    transposed: bool

    def apply(self, images: Tensor) -> Tensor:
        """Turn images (..., H, W)."""
        images = images.flip(self._axes)
        return images.transpose(-2, -1) if self.transposed else images

    def undo(self, images: Tensor) -> Tensor:
        """Turn images back; the inverse of `apply`."""
        images = images.transpose(-2, -1) if self.transposed else images
        return images.flip(self._axes)

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, mirrored in ((-2, self.rows), (-1, self.columns)) if mirrored]


TURNS = tuple(
    Turn(rows, columns, transposed)
    for transposed in (False, True)
    for rows in (False, True)
    for columns in (False, True)
)
"""All eight, the slice as it is first."""
