"""Geometry of a DICOM series: the regular grid of its slices, or an error that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.stored import Float64Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Positions are often rounded to 0.1 mm, so 7 mm steps vary by 1 %. A missing slice is 100 %.
SPACING_TOLERANCE = 0.02
# 1 - cosine of the angle between the stack and the slice normal: 2.6 degrees. A smaller shear is
# kept exactly, because the affine steps from the first to the last position given in the files.
TILT_TOLERANCE = 1e-3
_SAME_POSITION = 1e-3  # mm
_SAME_DIRECTION = 1e-4  # largest difference of direction cosines within one orientation
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of a series.

    Attributes:
        order: Indices of the slices, sorted along the slice normal.
        affine: (4, 4), maps (column, row, slice) indices to mm in RAS+.
        rows: Number of rows of each slice.
        columns: Number of columns of each slice.
    """

    order: tuple[int, ...]
    affine: Float64Array
    rows: int
    columns: int


def series_grid(slices: Sequence[Dataset], names: Sequence[str], where: str) -> Grid:
    """Find the regular grid of single-frame slices given in any order.

    The normal is the cross product of the row and the column direction, so the axes (column, row,
    slice) are right-handed in the patient.

    Args:
        slices: Headers of one series, pixel data not needed.
        names: File name of each, for messages.
        where: Name of the folder, for messages.

    Raises:
        InputError: Sizes, spacings or orientations differ; slices are missing, duplicate, unequally
            spaced or tilted against their stack; or a header lacks the geometry.
    """
    from highdicom.spatial import get_volume_positions

    sizes = np.array([_size(header, name) for header, name in zip(slices, names, strict=True)])
    spacings = _stack(slices, names, "PixelSpacing", 2)
    orientations = _stack(slices, names, "ImageOrientationPatient", 6)
    positions = _stack(slices, names, "ImagePositionPatient", 3)
    if len({str(header.get("FrameOfReferenceUID") or "") for header in slices}) > 1:
        raise InputError(
            f"{where}: the slices have several frames of reference, so their positions cannot be "
            "compared; put each acquisition in its own folder"
        )
    _require_equal(sizes, 0.0, "sizes (rows, columns)", names, where)
    _require_equal(spacings, 1e-4, "pixel spacings", names, where)
    _require_equal(orientations, _SAME_DIRECTION, "orientations", names, where)
    row, column = orientations[0, :3], orientations[0, 3:]
    directions = np.stack([row, column])
    if (spacings[0] <= 0).any() or not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
        raise InputError(f"{names[0]}: PixelSpacing or ImageOrientationPatient is invalid; fix it")
    normal = np.cross(row, column)
    distances = positions @ normal
    order = np.argsort(distances, kind="stable")
    spacing, _ = get_volume_positions(
        positions.tolist(),
        orientations[0].tolist(),
        rtol=SPACING_TOLERANCE,
        perpendicular_tol=TILT_TOLERANCE,
    )
    if spacing is None:
        raise InputError(f"{where}: {_why_irregular(positions[order], normal, names, order)}")
    step = normal * _single_slice_spacing(slices[0])
    if len(slices) > 1:
        step = (positions[order[-1]] - positions[order[0]]) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0] = row * spacings[0, 1]  # PixelSpacing: distance of rows, then of columns
    affine[:3, 1] = column * spacings[0, 0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[order[0]]
    rows, columns = sizes[0].tolist()
    return Grid(tuple(order.tolist()), LPS_TO_RAS @ affine, rows, columns)


def _size(header: Dataset, name: str) -> tuple[int, int]:
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns:
        raise InputError(f"{name}: Rows or Columns is 0 or missing; export the file again")
    return int(rows), int(columns)


def _stack(
    slices: Sequence[Dataset], names: Sequence[str], keyword: str, count: int
) -> Float64Array:
    """Return one row of numbers for each slice."""
    values = np.empty((len(slices), count))
    for i, header in enumerate(slices):
        numbers = header.get(keyword)
        try:
            values[i] = [float(number) for number in numbers or ()]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{names[i]}: {keyword} is missing or not {count} numbers; "
                "export the series with its geometry"
            ) from error
    if not np.isfinite(values).all():
        raise InputError(f"{names[0]}: {keyword} is not finite; export the series again")
    return values


def _require_equal(
    values: Float64Array, tolerance: float, what: str, names: Sequence[str], where: str
) -> None:
    different = np.flatnonzero(np.abs(values - values[0]).max(axis=1) > tolerance)
    if different.size:
        i = int(different[0])
        raise InputError(
            f"{where}: {what} differ, {names[0]} has {_short(values[0])} and {names[i]} has "
            f"{_short(values[i])}; put each kind of image (localizers too) in its own folder"
        )


def _short(values: Float64Array) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _single_slice_spacing(header: Dataset) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = header.get(keyword)
        if value is not None and float(value) > 0:
            return float(value)
    return 1.0


def _why_irregular(
    positions: Float64Array,
    normal: Float64Array,
    names: Sequence[str],
    order: npt.NDArray[np.intp],
) -> str:
    """Explain why sorted positions are not a regular stack, and the remedy."""
    sorted_names = [names[int(i)] for i in order]
    steps = np.diff(positions @ normal)
    closest = int(np.argmin(steps))
    if steps[closest] < _SAME_POSITION:
        return (
            f"{sorted_names[closest]} and {sorted_names[closest + 1]} lie at the same position; "
            "put each phase, echo or time point in its own folder, and remove duplicates"
        )
    span = positions[-1] - positions[0]
    cosine = min(1.0, float(span @ normal / np.linalg.norm(span)))
    if 1.0 - cosine >= TILT_TOLERANCE:
        return (
            f"the stack is tilted against its slices by {np.degrees(np.arccos(cosine)):.1f} "
            "degrees (gantry tilt); resample it to an upright grid first, dcm2niix can"
        )
    gaps = np.rint(steps / steps.min()).astype(int) - 1
    wide = np.flatnonzero(gaps)
    if 0 < wide.size <= len(steps) / 2:  # otherwise the wide step is the usual one
        return (
            f"{gaps.sum()} slice(s) missing, the first between {sorted_names[wide[0]]} and "
            f"{sorted_names[wide[0] + 1]}; copy or export the whole series again"
        )
    return (
        f"slice spacing varies from {steps.min():.3f} to {steps.max():.3f} mm; "
        "resample the series to equal spacing first"
    )
