"""Masks of volumes, (X, Y, Z) bool: connected parts, balls that grow and shrink them, holes."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def largest(mask: Mask) -> Mask:
    """Largest connected part; an empty mask stays empty."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return cast(Mask, (labels == sizes.argmax()) & mask)


def eroded(mask: Mask, radius: float) -> Mask:
    """Mask without what lies within a ball of its outside; radius in voxels."""
    return cast(Mask, ndimage.distance_transform_edt(mask) > radius)


def dilated(mask: Mask, radius: float) -> Mask:
    """Mask and what lies within a ball of it; radius in voxels."""
    if not mask.any():  # distances to nothing are not defined
        return mask
    return cast(Mask, ndimage.distance_transform_edt(~mask) <= radius)


def closed(mask: Mask, radius: float) -> Mask:
    """Mask dilated, then eroded, as if the volume went on; radius in voxels."""
    margin = math.ceil(radius) + 1
    grown = dilated(np.pad(mask, margin), radius)
    inner = slice(margin, -margin)
    return eroded(grown, radius)[inner, inner, inner]


def filled(mask: Mask) -> Mask:
    """Mask without holes in any plane: sinuses and ears are open in 3-D, closed in most planes."""
    whole: Mask = mask.copy()
    for axis in range(3):
        for plane in np.moveaxis(whole, axis, 0):
            plane[...] = ndimage.binary_fill_holes(plane)
    return whole
