"""Intervals of restored values by split-conformal prediction.

The score of a pixel is `|truth - restored| / (spread + floor * scale)`. The factor of a kind of
tissue is the quantile of the scores of its pixels in calibration slices, with the correction of
split-conformal prediction for a finite number (Papadopoulos et al., ECML 2002; Angelopoulos and
Bates, arXiv 2107.07511): the smallest score that `ceil((n + 1) level)` of n scores do not exceed.
A new pixel then lies in its interval with a probability of at least the level, **if it could have
been any of those of the calibration**. Pixels of a slice are correlated, and other subjects differ:
what the intervals are worth is the coverage that is measured on slices and subjects that the
factors are not from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.coverage import (
    SpreadSlices,
    coverage_of,
    measure_coverage,
    thirds,
)
from restore_rwkv.tasks import Intervals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.tasks import SpreadMethod

LEVEL = 0.9
"""Share of pixels whose truth is to lie in its interval."""

_FLOORS = tuple(float(floor) for floor in np.geomspace(0.001, 1, 13))  # in units of the scaling
_SMALLEST = 1e-6  # factor, where nearly all errors are 0


def calibrate_intervals(
    calibration: Sequence[SpreadSlices],
    held_out: Sequence[SpreadSlices],
    method: SpreadMethod,
    level: float = LEVEL,
) -> Intervals:
    """Find the factors of intervals on some slices, and their coverage on others.

    Each subject has the same weight, and so has each of its slices. The floor is the one of
    thirteen, from 0.001 to 1, with which the intervals hold most evenly where the spread is small,
    middling and large. A larger one would give intervals that are narrower in the mean, and hold
    too little where the spread is large.

    Args:
        calibration: slices of scans that the network has not seen in training.
        held_out: other slices, for the coverage.
        method: how the spread was found.
        level: share of the pixels that is to lie in their intervals.

    Raises:
        ConfigError: the level is not between 0 and 1.
        InputError: there is no scan, or there are too few pixels of a kind of tissue.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level:g}; give a share between 0 and 1, such as {LEVEL:g}")
    if not calibration or not held_out:
        raise InputError("intervals: no scan to calibrate or measure them with; give some of both")
    groups = thirds(calibration, [scan.spread for scan in calibration], "spreads")
    found: list[tuple[float, Intervals]] = []
    for floor in _FLOORS:
        intervals = Intervals(
            method=method,
            level=level,
            factors=_factors(calibration, floor, level),
            floor=floor,
            subjects=len({scan.subject for scan in calibration}),
            pixels=sum(scan.error.size for scan in calibration),
            coverage=level,
        )
        held = [
            coverage_of(name, calibration, intervals, where).share
            for name, where in groups.items()
            if any(part.any() for part in where)
        ]
        found.append((max(abs(share - level) for share in held), intervals))
    _, intervals = min(found, key=lambda each: each[0])
    return replace(intervals, coverage=measure_coverage(held_out, intervals)[0].share)


def conformal_quantile(
    scores: NDArray[np.float32], weights: NDArray[np.float64], level: float
) -> float:
    """Return the smallest score that a share `level * (n + 1) / n` of the weight does not exceed.

    For n equal weights it is the `ceil((n + 1) level)`-th smallest of n scores.

    Args:
        scores: (n,).
        weights: (n,), above 0; only their ratios count.
        level: 0 to 1.

    Raises:
        InputError: there are fewer than `level / (1 - level)` scores.
    """
    count = len(scores)
    needed = level * (count + 1) / count if count else 2.0
    if needed > 1:
        raise InputError(
            f"intervals: {count} pixels are too few for intervals of {100 * level:g} %; give more "
            "slices"
        )
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(weights[order])
    place = int(np.searchsorted(weight, (needed - 1e-12) * weight[-1]))
    return float(scores[order[min(place, count - 1)]])


def _factors(scans: Sequence[SpreadSlices], floor: float, level: float) -> dict[str, float]:
    """The factor of each kind of tissue."""
    factors = {}
    for kind, name in enumerate(scans[0].names):
        scores, weights = [], []
        for scan, weight in zip(scans, _pixel_weights(scans, kind), strict=True):
            where = scan.kinds == kind
            spread = scan.spread[where] + np.float32(floor * scan.scale)
            scores.append(scan.error[where] / spread)
            weights.append(np.repeat(weight, where.sum(axis=(1, 2))))
        try:
            found = conformal_quantile(np.concatenate(scores), np.concatenate(weights), level)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        factors[name] = max(found, _SMALLEST)
    return factors


def _pixel_weights(scans: Sequence[SpreadSlices], kind: int) -> Iterator[NDArray[np.float64]]:
    """For each scan the weight of a pixel of a kind in each slice, so that slices weigh alike."""
    slices = [(scan.kinds == kind).sum(axis=(1, 2)) for scan in scans]
    of_subject: dict[str, int] = {}
    for scan, pixels in zip(scans, slices, strict=True):
        of_subject[scan.subject] = of_subject.get(scan.subject, 0) + int((pixels > 0).sum())
    for scan, pixels in zip(scans, slices, strict=True):
        yield 1 / (np.maximum(pixels, 1) * max(of_subject[scan.subject], 1))
