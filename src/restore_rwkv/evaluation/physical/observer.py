"""Channelised Hotelling observer: whether a known signal can be told from noise, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError, Values

_LARGEST = 300.0  # d'; the noncentral F distribution cannot be computed far above


@dataclass(frozen=True, kw_only=True)
class Detectability:
    """Performance of an observer that decides between two classes of images.

    Attributes:
        d_prime: detectability index d', 0 or more, without unit.
        low, high: ends of its confidence interval.
        auc: area under the ROC curve, Phi(d' / sqrt(2)), 0.5 to 1; the share of right answers where
            one of two images has the signal.
        auc_low, auc_high: ends of its confidence interval.
    """

    d_prime: float
    low: float
    high: float
    auc: float
    auc_low: float
    auc_high: float


def hotelling_observer(
    present: ArrayLike, absent: ArrayLike, channels: Values, *, confidence: float = 0.95
) -> Detectability:
    """Measure d' of the channelised Hotelling observer, with its exact confidence interval.

        d'^2 = (m1 - m0)^T S^-1 (m1 - m0)

    with the means m and the pooled covariance S of the channels' outputs. The estimate of d'^2 is
    the unbiased one, not that of testing on the training images, which is too high; 0 where it
    would be negative. The interval is exact for normally distributed outputs of equal covariance
    and unknown means: Hotelling's T^2 has then a noncentral F distribution with p and n - p - 1
    degrees of freedom (Wunderlich et al., IEEE Trans Med Imaging 34:453, 2015). Intervals of two
    kinds of images with the same noise say nothing about their difference, which may be much
    narrower: resample both together. There is no internal noise, so that human observers see less.
    It is blind to what the channels do not pass,
    and to signals of unknown place or shape.

    Args:
        present: (N, H, W) regions with the signal, always at the same place.
        absent: (M, H, W) regions without it. No two images may share their noise.
        channels: (P, H, W), as `difference_of_gaussian_channels`; N + M is at least P + 4.
        confidence: of the interval, above 0 and below 1.

    Raises:
        InputError: shapes differ, images are too few, or values are not finite.
        NoScoreError: outputs do not vary, are not independent of each other, or d' is above 300.
    """
    one, none = (_outputs(images, channels) for images in (present, absent))
    count, p = len(one) + len(none), len(channels)
    if min(len(one), len(none)) < 2 or count < p + 4:
        raise InputError(
            f"{len(one)} images with and {len(none)} without the signal are too few for {p} "
            f"channels; give at least {p + 4} together"
        )
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence:g}; give a number above 0 and below 1")
    scatter = sum(np.cov(part, rowvar=False, ddof=0) * len(part) for part in (one, none))
    covariance = np.atleast_2d(scatter) / (count - 2)
    scale = np.sqrt(np.diagonal(covariance))
    if not scale.all() or np.linalg.matrix_rank(covariance / np.outer(scale, scale)) < p:
        raise NoScoreError("the outputs of channels do not vary, or depend on each other")
    difference = one.mean(axis=0) - none.mean(axis=0)
    found = float(difference @ np.linalg.solve(covariance, difference))
    if found > _LARGEST**2:
        raise NoScoreError(f"d' is above {_LARGEST:g}, where it has no interval")
    harmonic = len(one) * len(none) / count
    unbiased = (count - p - 3) / (count - 2) * found - p / harmonic
    f = (count - p - 1) / (p * (count - 2)) * harmonic * found
    rest = (1 - confidence) / 2
    ends = [_noncentrality(f, p, count - p - 1, share) for share in (1 - rest, rest)]
    values = [float(np.sqrt(max(value, 0))) for value in (unbiased, *(e / harmonic for e in ends))]
    auc = [float(special.ndtr(value / np.sqrt(2))) for value in values]
    return Detectability(
        **dict(zip(("d_prime", "low", "high"), values, strict=True)),
        **dict(zip(("auc", "auc_low", "auc_high"), auc, strict=True)),
    )


def difference_of_gaussian_channels(
    side: int, *, count: int = 10, first: float = 0.005, ratio: float = 1.4, width: float = 1.67
) -> Values:
    """Return dense difference-of-Gaussian channels, (count, side, side), each of norm 1.

    In frequency they are `exp(-(f / (Q s_j))^2 / 2) - exp(-(f / s_j)^2 / 2)` with `s_j = first
    ratio^j` cycles per pixel and Q = `width` (Abbey & Barrett, J Opt Soc Am A 18:473, 2001, whose
    numbers are the defaults). They do not depend on direction, and have their centre in the middle
    of the region: between the middle pixels where `side` is even.

    Raises:
        InputError: a number is out of range.
    """
    if side < 3 or count < 1 or not (first > 0 and ratio > 1 and width > 1):
        raise InputError("channels: give side >= 3, count >= 1, first > 0, ratio > 1, width > 1")
    squared = _squared_distance(side)
    channels = []
    for scale in first * ratio ** np.arange(count):
        wide, narrow = (
            s * s * np.exp(-2 * np.pi**2 * s * s * squared) for s in (width * scale, scale)
        )
        channels.append(wide - narrow)
    return _of_norm_one(np.stack(channels))


def laguerre_gauss_channels(side: int, spread: float, *, count: int = 6) -> Values:
    """Return Laguerre-Gauss channels, (count, side, side), each of norm 1.

    `exp(-pi r^2 / a^2) L_j(2 pi r^2 / a^2)` with the Laguerre polynomials L_j, for compact round
    signals at the middle of the region (Gallas & Barrett, J Opt Soc Am A 20:1725, 2003).

    Args:
        side: pixels along a side of the region.
        spread: a in pixels, about the diameter of the signal.
        count: number of channels.

    Raises:
        InputError: a number is out of range.
    """
    if side < 3 or count < 1 or not spread > 0:
        raise InputError("channels: give side >= 3, count >= 1 and spread > 0")
    scaled = 2 * np.pi * _squared_distance(side) / spread**2
    polynomials = special.eval_laguerre(np.arange(count)[:, None, None], scaled)
    return _of_norm_one(polynomials * np.exp(-scaled / 2))


def _outputs(images: ArrayLike, channels: Values) -> Values:
    values = np.asarray(images, dtype=np.float64)
    if values.ndim != 3 or channels.ndim != 3 or values.shape[1:] != channels.shape[1:]:
        raise InputError(
            f"images have shape {values.shape} and channels {channels.shape}; give (N, H, W) and "
            "(P, H, W)"
        )
    if not np.isfinite(values).all():
        raise InputError("images have values that are not finite; leave them out")
    outputs: Values = values.reshape(len(values), -1) @ channels.reshape(len(channels), -1).T
    return outputs


def _noncentrality(f: float, p: int, rest: int, share: float) -> float:
    """Noncentrality at which an F of at most `f` has the probability `share`; 0 if none has."""

    def excess(noncentrality: float) -> float:
        return float(stats.ncf.cdf(f, p, rest, noncentrality)) - share

    if stats.f.cdf(f, p, rest) <= share:
        return 0.0
    high = 4 * p * (f + 1) + 40
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 1e-12, high))


def _squared_distance(side: int) -> Values:
    place = np.arange(side) - (side - 1) / 2
    squared: Values = place[:, None] ** 2 + place**2
    return squared


def _of_norm_one(channels: Values) -> Values:
    normed: Values = channels / np.sqrt(np.sum(channels**2, axis=(1, 2), keepdims=True))
    return normed
