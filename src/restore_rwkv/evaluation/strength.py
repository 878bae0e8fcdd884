"""Calibration of the strength of a network's correction, on pairs of several noise levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from restore_rwkv.errors import InputError, OperatorError
from restore_rwkv.evaluation.metrics import paper_psnr
from restore_rwkv.io import Volume
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import AddedNoise, Strength, Task, slice_axis

BLENDS = tuple(float(blend) for blend in np.linspace(0, 1, 41))
"""Strengths whose PSNR is measured."""


@dataclass(frozen=True, eq=False)
class NoisyPair:
    """One scan at one noise level.

    Attributes:
        subject: name of the scan.
        level: noise level, as a number to plot.
        factor: how many times less dose than `high`.
        low: the scan with that noise.
        high: the scan of full quality, on the same grid.
    """

    subject: str
    level: float
    factor: float
    low: Volume
    high: Volume


@dataclass(frozen=True)
class BlendGains:
    """PSNR gained by a network on one pair, for each blend of its result with its input.

    Attributes:
        subject: as in `NoisyPair`.
        level: as in `NoisyPair`.
        told: noise that was added, as the factor tells it.
        found: the same as it is found in the image, or assumed where that is not possible.
        psnr: of the low-quality scan in dB, mean over slices by the paper's protocol.
        told_gains: PSNR gained over it in dB by a restorer that is told the factor, by strength of
            `BLENDS`; the first is 0.
        found_gains: the same for a restorer that is not told it; equal unless the network is told
            the level of the noise.
    """

    subject: str
    level: float
    told: AddedNoise
    found: AddedNoise
    psnr: float
    told_gains: tuple[float, ...]
    found_gains: tuple[float, ...]

    def told_gain(self, strength: Strength) -> tuple[float, float]:
        """Strength and gain in dB of a restorer that is told the factor."""
        return _at(strength.at(self.told.ratio), self.told_gains)

    def found_gain(self, strength: Strength) -> tuple[float, float]:
        """Strength and gain in dB of a restorer that takes the noise from the image."""
        return _at(strength.at(self.found.ratio), self.found_gains)


def best_blend(gains: Sequence[float]) -> float:
    """Return the strength of the highest gain, below the first strength with a loss."""
    losses = [place for place, gain in enumerate(gains) if gain < 0]
    safe = losses[0] if losses else len(gains)
    return BLENDS[int(np.argmax(gains[:safe]))]


def full_noise(scans: Iterable[Volume], task: Task) -> float:
    """Return the noise of the noisiest of some scans of full quality.

    Args:
        scans: in the unit of the task; those whose noise cannot be measured do not count.
        task: whose low quality is the noise of a reduced dose.

    Raises:
        InputError: the noise of no scan can be measured.
    """
    found = []
    for scan in scans:
        with suppress(OperatorError):
            found.append(task.rules.noise_of(scan, task))
    if not found:
        raise InputError(
            "the noise of none of the scans of full quality can be measured; give scans with more "
            "tissue"
        )
    return max(found)


def blend_gains(pair: NoisyPair, restorer: Restorer, task: Task, reference: float) -> BlendGains:
    """Restore a pair with the network's own output, and score its blends with the input.

    Args:
        pair: both qualities in the unit of the task.
        restorer: restorer of the weights.
        task: whose low quality is the noise of a reduced dose.
        reference: noise of the noisiest scan of full quality, from `full_noise`.

    Raises:
        InputError: no slice has a PSNR.
    """
    told, found = (
        task.rules.added_noise(pair.low, task, factor, reference) for factor in (pair.factor, None)
    )
    alone = RestoreOptions(strength=1.0, force=True)
    if not restorer.uses_factor(task, alone):
        psnr, gains = _blended(pair, restorer, task, alone)
        return BlendGains(pair.subject, pair.level, told, found, psnr, gains, gains)
    psnr, told_gains = _blended(pair, restorer, task, replace(alone, factor=pair.factor))
    found_gains = (0.0,) * len(BLENDS)  # such a scan is left as it is
    if found.ratio > 0:
        factor = 1 / (1 - found.ratio**2)
        _, found_gains = _blended(pair, restorer, task, replace(alone, factor=factor))
    return BlendGains(pair.subject, pair.level, told, found, psnr, told_gains, found_gains)


def calibrate(
    measured: Iterable[BlendGains], reference: float, pixel: float | None = None
) -> Strength:
    """Find the largest rising strength that stays below the best one of every pair.

    Told how much noise was added, or taking it from the image, no pair loses PSNR: it gains from 0
    to its best strength, and the curve is at or below that where the pair lies on it.

    Args:
        measured: of all validation subjects at all noise levels.
        reference: that they were measured with.
        pixel: side of their pixels in mm, where the noise depends on it.
    """
    best: dict[float, float] = {}
    for pair in measured:
        for noise, gains in ((pair.told, pair.told_gains), (pair.found, pair.found_gains)):
            best[noise.ratio] = min(best_blend(gains), best.get(noise.ratio, 1.0))
    ratios = sorted(ratio for ratio in best if ratio > 0)
    rising = list(accumulate((best[ratio] for ratio in reversed(ratios)), min))[::-1]
    return Strength(reference, ((0.0, 0.0), *zip(ratios, rising, strict=True)), pixel)


def _blended(
    pair: NoisyPair, restorer: Restorer, task: Task, options: RestoreOptions
) -> tuple[float, tuple[float, ...]]:
    """Return the PSNR of the low-quality scan of a pair, and what each blend gains over it."""
    restored = restorer.run(pair.low, options).volume
    axis = slice_axis(pair.high, task)
    scores = []
    for low, full, high in zip(
        *(v.slices(axis) for v in (pair.low, restored, pair.high)), strict=True
    ):
        blends = [low + np.float32(blend) * (full - low) for blend in BLENDS]
        psnr = [paper_psnr(blend, high, task.metric_range) for blend in blends]
        if None not in psnr:
            scores.append(psnr)
    if not scores:
        raise InputError(f"{pair.subject}: no slice has a PSNR; give a scan that is not constant")
    mean = np.mean(np.array(scores, dtype=np.float64), axis=0)
    return float(mean[0]), tuple(float(gain) for gain in mean - mean[0])


def _at(strength: float, gains: Sequence[float]) -> tuple[float, float]:
    """Return a strength and its gain, which is linear between those of `BLENDS`."""
    return strength, float(np.interp(strength, BLENDS, gains))
