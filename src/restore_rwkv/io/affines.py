"""Affines of grids: checks, the way between LPS and RAS, other grids, and anatomical planes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.stored import Float64Array

LPS_TO_RAS: Float64Array = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the world of DICOM, ITK and NRRD (x left, y back) to that of NIfTI; its own inverse."""

# No scanner comes near these bounds: 10 nm is finer than light microscopes resolve. The upper ones
# leave room for a header whose unit says metres where millimetres are meant.
FINEST, COARSEST = 1e-5, 1e5
FARTHEST = 1e7
"""Bounds of the spacing, and of the position of the first voxel, in mm."""

Plane = Literal["axial", "coronal", "sagittal"]

# The world axis (0 right, 1 anterior, 2 superior) that each plane is perpendicular to.
_NORMAL_OF_PLANE = {"sagittal": 0, "coronal": 1, "axial": 2}
# World axis and sign of each direction: R(ight), L(eft), A(nterior), P(osterior), S(up.), I(nf.).
_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}

_SHEAR = 1e-3
"""Cosine of the angle between two axes above which a grid counts as sheared, about 0.06 degrees."""


def check_spacing(spacing: npt.ArrayLike, where: str) -> None:
    """Check the distances between voxel centres in mm.

    Raises:
        InputError: One is 0, not finite, or impossible.
    """
    for axis, length in enumerate(np.atleast_1d(np.asarray(spacing, np.float64)).tolist()):
        if not FINEST <= length <= COARSEST:
            raise InputError(
                f"{where}: spacing is {length:g} mm on axis {axis}, which no scanner makes; "
                "correct the header"
            )


def checked_affine(affine: npt.ArrayLike, where: str) -> Float64Array:
    """Return an affine as a read-only array.

    Raises:
        InputError: It is not 4 x 4, finite and invertible, or its spacing or position is
            impossible.
    """
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise InputError(f"{where}: the affine is not a 4 x 4 matrix ending in 0 0 0 1; correct it")
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: the affine holds NaN or infinity; correct the header")
    # Scaled by the spacing, so that thin voxels are not mistaken for flat ones.
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths == 0).any() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise InputError(f"{where}: the affine is singular; correct the header")
    check_spacing(lengths, where)
    if np.abs(matrix[:3, 3]).max() > FARTHEST:
        raise InputError(
            f"{where}: its first voxel is {np.abs(matrix[:3, 3]).max():g} mm from the origin, "
            "which no scanner makes; correct the header"
        )
    matrix.flags.writeable = False
    return matrix


def affine_of_columns(
    columns: npt.ArrayLike, origin: npt.ArrayLike, to_ras: Float64Array = LPS_TO_RAS
) -> Float64Array:
    """Return the affine of a grid given in another world.

    Args:
        columns: (3, 3); column k is the step in mm from a voxel to the next along array axis k.
        origin: (3,), centre of the first voxel in mm.
        to_ras: (4, 4), from that world to RAS+.

    Returns:
        (4, 4), voxel indices to mm in RAS+.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = to_ras[:3, :3] @ np.asarray(columns, np.float64)
    matrix[:3, 3] = to_ras[:3, :3] @ np.asarray(origin, np.float64)
    return matrix


def columns_in_lps(affine: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the steps (3, 3, one column for each array axis) and the first voxel in LPS, in mm."""
    matrix = LPS_TO_RAS @ affine
    return matrix[:3, :3], matrix[:3, 3]


def is_sheared(affine: Float64Array) -> bool:
    """Whether the axes of a grid are not perpendicular to each other."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR)


def same_field_of_view(
    affine: Float64Array, shape: tuple[int, ...], matrix: tuple[int, ...]
) -> Float64Array:
    """Return the affine of a grid of another size with the same outer edges as a given grid.

    Spacings become ``old * n / m``. Edges lie half a voxel outside the first and the last centre,
    so the first centre moves by ``(n / m - 1) / 2`` old voxels along each axis.

    Args:
        affine: (4, 4), voxel indices of the given grid to mm.
        shape: (X, Y, Z) of the given grid.
        matrix: (X, Y, Z) of the other grid.
    """
    step = np.array(shape) / np.array(matrix)
    indices = np.diag([*step, 1.0])  # of the given grid, from those of the other
    indices[:3, 3] = (step - 1) / 2
    result: Float64Array = affine @ indices
    return result


def plane_axis(affine: Float64Array, plane: Plane) -> int:
    """Return the array axis that is perpendicular to an anatomical plane.

    For oblique scans it is the axis closest to the normal of the plane; the three planes have three
    different axes.

    Args:
        affine: (4, 4), voxel indices to mm in RAS+.
        plane: "axial", "coronal" or "sagittal".

    Returns:
        0, 1 or 2.

    Raises:
        InputError: The name of the plane is unknown.
    """
    from nibabel.orientations import io_orientation

    if plane not in _NORMAL_OF_PLANE:
        raise InputError(f"plane {plane!r} is unknown; use axial, coronal or sagittal")
    world_axis_of = io_orientation(affine)[:, 0].astype(int).tolist()
    return int(world_axis_of.index(_NORMAL_OF_PLANE[plane]))


def affine_of_axes(
    axes: str, shape: tuple[int, ...], spacing: tuple[float, float, float]
) -> Float64Array:
    """Return the affine of a grid whose axes run in named directions, its centre at the origin.

    Args:
        axes: The direction in which each array axis runs, one letter an axis: one of R and L, one
            of A and P, one of S and I. "PIR" is to the back, down, and to the right.
        shape: (X, Y, Z).
        spacing: Distance between voxel centres along each array axis in mm.

    Returns:
        (4, 4), voxel indices to mm in RAS+.

    Raises:
        InputError: ``axes`` does not name one direction along each world axis.

    Example:
        >>> affine_of_axes("LAS", (3, 3, 1), (2.0, 2.0, 5.0)).tolist()[0]
        [-2.0, 0.0, 0.0, 2.0]
    """
    if len(axes) != 3 or sorted(_DIRECTIONS.get(a, (3, 0))[0] for a in axes) != [0, 1, 2]:
        raise InputError(f"axes is {axes!r}; give one of R L, one of A P, one of S I, as 'PIR'")
    affine = np.zeros((4, 4))
    for axis, letter in enumerate(axes):
        world, sign = _DIRECTIONS[letter]
        affine[world, axis] = sign * spacing[axis]
    affine[:3, 3] = affine[:3, :3] @ ((1 - np.array(shape)) / 2)
    affine[3, 3] = 1
    return affine


def acquisition_axis(spacing: tuple[float, float, float]) -> int:
    """Array axis across the plane of finest spacing; the last of those equal within 1 %."""
    return max(axis for axis in range(3) if spacing[axis] >= 0.99 * max(spacing))
