"""How often intervals of restored values hold the truth, on scans whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.tasks import Intervals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Volume
    from restore_rwkv.restoration.uncertainty import Spread
    from restore_rwkv.tasks import Task

_BLOCKS = 8  # of a scan, of which every other one is held out
_RESAMPLES = 2000
_THIRDS = ("smallest third", "middle third", "largest third")


@dataclass(frozen=True, eq=False)
class SpreadSlices:
    """Slices of a restored scan whose truth is known, with the spread of their values.

    Attributes:
        subject: whose they are.
        error: (N, H, W), absolute error of the restored scan, in its unit.
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


def alternating_halves(scan: SpreadSlices) -> tuple[SpreadSlices, SpreadSlices]:
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
    groups = {"all": [np.ones(scan.error.shape, bool) for scan in scans]}
    for kind, name in enumerate(scans[0].names):
        groups[name] = [scan.kinds == kind for scan in scans]
    groups |= thirds(scans, [scan.error for scan in scans], "errors")
    groups |= thirds(scans, [scan.spread for scan in scans], "spreads")
    return tuple(
        coverage_of(group, scans, intervals, where, seed)
        for group, where in groups.items()
        if any(part.any() for part in where)
    )


def thirds(
    scans: Sequence[SpreadSlices], values: Sequence[NDArray[np.float32]], what: str
) -> dict[str, list[NDArray[np.bool_]]]:
    """Return where values are in the smallest, middle and largest third of their kind of tissue.

    Args:
        scans: slices.
        values: of their pixels.
        what: they are, for the names of the groups.

    Returns:
        Pixels of each scan by the name of the group; the ends are those of all scans together.
    """
    places = [np.zeros(each.shape, np.intp) for each in values]
    for kind in range(len(scans[0].names)):
        where = [scan.kinds == kind for scan in scans]
        together = np.concatenate([each[part] for each, part in zip(values, where, strict=True)])
        if not len(together):
            continue
        ends = np.quantile(together, (1 / 3, 2 / 3))
        for place, each, part in zip(places, values, where, strict=True):
            place[part] = np.searchsorted(ends, each[part])
    return {
        f"{name} of the {what}": [place == third for place in places]
        for third, name in enumerate(_THIRDS)
    }


def coverage_of(
    group: str,
    scans: Sequence[SpreadSlices],
    intervals: Intervals,
    where: Sequence[NDArray[np.bool_]],
    seed: int = 0,
) -> Coverage:
    """Return how many of some pixels lie in their intervals, of at least one.

    Args:
        group: name of the pixels.
        scans: slices.
        intervals: of the same method.
        where: which pixels of each scan, (N, H, W).
        seed: of the resampling.
    """
    shares: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    pixels = 0
    for scan, chosen in zip(scans, where, strict=True):
        half = scan.half_widths(intervals)
        for error, width, part in zip(scan.error, half, chosen, strict=True):
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
