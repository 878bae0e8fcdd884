"""Noise level of a PET image, relative to its own values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_floating

_FOREGROUND = 0.5  # of the mean of what lies above the mean
_LEAST = 200  # pixels
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def noise_level(images: Tensor) -> float:
    """Noise of PET, as a fraction of its values.

    Each pixel is filtered with the 3 x 3 kernel (1, -2, 1)^T (1, -2, 1) / 6 of Immerkaer (Computer
    Vision and Image Understanding 64:300, 1996), which gives 0 for images that are linear along
    either axis and leaves the variance of white noise as it is, and is divided by the mean of the
    5 x 5 pixels around it. The result is 1.4826 times the median of the absolute values, over
    pixels with none within 4 pixels whose mean lies below half that of the foreground. Noise of
    PET is correlated, so this is not its standard deviation, but it grows in the same proportion:
    with the inverse root of the counts.

    Args:
        images: (..., H, W), float32 or float64, any unit; all slices together give one number.

    Returns:
        A number without unit, at least 0.

    Raises:
        OperatorError: wrong type or shape, values that are not finite, or fewer than 200 pixels
            inside the foreground.
    """
    check_floating("images", images)
    if images.ndim < 2 or 0 in images.shape or not bool(images.isfinite().all()):
        raise OperatorError(
            f"images has shape {tuple(images.shape)}; give (..., H, W), not empty, with finite "
            "values"
        )
    slices = images.reshape(-1, 1, *images.shape[-2:])
    mean = _mean(slices, 5)
    foreground = (mean > _FOREGROUND * mean[mean >= mean.mean()].mean()) & (mean > 0)
    inside = _mean(foreground.to(slices), 9) > 0.999
    if int(inside.sum()) < _LEAST:
        raise OperatorError(
            f"images has {int(inside.sum())} pixels inside the foreground, too few to measure its "
            f"noise; give slices with at least {_LEAST}"
        )
    side = torch.tensor([1.0, -2.0, 1.0], dtype=slices.dtype, device=slices.device)
    filtered = F.conv2d(slices, (side[:, None] * side / 6)[None, None], padding=1)
    return _NORMAL * float((filtered[inside] / mean[inside]).abs().median())


def _mean(images: Tensor, side: int) -> Tensor:
    """Mean over a window of side x side pixels, of (N, 1, H, W)."""
    return F.avg_pool2d(images, side, 1, side // 2, count_include_pad=False)
