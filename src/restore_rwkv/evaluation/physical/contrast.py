"""Contrast of a region over the noise beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError

_FEWEST = 2  # pixels with which a standard deviation exists
_NO_NOISE = 1e-6  # of the largest value; the rounding of float32


def contrast_to_noise(
    image: ArrayLike, inside: NDArray[np.generic], outside: NDArray[np.generic]
) -> float:
    """Return the contrast-to-noise ratio of a region, without unit, 0 or more.

        CNR = abs(mean(inside) - mean(outside)) / sd(outside)

    (as in Verdun et al., Phys Med 31:823, 2015; others divide by the noise of both regions). It is
    never negative, so that noise raises the mean of small ones over images. It is blind to the
    texture of the noise and to sharpness: any smoothing raises it, whether or not the region
    becomes easier to see. That is what `hotelling_observer` is for.

    Args:
        image: of any shape.
        inside: where the region is, equal in shape: bool, or 0 and 1.
        outside: where the noise is measured, likewise; homogeneous.

    Raises:
        InputError: shapes differ, a value is not finite, or a region is not of 0 and 1.
        NoScoreError: a region is too small, or there is no noise outside.
    """
    values = np.asarray(image, dtype=np.float64)
    within, beside = as_region(inside, "inside"), as_region(outside, "outside")
    if not values.shape == within.shape == beside.shape:
        raise InputError(
            f"image is {values.shape}, inside {within.shape}, outside {beside.shape}; give equal "
            "shapes"
        )
    inner, outer = values[within], values[beside]
    if not (np.isfinite(inner).all() and np.isfinite(outer).all()):
        raise InputError("image has values that are not finite; leave them out of the regions")
    if len(inner) == 0 or len(outer) < _FEWEST:
        raise NoScoreError("a region has no pixels, or too few")
    noise = float(outer.std(ddof=1))
    if noise <= _NO_NOISE * float(np.abs(outer).max()):
        raise NoScoreError("there is no noise outside the region")
    return abs(float(inner.mean() - outer.mean())) / noise


def as_region(mask: NDArray[np.generic], name: str) -> NDArray[np.bool_]:
    """Return a region as bool; NumPy would take one of integers as indices.

    Args:
        mask: bool, or numbers that are 0 and 1.
        name: of the argument, for the message.

    Raises:
        InputError: it has other values.
    """
    region = np.asarray(mask)
    if region.dtype != np.bool_ and not np.isin(region, (0, 1)).all():
        raise InputError(f"{name} has values beside 0 and 1; give a region of bool")
    return region.astype(np.bool_)
