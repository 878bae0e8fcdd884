"""Calibration of the strength of a network's correction, on pairs of several noise levels."""

from __future__ import annotations

from collections.abc import Sequence
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
        factor: as in `NoisyPair`.
        psnr: of the low-quality scan in dB, mean over slices by the paper's protocol.
        gains: PSNR gained over it in dB, by strength of `BLENDS`; the first is 0.
        noise: of the low-quality scan (`Modality.noise_of`); None where it cannot be measured.
        own_noise: of the scan of full quality, likewise.
    """

    subject: str
    level: float
    factor: float
    psnr: float
    gains: tuple[float, ...]
    noise: float | None
    own_noise: float | None

    @property
    def best(self) -> float:
        """Strength of the highest gain, below the first strength with a loss."""
        losses = [place for place, gain in enumerate(self.gains) if gain < 0]
        safe = losses[0] if losses else len(self.gains)
        return BLENDS[int(np.argmax(self.gains[:safe]))]

    def gain(self, strength: float) -> float:
        """PSNR gained in dB at a strength, linear between those of `BLENDS`."""
        return float(np.interp(strength, BLENDS, self.gains))

    def added(self, reference: float, task: Task) -> AddedNoise:
        """Return what a restorer that is told nothing takes for the added noise."""
        if self.noise is None:
            return AddedNoise.told(task.factor)
        return AddedNoise.measured(self.noise, reference)


def blend_gains(pair: NoisyPair, restorer: Restorer, task: Task) -> BlendGains:
    """Restore a pair with the network's own output, and score its blends with the input.

    Args:
        pair: both qualities in the unit of the task.
        restorer: restorer of the weights.
        task: whose low quality is the noise of a reduced dose.

    Raises:
        InputError: no slice has a PSNR.
    """
    options = RestoreOptions(strength=1.0)
    if restorer.uses_factor(task, options):
        options = replace(options, factor=pair.factor)
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
    return BlendGains(
        subject=pair.subject,
        level=pair.level,
        factor=pair.factor,
        psnr=float(mean[0]),
        gains=tuple(float(gain) for gain in mean - mean[0]),
        noise=_noise_of(pair.low, task),
        own_noise=_noise_of(pair.high, task),
    )


def calibrate(measured: Sequence[BlendGains], task: Task) -> Strength:
    """Find the largest rising strength that stays below the best one of every pair.

    Told how much noise was added, or taking it from the image, no pair loses PSNR: it gains from 0
    to its best strength, and the curve is at or below that where the pair lies on it.

    Args:
        measured: of all validation subjects at all noise levels.
        task: whose low quality is the noise of a reduced dose.

    Raises:
        InputError: the noise of no scan of full quality can be measured.
    """
    own = [gains.own_noise for gains in measured if gains.own_noise is not None]
    if not own:
        raise InputError(
            "the noise of none of the scans of full quality can be measured; give scans with more "
            "tissue"
        )
    reference = max(own)
    best: dict[float, float] = {}
    for gains in measured:
        told = AddedNoise.told(gains.factor).ratio
        for ratio in (told, gains.added(reference, task).ratio):
            best[ratio] = min(gains.best, best.get(ratio, 1.0))
    ratios = sorted(ratio for ratio in best if ratio > 0)
    rising = list(accumulate((best[ratio] for ratio in reversed(ratios)), min))[::-1]
    return Strength(reference, ((0.0, 0.0), *zip(ratios, rising, strict=True)))


def told_gain(gains: BlendGains, strength: Strength) -> tuple[float, float]:
    """Strength and gain in dB of a restorer that is told the factor."""
    at = strength.at(AddedNoise.told(gains.factor).ratio)
    return at, gains.gain(at)


def found_gain(gains: BlendGains, strength: Strength, task: Task) -> tuple[float, float]:
    """Strength and gain in dB of a restorer that takes the noise from the image."""
    at = strength.at(gains.added(strength.reference, task).ratio)
    return at, gains.gain(at)


def _noise_of(volume: Volume, task: Task) -> float | None:
    try:
        return task.rules.noise_of(volume, task)
    except OperatorError:
        return None
