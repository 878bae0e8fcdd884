"""Reasons for which an image has no value of a measure."""

from __future__ import annotations

import math

import numpy as np

from restore_rwkv.evaluation.measures import NoScoreError, Values


def require_finite(restored: Values, truth: Values) -> None:
    """Refuse images with values that are not finite, from which only NaN would follow.

    Raises:
        NoScoreError: an image has such values.
    """
    for image, name in ((restored, "the restored image"), (truth, "the truth")):
        if not np.isfinite(image).all():
            raise NoScoreError(f"{name} has values that are not finite")


def require_range(truth: Values) -> float:
    """Return the largest less the smallest value of the truth.

    Raises:
        NoScoreError: the truth is constant.
    """
    span = float(truth.max() - truth.min())
    if span == 0:
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
