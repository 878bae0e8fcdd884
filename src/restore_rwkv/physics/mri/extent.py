"""How far the k-space of an image reaches: what lies outside a central block, and where it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.kspace import REAL_TYPES, Factor, check_image

_TAPERED = 1 / 8  # of a side, at each of its ends
_SPREAD = 2  # samples by which the taper widens a block
_RIM = 1.2  # the rim of the block for a factor f lies outside the block for 1.2 f
_FALL = 8.0  # fall of the power that counts as the end of k-space
_LEAST = 48  # pixels of a side


@dataclass(frozen=True)
class KspaceExtent:
    """Where the power of the k-space of some slices lies, without that of the zero frequency.

    Attributes:
        outside: share of it outside the central block, 0 to 1.
        rim: share in the rim of the block, its outer sixth along each axis, 0 to 1.
        factors: for rows and columns, how many times less far k-space seems to reach than the
            matrix does; 1 where no end is seen.
    """

    outside: float
    rim: float
    factors: tuple[float, float]


def kspace_extent(images: Tensor, factor: Factor) -> KspaceExtent:
    """Find where the power of k-space lies, in all slices together.

    Slices fade to 0 over an eighth of their sides before the transform: a slice that was cut out of
    a larger field of view does not wrap around at its edges, and the step there would have power
    at all frequencies. The fading spreads the power of a frequency over its neighbours, so two
    samples beyond the block belong to it. Taking the magnitude spreads some more: of slices of the
    training set that were degraded by a factor of 4, up to 0.08 % lies outside.

    K-space ends along an axis where its power, averaged over an eighth of the distance from the
    centre, falls most, if it falls to less than an eighth.

    Args:
        images: (N, H, W), float32 or float64, sides of at least 48 pixels.
        factor: ratio of the full to the measured extent of k-space that is looked for, at
            least 1: one number, or one per axis.

    Raises:
        OperatorError: wrong type or shape, slices too small for the factor, or constant slices.
    """
    check_image(images, REAL_TYPES)
    height, width = images.shape[-2:]
    by_axis = factor if isinstance(factor, tuple) else (factor, factor)
    least = max(_LEAST, math.ceil(8 * max(by_axis)))
    if images.ndim != 3 or len(by_axis) != 2 or min(height, width) < least:
        raise OperatorError(
            f"images has shape {tuple(images.shape)}, too small to judge its k-space; give slices "
            f"(N, H, W) of at least {least} pixels a side, and one factor or two"
        )
    faded = images * (_taper(height, images)[:, None] * _taper(width, images))
    power = torch.fft.fft2(faded, norm="forward").abs().square().double().sum(0)
    power[0, 0] = 0
    total = float(power.sum())
    if not total > 0:
        raise OperatorError("images are constant, without power in k-space; give others")
    power = torch.fft.fftshift(power) / total
    within = _share(power, by_axis, _SPREAD)
    rim = max(within - _share(power, (_RIM * by_axis[0], _RIM * by_axis[1]), 0), 0.0)
    factors = (_end(power.sum(1)), _end(power.sum(0)))
    return KspaceExtent(max(1 - within, 0.0), rim, factors)


def _taper(size: int, like: Tensor) -> Tensor:
    """Weights of one axis: 1 inside, rising from 0 at both ends."""
    length = max(2, int(size * _TAPERED))
    ramp = ((torch.arange(length).to(like) + 0.5) * (math.pi / 2 / length)).sin().square()
    return torch.cat([ramp, like.new_ones(size - 2 * length), ramp.flip(0)])


def _share(power: Tensor, factors: tuple[float, ...], more: int) -> float:
    """Share of the power (H, W), centred, in the block of factors and some samples around it."""
    spans = []
    for size, factor in zip(power.shape, factors, strict=True):
        kept = int(size / factor)
        first = size // 2 - kept // 2 - more
        spans.append(slice(max(first, 0), first + kept + 2 * more))
    return float(power[spans[0], spans[1]].sum())


def _end(profile: Tensor) -> float:
    """Matrix over extent of k-space, from the power (n,) along an axis, centred."""
    size = len(profile)
    reach = (size - 1) // 2
    centre = size // 2
    sides = profile[centre + 1 : centre + 1 + reach] + profile[centre - reach : centre].flip(0)
    sums = torch.cat([sides.new_zeros(1), sides.cumsum(0)]).tolist()
    floor = 1e-12 * max(sums[-1], 1e-300)
    best, end = _FALL, 0
    for place in range(4, reach - 2):  # samples inside
        step = min(max(2, place // 8), reach - place)
        fall = (sums[place] - sums[place - step] + floor) / (
            sums[place + step] - sums[place] + floor
        )
        if fall > best:
            best, end = fall, place
    return size / (2 * end + 1) if end else 1.0
