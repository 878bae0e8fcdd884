"""Contrast of a region over the noise beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures import NoScoreError

_FEWEST = 2  # pixels with which a standard deviation exists


def contrast_to_noise(
    image: ArrayLike, inside: NDArray[np.bool_], outside: NDArray[np.bool_]
) -> float:
    """Return the contrast-to-noise ratio of a region, without unit, 0 or more.

        CNR = |mean(inside) - mean(outside)| / sd(outside)

    (Verdun et al., Phys Med 31:823, 2015, section 2). It is blind to the texture of the noise and
    to sharpness: any smoothing raises it, whether or not the region becomes easier to see. That is
    what `hotelling_observer` is for.

    Args:
        image: of any shape.
        inside: where the region is, equal in shape.
        outside: where the noise is measured, equal in shape; homogeneous.

    Raises:
        InputError: shapes differ, or a value is not finite.
        NoScoreError: a region is too small, or there is no noise outside.
    """
    values = np.asarray(image, dtype=np.float64)
    if not values.shape == inside.shape == outside.shape:
        raise InputError(
            f"image is {values.shape}, inside {inside.shape}, outside {outside.shape}; give equal "
            "shapes"
        )
    inner, outer = values[inside], values[outside]
    if not (np.isfinite(inner).all() and np.isfinite(outer).all()):
        raise InputError("image has values that are not finite; leave them out of the regions")
    if len(inner) == 0 or len(outer) < _FEWEST:
        raise NoScoreError("a region has no pixels")
    noise = float(outer.std(ddof=1))
    if noise == 0:
        raise NoScoreError("there is no noise outside the region")
    return abs(float(inner.mean() - outer.mean())) / noise
