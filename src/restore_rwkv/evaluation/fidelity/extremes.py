"""The largest score that noise on its own has in a scan."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

ONE_IN = 0.05
"""Share of scans in which noise on its own exceeds the threshold."""

_EULER = 0.5772156649


def exceeded_rarely(maxima: ArrayLike, count: float, share: float = ONE_IN) -> float | None:
    """Return the value that the largest of many maxima exceeds with a small probability.

    Maxima of fields of noise have a Gumbel distribution, `P(max < z) = exp(-exp(-(z - a) / b))`,
    fitted by its moments (`b = sd sqrt(6) / pi`, `a = mean - 0.5772 b`). The largest of n has the
    same with `a + b ln n` (Gumbel, Statistics of Extremes, 1958), so that few simulated slices say
    what a scan of many has.

    Args:
        maxima: largest scores of simulated slices, independent of each other.
        count: number n of slices of the scan that are independent of each other, at least 1.
        share: the probability, 0 to 1.

    Returns:
        The value in units of the scores; None with fewer than 8 maxima, or equal ones.
    """
    values = np.asarray(maxima, dtype=np.float64)
    if len(values) < 8 or not np.ptp(values) > 0:
        return None
    width = float(values.std(ddof=1)) * math.sqrt(6) / math.pi
    place = float(values.mean()) - _EULER * width
    return place + width * (math.log(max(count, 1.0)) - math.log(-math.log1p(-share)))


def exceeded_in_field(volume: float, sigma: float, share: float = ONE_IN) -> float:
    """Return the absolute value that Gaussian noise under a Gaussian exceeds with a probability.

    Of a field of mean 0 and variance 1 in R resolution elements, `R = volume / FWHM^3`, the
    expected Euler characteristic of what lies above t is `R (4 ln 2)^(3/2) (2 pi)^-2 (t^2 - 1)
    exp(-t^2 / 2)`, and for high t it is the probability that anything does (Worsley et al., Human
    Brain Mapping 4:58, 1996). Both signs count here. Terms for the surface of the volume are left
    out, and the noise is taken as white before the filter.

    Args:
        volume: searched, in mm^3.
        sigma: standard deviation of the Gaussian in mm, along all three axes.
        share: the probability, 0 to 1.
    """
    elements = volume / (sigma * math.sqrt(8 * math.log(2))) ** 3
    factor = 2 * elements * (4 * math.log(2)) ** 1.5 / (2 * math.pi) ** 2
    low, high = math.sqrt(3), 40.0  # beyond sqrt(3) the characteristic only falls
    for _ in range(60):
        middle = (low + high) / 2
        above = factor * (middle**2 - 1) * math.exp(-(middle**2) / 2) > share
        low, high = (middle, high) if above else (low, middle)
    return high
