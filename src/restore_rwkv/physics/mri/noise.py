"""Noise of a low-resolution MRI scan: an upper bound from its background, and realisations of it.

Of an image of the full acquisition with noise of standard deviation sigma per channel, the
low-resolution image has the noise `sigma sqrt(h w / (H W))`, correlated as the block allows
(`kspace_noise`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.cartesian import CartesianMRI
from restore_rwkv.physics.mri.kspace import REAL_TYPES, Factor, check_image, kspace_noise, zero_fill

_RAYLEIGH = math.sqrt(2 * math.log(2))  # median of a Rayleigh distribution over its sigma
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_DARK = 0.1  # of the level of the foreground
_BRIGHT = 0.5
_APART = 3  # pixels of the native grid between background and anything brighter
_LEAST = 100  # pixels of the native grid


def noise_level(low: Tensor, factor: Factor = 4, *, magnitude: bool = True) -> float:
    """Upper bound of the noise of a low-resolution image, per channel.

    On the native grid of the measured block, where the noise is white, two values are measured: in
    the background, three pixels from anything brighter than a tenth of the foreground, the median
    over sqrt(2 ln 2), as air has a Rayleigh distribution (Gudbjartsson and Patz, MRM 34:910, 1995;
    without `magnitude`, the absolute median over that of a normal distribution); and in the
    foreground what remains under the kernel of Immerkaer (Computer Vision and Image Understanding
    64:300, 1996). Ringing adds to the first and detail to the second, so the smaller one is
    returned, and the noise of the scan is at most that.

    Args:
        low: (N, H, W), float32 or float64, low-resolution slices on the unchanged matrix.
        factor: ratio of the full to the measured extent of k-space, one number or one per axis.
        magnitude: whether `low` is a magnitude; otherwise it has signs of its own.

    Returns:
        Standard deviation in the unit of the image, at least 0.

    Raises:
        OperatorError: wrong type or shape, an invalid factor, or fewer than 100 native pixels in
            both background and foreground.
    """
    check_image(low, REAL_TYPES)
    native = _native(low, factor, magnitude)
    mean = F.avg_pool2d(native[:, None].abs(), 3, 1, 1, count_include_pad=False)[:, 0]
    level = mean[mean >= mean.mean()].mean()
    near = F.max_pool2d((mean > _DARK * level).to(mean)[:, None], 2 * _APART + 1, 1, _APART)[:, 0]
    air, inside = near == 0, mean > _BRIGHT * level
    found = []
    if int(air.sum()) >= _LEAST:
        middle = float(native[air].abs().median())
        found.append(middle / _RAYLEIGH if magnitude else _NORMAL * middle)
    if int(inside.sum()) >= _LEAST:
        side = torch.tensor([1.0, -2.0, 1.0], dtype=native.dtype)
        filtered = F.conv2d(native[:, None], (side[:, None] * side / 6)[None, None], padding=1)
        found.append(_NORMAL * float(filtered[:, 0][inside].abs().median()))
    if not found:
        raise OperatorError(
            f"low has {int(air.sum())} native pixels of background and {int(inside.sum())} of "
            f"foreground, too few to measure its noise; give slices with at least {_LEAST}"
        )
    return min(found)


def scan_noise(
    image: Tensor,
    level: float,
    factor: Factor = 4,
    *,
    generator: torch.Generator,
    magnitude: bool = True,
) -> Tensor:
    """Draw the noise that the low-resolution image of an image would have, `|P x + n| - |P x|`.

    Args:
        image: (..., H, W), float32 or float64, x, such as a restored scan.
        level: standard deviation of the noise per channel of the low-resolution image, in its unit.
        factor: ratio of the full to the measured extent of k-space, one number or one per axis.
        generator: the only source of randomness.
        magnitude: whether the low-resolution image is a magnitude; otherwise `Re n`.

    Returns:
        Same shape, type and unit.

    Raises:
        OperatorError: wrong type or shape, an invalid factor, or a level below 0 or not finite.
    """
    check_image(image, REAL_TYPES)
    shape = (image.shape[-2], image.shape[-1])
    system = CartesianMRI(shape, factor)
    full = level * math.sqrt(math.prod(shape) / math.prod(system.kept))
    drawn = kspace_noise(tuple(image.shape), full, generator, factor, image.dtype)
    if not magnitude:
        return zero_fill(drawn, shape).real
    block = system.A(image)
    return zero_fill(block + drawn, shape).abs() - zero_fill(block, shape).abs()


def _native(low: Tensor, factor: Factor, magnitude: bool) -> Tensor:
    """Return slices (N, H, W) on the native grid of their block."""
    if low.ndim != 3:
        raise OperatorError(f"low has shape {tuple(low.shape)}; give slices (N, H, W)")
    block = CartesianMRI((low.shape[1], low.shape[2]), factor).A(low)
    image = zero_fill(block, tuple(block.shape[1:]))
    return image.abs() if magnitude else image.real
