"""Voxels without a value: NaN that SPM, FSL and others write outside the brain."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError

_log = logging.getLogger(__name__)
_SHORT = 8
"""Axes of fewer voxels have no inside: in a stack of four slices half of them lie at the border."""

Mask = npt.NDArray[np.bool_]


def fill_missing(
    values: npt.NDArray[np.generic], where: str
) -> tuple[npt.NDArray[Any], Mask | None]:
    """Replace NaN outside the body by a value that does not stand out.

    Each connected region of NaN has to reach the border of the image: NaN inside the body is
    damage, or a choice that only its author can judge. The value is 0, or the smallest of the image
    where 0 is outside its range.

    Args:
        values: (X, Y, Z), real numbers.
        where: Name of the image, for messages.

    Returns:
        The filled values and where they were NaN (X, Y, Z). The values as they are and None where
        there is no NaN, or where there is infinity or nothing else, which `Volume` refuses.

    Raises:
        InputError: A region of NaN does not reach the border.
    """
    if values.dtype.kind != "f":
        return values, None
    floats: npt.NDArray[Any] = values
    if all(np.isfinite(floats[..., k]).all() for k in range(floats.shape[-1])):
        return values, None
    missing: Mask = np.isnan(floats)
    numbers = floats[~missing]
    if not numbers.size or not np.isfinite(numbers).all():
        return values, None
    first = _first_inside(missing)
    if first is not None:
        raise InputError(
            f"{where}: voxels inside the image are not finite (NaN), the first at {first}; only "
            "NaN that reaches the border is filled, replace the others"
        )
    low, high = numbers.min(), numbers.max()
    filled = values.copy(order="K")
    filled[missing] = 0 if low <= 0 <= high else low
    _log.warning(
        "%s: %d voxels without a value (NaN, outside the body) were set to %g",
        *(where, np.count_nonzero(missing), 0 if low <= 0 <= high else low),
    )
    return filled, missing


def _first_inside(missing: Mask) -> tuple[int, ...] | None:
    """First voxel of a region that does not reach the border, None if all do."""
    from scipy import ndimage

    labels, count = ndimage.label(missing, structure=np.ones((3, 3, 3)))
    longest = max(missing.shape)
    at_border = np.zeros(count + 1, bool)
    at_border[0] = True  # voxels with values
    for axis, length in enumerate(missing.shape):
        if length >= min(_SHORT, longest):
            for face in (0, -1):
                at_border[np.unique(labels.take(face, axis))] = True
    if at_border.all():
        return None
    return tuple(int(i) for i in np.argwhere(~at_border[labels])[0])


def resampled_mask(
    missing: Mask, indices: npt.NDArray[np.floating[Any]], shape: tuple[int, ...]
) -> Mask:
    """Return the mask on another grid, by nearest neighbour.

    Args:
        missing: (X, Y, Z).
        indices: (4, 4), voxel indices of the other grid to those of the mask.
        shape: (X, Y, Z) of the other grid.
    """
    from scipy import ndimage

    moved = ndimage.affine_transform(
        *(missing.astype(np.uint8), indices[:3, :3], indices[:3, 3], shape),
        order=0,
        mode="nearest",
    )
    result: Mask = moved.astype(bool)
    return result
