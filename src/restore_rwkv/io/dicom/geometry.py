"""Geometry of a DICOM series: the regular grid of its slices, or an error that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.line import SAME_POSITION, Line, fit_line
from restore_rwkv.io.dicom.stacks import what_separates
from restore_rwkv.io.stored import Float64Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MOST_TILT = 40.0  # degrees: gantries tilt by 30; beyond, the slices do not lie above each other
_SAME_DIRECTION = 1e-4  # largest difference of direction cosines within one orientation
_LARGEST = 1 << 28  # pixels of a slice
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of a series.

    Attributes:
        order: Indices of the slices, sorted along the slice normal.
        affine: (4, 4), maps (column, row, slice) indices to mm in RAS+.
        rows: Number of rows of each slice.
        columns: Number of columns of each slice.
        tilt: Angle between the stack and the slice normal in degrees; 0.0 below `TILT_TOLERANCE`.
            With a tilt, the third column of the affine is not perpendicular to the other two.
    """

    order: tuple[int, ...]
    affine: Float64Array
    rows: int
    columns: int
    tilt: float = 0.0


def series_grid(slices: Sequence[Dataset], names: Sequence[str], where: str) -> Grid:
    """Find the regular grid of single-frame slices given in any order.

    The normal is the cross product of the row and the column direction, so the axes (column, row,
    slice) are right-handed in the patient. The third column of the affine is the step from the
    first to the last slice, divided; every slice lies on it within 2 % of the step, and what the
    rounding of the positions explains.

    Args:
        slices: Headers of one series, pixel data not needed.
        names: File name of each, for messages.
        where: Name of the folder, for messages.

    Raises:
        InputError: Sizes, spacings or orientations differ; slices are missing, duplicate, or do not
            lie on one regular line; the line is tilted by more than 40 degrees; or a header lacks
            the geometry.
    """
    (rows, columns), spacing, (row, column), positions = _planes(slices, names, where)
    line = fit_line(positions, np.cross(row, column))
    if not line.is_regular() or line.tilt() > _MOST_TILT:
        raise InputError(f"{where}: {_why_irregular(line, slices, names)}")
    affine = np.eye(4)
    affine[:3, 0] = row * spacing[1]  # PixelSpacing: distance of rows, then of columns
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = line.step if len(slices) > 1 else line.normal * _single_spacing(slices[0])
    affine[:3, 3] = line.positions[0]
    return Grid(tuple(line.order.tolist()), LPS_TO_RAS @ affine, rows, columns, line.tilt())


def _planes(
    slices: Sequence[Dataset], names: Sequence[str], where: str
) -> tuple[tuple[int, int], Float64Array, Float64Array, Float64Array]:
    """Return the size, spacing and directions (2, 3) of all slices, and their positions (N, 3)."""
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
    directions = orientations[0].reshape(2, 3)
    if (spacings[0] <= 0).any() or not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
        raise InputError(f"{names[0]}: PixelSpacing or ImageOrientationPatient is invalid; fix it")
    rows, columns = sizes[0].tolist()
    return (rows, columns), spacings[0], directions, positions


def _size(header: Dataset, name: str) -> tuple[int, int]:
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns:
        raise InputError(f"{name}: Rows or Columns is 0 or missing; export the file again")
    if int(rows) * int(columns) > _LARGEST:
        raise InputError(
            f"{name}: Rows x Columns is {rows} x {columns}, which no scanner makes; correct them"
        )
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


def _single_spacing(header: Dataset) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = header.get(keyword)
        if value is not None and float(value) > 0:
            return float(value)
    return 1.0


def _why_irregular(line: Line, slices: Sequence[Dataset], names: Sequence[str]) -> str:
    """Explain why positions are not a regular stack, and the remedy."""
    names = [names[i] for i in line.order]
    steps = line.gaps
    closest = int(np.argmin(steps))
    if steps[closest] < SAME_POSITION:
        pair = f"{names[closest]} and {names[closest + 1]} lie at the same position"
        difference = what_separates([slices[i] for i in line.order], line.positions, line.normal)
        if difference:
            return f"{pair}; {difference}: give one of them, in a folder or file of its own"
        return (
            f"{pair}; put each phase, echo or time point in its own folder, and remove duplicates"
        )
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    gaps = np.rint(steps / usual).astype(int) - 1
    wide = np.flatnonzero(gaps > 0)
    if 0 < wide.size <= len(steps) / 2:  # otherwise the wide step is the usual one
        return (
            f"{gaps[wide].sum()} slice(s) missing, the first between {names[wide[0]]} and "
            f"{names[wide[0] + 1]}; copy or export the whole series again"
        )
    if (tilt := line.tilt()) > _MOST_TILT:
        return (
            f"the slices are shifted sideways, by {tilt:.0f} degrees against their normal; they do "
            "not lie above each other, so give each as one file"
        )
    off = np.linalg.norm(line.departures, axis=1)
    worst = int(np.argmax(off))
    along = abs(float(line.departures[worst] @ line.normal))
    if along < off[worst] / 2:
        return (
            f"the slices are shifted sideways unevenly (the tilt varies), {names[worst]} lies "
            f"{off[worst]:.2f} mm off the straight line; resample the series first, dcm2niix can"
        )
    return (
        f"slice spacing varies from {steps.min():.3f} to {steps.max():.3f} mm, {names[worst]} lies "
        f"{off[worst]:.2f} mm off the regular line; resample the series to equal spacing first"
    )
