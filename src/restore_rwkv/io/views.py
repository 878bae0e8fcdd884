"""How a slice of a scan is laid out to be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.io.volume import Volume

_PLANES = ("sagittal", "coronal", "axial")  # perpendicular to the world axes x, y, z


@dataclass(frozen=True)
class View:
    """How a slice is laid out on a page.

    Attributes:
        plane: "axial", "coronal" or "sagittal"; empty for an image matrix.
        swapped: whether its rows become columns.
        flips: whether the displayed rows and columns run against those of the array.
        sides: length of the displayed image along its rows and its columns, in mm or voxels.
    """

    plane: str
    swapped: bool
    flips: tuple[bool, bool]
    sides: tuple[float, float]

    def laid_out(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a slice (H, W) as it is displayed."""
        image = image.T if self.swapped else image
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return image[rows, columns]

    def place(self, row: int, column: int, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the displayed row and column of a pixel of a slice of a shape (H, W)."""
        at, sizes = ((column, row), shape[::-1]) if self.swapped else ((row, column), shape)
        down, across = (
            size - 1 - index if flip else index
            for index, size, flip in zip(at, sizes, self.flips, strict=True)
        )
        return down, across


def view_of(volume: Volume, axis: int) -> View:
    """Return how slices across an array axis are shown, as radiologists expect them.

    Anterior or superior is up, the right of the patient on the left; sagittal slices look to the
    left. Without an affine, they are image matrices.
    """
    rows, columns = (other for other in range(3) if other != axis)
    shape, spacing = volume.data.shape, volume.spacing
    if volume.affine is None or spacing is None:
        return View("", False, (False, False), (shape[rows], shape[columns]))
    from nibabel.orientations import io_orientation

    # The world axis of each array axis, and whether it runs to the right, to the front, and up.
    orientation = io_orientation(volume.affine)
    world, sign = orientation[:, 0].astype(int), orientation[:, 1]
    swapped = bool(world[rows] < world[columns])
    if swapped:
        rows, columns = columns, rows
    return View(
        _PLANES[world[axis]],
        swapped,
        (bool(sign[rows] > 0), bool(sign[columns] > 0)),
        (shape[rows] * spacing[rows], shape[columns] * spacing[columns]),
    )
