"""Intervals of restored values by split-conformal prediction, and how often they hold the truth.

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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.tasks import Intervals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Volume
    from restore_rwkv.restoration.uncertainty import Spread
    from restore_rwkv.tasks import SpreadMethod, Task

LEVEL = 0.9
"""Share of pixels whose truth is to lie in its interval."""

_FLOORS = tuple(float(floor) for floor in np.geomspace(0.001, 1, 13))  # in units of the scaling
_BLOCKS = 8  # of a scan, of which every other one is held out
_RESAMPLES = 2000
_THIRDS = ("smallest third", "middle third", "largest third")
_SMALLEST = 1e-6  # factor, where nearly all errors are 0


@dataclass(frozen=True, eq=False)
class SpreadSlices:
    """Slices of a restored scan whose truth is known, with the spread of their values.

    Attributes:
        subject: whose they are.
        error: (N, H, W), |truth - restored|, in the unit of the scan.
        spread: (N, H, W), in the same unit.
        kinds: (N, H, W), index of the kind of tissue, from the restored values.
        names: of the kinds.
        scale: of the scaling of the scan.
    """

    subject: str
    error: NDArray[np.float32]
    spread: NDArray[np.float32]
    kinds: NDArray[np.int8]
    names: tuple[str, ...]
    scale: float

    @classmethod
    def of(
        cls, subject: str, truth: Volume, restored: Volume, spread: Spread, task: Task, axis: int
    ) -> SpreadSlices:
        """Compare a restored scan with the truth, in slices across an axis.

        Raises:
            InputError: they are not on one grid.
        """
        volumes = (truth, restored, spread.volume)
        if len({volume.data.shape for volume in volumes}) > 1:
            shapes = ", ".join(str(volume.data.shape) for volume in volumes)
            raise InputError(
                f"{subject}: truth, restored and spread have shapes {shapes}; give them on one grid"
            )
        high, image, deviation = (volume.slices(axis) for volume in volumes)
        kinds, names = task.rules.tissues(image, spread.scale)
        return cls(subject, np.abs(high - image), deviation, kinds, names, spread.scale)

    def part(self, slices: NDArray[np.intp]) -> SpreadSlices:
        """Return some of the slices."""
        return replace(
            self, error=self.error[slices], spread=self.spread[slices], kinds=self.kinds[slices]
        )

    def half_widths(self, intervals: Intervals) -> NDArray[np.float32]:
        """Return half the width of the interval of each pixel, in the unit of the scan."""
        factors = np.array([intervals.factors[name] for name in self.names], np.float32)
        half: NDArray[np.float32]
        half = factors[self.kinds] * (self.spread + np.float32(intervals.floor * self.scale))
        return half


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many pixels of a group lie in their intervals.

    Attributes:
        group: "all", the name of a kind of tissue, or which third of the errors or spreads.
        share: of the pixels, 0 to 1: mean over subjects of the mean over their slices.
        low, high: its 95 % interval by resampling the slices of each subject. It says how much the
            share differs between slices like these; other subjects may differ more. None for
            subjects of one slice.
        width: mean width of the intervals, in the unit of the scans.
        slices: number of slices with such pixels.
        pixels: number of pixels.
    """

    group: str
    share: float
    low: float | None
    high: float | None
    width: float
    slices: int
    pixels: int


def halves(scan: SpreadSlices) -> tuple[SpreadSlices, SpreadSlices]:
    """Split the slices of a scan in alternating blocks, an eighth of them each.

    Neighbouring slices are alike, so that a block has fewer of them in the other half than a slice.

    Raises:
        InputError: there is one slice only.
    """
    count = len(scan.error)
    if count < 2:
        raise InputError(f"{scan.subject}: has one slice, which has no halves; give more")
    second = np.arange(count) * min(_BLOCKS, count) // count % 2 == 1
    return scan.part(np.flatnonzero(~second)), scan.part(np.flatnonzero(second))


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
    thirds = _thirds(calibration, [scan.spread for scan in calibration])
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
        found.append((_unevenness(calibration, thirds, intervals), intervals))
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


def measure_coverage(
    scans: Sequence[SpreadSlices], intervals: Intervals, seed: int = 0
) -> tuple[Coverage, ...]:
    """Measure how many pixels lie in their intervals.

    Args:
        scans: slices that the intervals were not calibrated on.
        intervals: of the same method.
        seed: of the resampling.

    Returns:
        That of all pixels, of each kind of tissue, and of the pixels with the smallest, middle and
        largest third of the errors and of the spreads of their kind of tissue. Intervals that are
        right for all pixels together hold less of the largest errors by construction; that they
        hold as many where the spread is large as where it is small is what the spread is for.

    Raises:
        InputError: there is no scan.
    """
    if not scans:
        raise InputError("intervals: no scan to measure them with; give some")
    grouped = {
        "errors": _thirds(scans, [scan.error for scan in scans]),
        "spreads": _thirds(scans, [scan.spread for scan in scans]),
    }
    half = [scan.half_widths(intervals) for scan in scans]
    groups = {"all": [np.ones(scan.error.shape, bool) for scan in scans]}
    for kind, name in enumerate(scans[0].names):
        groups[name] = [scan.kinds == kind for scan in scans]
    for what, thirds in grouped.items():
        for place, name in enumerate(_THIRDS):
            groups[f"{name} of the {what}"] = [third == place for third in thirds]
    return tuple(
        _coverage(group, scans, half, where, seed)
        for group, where in groups.items()
        if any(part.any() for part in where)
    )


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


def _unevenness(
    scans: Sequence[SpreadSlices], thirds: Sequence[NDArray[np.intp]], intervals: Intervals
) -> float:
    """Largest difference from the level of what intervals hold in a third of the spreads."""
    half = [scan.half_widths(intervals) for scan in scans]
    held = [
        _coverage(name, scans, half, [third == place for third in thirds], 0).share
        for place, name in enumerate(_THIRDS)
        if any((third == place).any() for third in thirds)
    ]
    return max(abs(share - intervals.level) for share in held)


def _thirds(
    scans: Sequence[SpreadSlices], values: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.intp]]:
    """Which third of the values of its kind of tissue, over all scans, each pixel belongs to."""
    thirds = [np.zeros(each.shape, np.intp) for each in values]
    for kind in range(len(scans[0].names)):
        where = [scan.kinds == kind for scan in scans]
        together = np.concatenate([each[part] for each, part in zip(values, where, strict=True)])
        if not len(together):
            continue
        ends = np.quantile(together, (1 / 3, 2 / 3))
        for third, each, part in zip(thirds, values, where, strict=True):
            third[part] = np.searchsorted(ends, each[part])
    return thirds


def _coverage(
    group: str,
    scans: Sequence[SpreadSlices],
    half: Sequence[NDArray[np.float32]],
    where: Sequence[NDArray[np.bool_]],
    seed: int,
) -> Coverage:
    """Coverage of the pixels of a group."""
    shares: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    pixels = 0
    for scan, widest, group_part in zip(scans, half, where, strict=True):
        for error, width, part in zip(scan.error, widest, group_part, strict=True):
            if not part.any():
                continue
            pixels += int(part.sum())
            inside = error[part] <= width[part]
            shares.setdefault(scan.subject, []).append(float(inside.mean()))
            widths.setdefault(scan.subject, []).append(2 * float(width[part].mean()))
    ends = _resampled(list(shares.values()), seed)
    return Coverage(
        group=group,
        share=float(np.mean([np.mean(each) for each in shares.values()])),
        low=None if ends is None else ends[0],
        high=None if ends is None else ends[1],
        width=float(np.mean([np.mean(each) for each in widths.values()])),
        slices=sum(len(each) for each in shares.values()),
        pixels=pixels,
    )


def _resampled(shares: Sequence[Sequence[float]], seed: int) -> tuple[float, float] | None:
    """Ends of the 95 % interval of the mean over subjects, of slices drawn with replacement."""
    if max(len(each) for each in shares) < 2:
        return None
    generator = np.random.default_rng(seed)
    means = [
        np.array(each)[generator.integers(len(each), size=(_RESAMPLES, len(each)))].mean(axis=1)
        for each in shares
    ]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return float(low), float(high)
