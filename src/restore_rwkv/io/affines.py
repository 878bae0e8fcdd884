"""Affines of grids: the checks that every image passes, and the way between LPS and RAS."""

from __future__ import annotations

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
