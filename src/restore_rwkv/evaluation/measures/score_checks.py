"""What images must be for a measure, and reasons for which they have no value of it."""

from __future__ import annotations

import math

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError, Values

_LEAST_RANGE = 1e-100  # its square, by which SSIM divides, is still above 0


def pair_of(restored: Values, truth: Values, axes: int = 2) -> tuple[Values, Values]:
    """Return both images in float64, in which differences of integers do not wrap around.

    Args:
        restored: restored slice (H, W), or slices (N, H, W).
        truth: equal in shape.
        axes: number of axes that they must have.

    Raises:
        InputError: the shapes differ, which NumPy would stretch, or are not as said.
        NoScoreError: an image has values that are not finite, from which only NaN would follow.
    """
    x, y = (np.asarray(image, dtype=np.float64) for image in (restored, truth))
    if x.shape != y.shape or x.ndim != axes or x.size == 0:
        wanted = "(N, H, W)" if axes == 3 else "(H, W)"
        raise InputError(f"restored is {x.shape} and truth {y.shape}; give two equal {wanted}")
    for image, name in ((x, "the restored image"), (y, "the truth")):
        if not np.isfinite(image).all():
            raise NoScoreError(f"{name} has values that are not finite")
    return x, y


def require_range(truth: Values) -> float:
    """Return the largest less the smallest value of the truth.

    Raises:
        NoScoreError: the truth is constant.
    """
    span = float(truth.max() - truth.min())
    if span < _LEAST_RANGE:
        raise NoScoreError("the truth is constant")
    return span


def require_sides(truth: Values, least: int, name: str) -> None:
    """Refuse slices that are too small for a measure.

    Args:
        truth: (..., H, W).
        least: pixels that height and width must have.
        name: of the measure, for the message.

    Raises:
        NoScoreError: the height or width is smaller.
    """
    height, width = truth.shape[-2:]
    if min(height, width) < least:
        raise NoScoreError(
            f"the slice has {height} x {width} pixels, and {name} needs at least {least} x {least}"
        )


def psnr_of(data_range: float, mean_square: float) -> float:
    """Return `10 log10(data_range^2 / mean_square)` in dB.

    Raises:
        NoScoreError: the images are identical.
    """
    if mean_square == 0:
        raise NoScoreError("the images are identical, so PSNR is infinite")
    return 20 * math.log10(data_range) - 10 * math.log10(mean_square)
