"""Operations on masks of volumes, (X, Y, Z) bool: components, erosion, dilation, filling."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def largest(mask: Mask) -> Mask:
    """Largest connected component; an empty mask stays empty."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return cast(Mask, (labels == sizes.argmax()) & mask)


def eroded(mask: Mask, radius: float) -> Mask:
    """Mask without the voxels within `radius` voxels of its outside."""
    return cast(Mask, ndimage.distance_transform_edt(mask) > radius)


def dilated(mask: Mask, radius: float) -> Mask:
    """Mask and all voxels within `radius` voxels of it."""
    if not mask.any():  # the distance to an empty mask is not defined
        return mask
    return cast(Mask, ndimage.distance_transform_edt(~mask) <= radius)


def closed(mask: Mask, radius: float) -> Mask:
    """Mask dilated, then eroded, as if the volume continued beyond its edges; radius in voxels."""
    margin = math.ceil(radius) + 1
    grown = dilated(np.pad(mask, margin), radius)
    inner = slice(margin, -margin)
    return eroded(grown, radius)[inner, inner, inner]


def filled(mask: Mask) -> Mask:
    """Mask with holes filled plane by plane: sinuses and ears are closed in most planes only."""
    whole: Mask = mask.copy()
    for axis in range(3):
        for plane in np.moveaxis(whole, axis, 0):
            plane[...] = ndimage.binary_fill_holes(plane)
    return whole
