"""Where the slices of a derived series lie: as in the source, or finer over the same field.

The grid is kept by leaving every element of the source as it is, so that each slice keeps its own
position to the last digit, in a tilted stack too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.geometry import LPS_TO_RAS
from restore_rwkv.io.stored import Float64Array
from restore_rwkv.io.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DSfloat

# A file's position may depart so far from the regular grid of the volume: rounding to 0.1 mm, and a
# part of the distance of the slices, as the reader accepts.
_ROUNDING = 0.18  # mm, along all three axes
_UNEVENNESS = 0.02

# Other statements of the size of a pixel, which a finer grid would make wrong.
SIZES = ("ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


@dataclass(frozen=True, eq=False)
class Place:
    """Where a slice lies.

    Attributes:
        position: Of the centre of the first pixel, (3,), mm in LPS.
        row: Unit vector along a row of pixels, (3,).
        column: Unit vector down a column, (3,).
        spacing: Distance between rows, then between columns, in mm.
        size: Rows and columns.
    """

    position: Float64Array
    row: Float64Array
    column: Float64Array
    spacing: tuple[float, float]
    size: tuple[int, int]

    def at(self, column: float, row: float) -> Float64Array:
        """Position of a pixel by its indices, in mm in LPS."""
        offset: Float64Array = (
            self.row * self.spacing[1] * column + self.column * self.spacing[0] * row
        )
        return self.position + offset


def place_of(header: Dataset, position: Dataset, orientation: Dataset, measures: Dataset) -> Place:
    """Return where a slice lies, from the data sets that have its elements.

    Args:
        header: Has Rows and Columns.
        position: Has ImagePositionPatient.
        orientation: Has ImageOrientationPatient.
        measures: Has PixelSpacing.
    """
    axes = np.array(orientation.ImageOrientationPatient, np.float64).reshape(2, 3)
    between_rows, between_columns = (float(length) for length in measures.PixelSpacing)
    return Place(
        np.array(position.ImagePositionPatient, np.float64),
        axes[0],
        axes[1],
        (between_rows, between_columns),
        (int(header.Rows), int(header.Columns)),
    )


def is_finer(volume: Volume, place: Place) -> bool:
    """Whether the slices of a volume have other numbers of rows or columns than the source's."""
    rows, columns = place.size
    return volume.data.shape[:2] != (columns, rows)


def check_places(volume: Volume, places: Sequence[Place]) -> None:
    """Check that a volume covers the slices of its source: on their grid, or on a finer one.

    Both grids have the same outer edges, so the corners of each slice are compared.

    Args:
        volume: The volume, with an affine.
        places: Where the slices of the source lie, in the order of the volume's.

    Raises:
        InputError: There are other slices, coarser ones, or they lie elsewhere.
    """
    x, y, slices = volume.data.shape
    if slices != len(places):
        raise InputError(
            f"{volume.name}: the volume has {slices} slices and its DICOM source {len(places)}; "
            "a derived series has those of its source, write .nii.gz"
        )
    affine = LPS_TO_RAS @ np.asarray(volume.affine)
    allowed = _ROUNDING + _UNEVENNESS * float(np.linalg.norm(affine[:3, 2]))
    for k, place in enumerate(places):
        rows, columns = place.size
        if x < columns or y < rows:
            raise InputError(
                f"{volume.name}: slices of {y} x {x} pixels are coarser than the source's "
                f"{rows} x {columns}; write .nii.gz"
            )
        for right in (0, 1):
            for down in (0, 1):
                there = place.at(right * columns - 0.5, down * rows - 0.5)
                here = affine @ [right * x - 0.5, down * y - 0.5, k, 1.0]
                away = float(np.linalg.norm(here[:3] - there))
                if away > allowed:
                    raise InputError(
                        f"{volume.name}: slice {k} lies {away:.3g} mm from that of its DICOM "
                        "source; a derived series keeps its place, write .nii.gz"
                    )


def finer_spacing(place: Place, shape: tuple[int, ...]) -> list[DSfloat]:
    """PixelSpacing of a finer grid, (X, Y, ...), over the same field as a source's slice."""
    rows, columns = place.size
    return [
        _decimal(place.spacing[0] * (rows / shape[1])),
        _decimal(place.spacing[1] * (columns / shape[0])),
    ]


def finer_position(place: Place, shape: tuple[int, ...]) -> list[DSfloat]:
    """ImagePositionPatient of a finer grid: the first centre moves by ``(1/f - 1)/2`` pixels."""
    rows, columns = place.size
    position = place.at((columns / shape[0] - 1) / 2, (rows / shape[1] - 1) / 2)
    return [_decimal(float(x)) for x in position]


def set_finer_grid(dataset: Dataset, place: Place, shape: tuple[int, ...]) -> None:
    """Change those elements of a data set that state the grid of a source's slice.

    Args:
        dataset: Header of a classic image, or an item of the functional groups of a frame.
        place: Where the slice lies in the source.
        shape: (X, Y, ...) of the finer grid.
    """
    if "PixelSpacing" in dataset:
        dataset.PixelSpacing = finer_spacing(place, shape)
    if "ImagePositionPatient" in dataset:
        dataset.ImagePositionPatient = finer_position(place, shape)
    for keyword in SIZES:
        if keyword in dataset:
            delattr(dataset, keyword)


def _decimal(number: float) -> DSfloat:
    from pydicom.valuerep import DSfloat

    return DSfloat(number, auto_format=True)
