"""The eight turns and mirrors of a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
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

    def turned(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a turned copy of an array of slices (..., H, W)."""
        image = np.flip(slices, tuple(self._axes))
        return np.array(image.swapaxes(-2, -1) if self.transposed else image, order="C")

    def turned_back(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a copy of an array of slices (..., H, W) turned back; the inverse of `turned`."""
        image = slices.swapaxes(-2, -1) if self.transposed else slices
        return np.array(np.flip(image, tuple(self._axes)), order="C")

    def factor(self, factor: float | tuple[float, float]) -> float | tuple[float, float]:
        """Return a factor for both axes or for each, for turned slices."""
        if isinstance(factor, tuple) and self.transposed:
            return factor[1], factor[0]
        return factor

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
