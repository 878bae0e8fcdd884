"""Noise level of a CT scan, and the scanner whose noise is that of the scan."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct.dose import check_scan, own_noise
from restore_rwkv.physics.ct.projected import ProjectedSlices
from restore_rwkv.physics.ct.scanner import CTScanner

SOFT_TISSUE = (-100.0, 100.0)
CUTOFFS = (0.45, 0.65, 0.95, 1.4, 2.0)  # of the kernel; fitted between the first and the last
_BAND = 8.0  # mm; noise of longer waves is not compared, as organs have them too
_WEAK_BOWTIE = 0.02  # share of the scanner's bowtie that counts as none


def noise_level(hu: Tensor) -> float:
    """Standard deviation of the fine noise in soft tissue, in HU.

    The noise is the difference between the image and its mean over 7 x 7 pixels; coarser noise is
    not counted. It is measured in soft tissue (-100 to 100 HU) without air or bone within 4 pixels,
    and there only in the 30 % of pixels where the smoothed image is flattest, so that edges do not
    count. The result is 1.4826 times the median of the absolute difference.

    Args:
        hu: (..., H, W), float32 or float64, HU; all slices together give one number.

    Raises:
        OperatorError: wrong type or shape, or fewer than 200 pixels of homogeneous soft tissue.
    """
    return fine_noise(hu)[2]


def fine_noise(hu: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the fine noise that `noise_level` measures, where it does so, and its level.

    Args:
        hu: as for `noise_level`.

    Returns:
        The noise (N, H, W) in HU, the pixels of homogeneous soft tissue (N, H, W), and the standard
        deviation of the noise there.

    Raises:
        OperatorError: as `noise_level`.
    """
    check_scan(hu, (1.0, 1.0))
    slices = hu.reshape(-1, *hu.shape[-2:])
    flat = _flattest(slices, _soft_tissue(slices), 5, 0.3)
    noise = slices - _mean(slices, 7)
    return noise, flat, _spread(noise, flat)


@torch.no_grad()
def calibrated(scanner: CTScanner, hu: Tensor, spacing: tuple[float, float]) -> CTScanner:
    """Fit a scanner to the noise of a scan: its photons, the cutoff of its kernel, its bowtie.

    Four slices from the middle three sevenths are simulated at full dose, with a fixed seed, and
    their noise is compared with that of the scan in flat soft tissue:

    - the cutoff makes fine and coarse noise equally strong in scan and simulation;
    - the bowtie, between the scanner's own and none, does so for the inner and the outer half of
      the pixels;
    - photons are proportional to the inverse square of the noise.

    Pixels are selected in the sum of scan and simulation, so that the selection favours the noise
    of neither. The photons include the effects of slice thickness, tube current and noise reduction
    by the scanner.

    Args:
        scanner: starting point; its `photons`, `kernel.cutoff` and `bowtie_radius` change.
        hu: (..., H, W), float32 or float64, HU, at the dose that counts as full.
        spacing: distance between rows and between columns in mm.

    Raises:
        OperatorError: as for `noise_level`, or the scan has no noise.
    """
    check_scan(hu, spacing)
    slices = hu.reshape(-1, *hu.shape[-2:])
    last = len(slices) - 1
    slices = slices[sorted({round(last * (2 + part) / 7) for part in range(4)})]
    tissue = _Tissue(slices, spacing)
    projected = ProjectedSlices(slices, spacing, scanner)

    def compare(scanners: Sequence[CTScanner], seeds: Sequence[int]) -> list[_Comparison]:
        noises = projected.noise(scanners, _Draws(seeds))
        return [tissue.compare(noise) for noise in noises]

    trials = [_with_cutoff(scanner, cutoff) for cutoff in CUTOFFS]
    fitted = _fitted_kernel(scanner, compare(trials, [0] * len(trials)))
    without = dataclasses.replace(fitted, bowtie_radius=None)
    pairs = compare([fitted, without] * 2, [0, 0, 1, 1])
    radius = _fitted_radius(scanner.bowtie_radius, pairs[::2], pairs[1::2])
    fitted = dataclasses.replace(fitted, bowtie_radius=radius)
    levels = [one.level for one in compare([fitted] * 3, range(3))]
    return _at_level(fitted, statistics.fmean(levels))


class _Draws:
    """Draws the noise of one scanner after the other, each with its own seed."""

    def __init__(self, seeds: Sequence[int]):
        self._seeds = iter(seeds)

    def __call__(self, counts: Tensor, scanner: CTScanner) -> Tensor:
        return own_noise(counts, scanner, torch.Generator().manual_seed(next(self._seeds)))


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Variances of simulated noise over those of the scan's.

    Attributes:
        level: noise of both bands.
        fineness: fine over coarse band.
        middle: inner over outer half of the pixels.
    """

    level: float
    fineness: float
    middle: float


class _Tissue:
    """Flat soft tissue of slices (N, H, W), in which noise is compared."""

    def __init__(self, hu: Tensor, spacing: tuple[float, float]):
        self._hu, self._soft = hu, _soft_tissue(hu)
        self._side = 2 * round((_BAND / min(spacing) - 1) / 2) + 1
        self._side = min(max(self._side, 5), 31)
        self._bands = self._split(hu)
        rows, columns = (
            (torch.arange(count, device=hu.device) - (count - 1) / 2) * step
            for count, step in zip(hu.shape[1:], spacing, strict=True)
        )
        self._distance = torch.hypot(rows[:, None], columns).expand(hu.shape)

    def compare(self, noise: Tensor) -> _Comparison:
        """Compare simulated noise (N, H, W) with that of the scan."""
        bands = self._split(noise)
        scale = self._ratios(bands, self._soft)[0] ** -0.5
        flat = _flattest(self._hu + scale * noise, self._soft, 7, 0.3)
        fine, coarse, both = self._ratios(bands, flat)
        near = self._distance <= self._distance[flat].median()
        inner, outer = (self._ratios(bands[2:], flat & half)[0] for half in (near, ~near))
        return _Comparison(both, fine / coarse, inner / outer)

    def _split(self, images: Tensor) -> list[Tensor]:
        """Fine band, coarse band, and their sum."""
        fine, coarse = _mean(images, 3), _mean(images, self._side)
        return [images - fine, fine - coarse, images - coarse]

    def _ratios(self, bands: Sequence[Tensor], where: Tensor) -> list[float]:
        """Variance of each band over that of the scan."""
        own = [_clipped_spread(band, where) for band in self._bands[-len(bands) :]]
        if min(own) == 0:
            raise OperatorError(
                "hu has no noise in soft tissue; set the photons yourself (photons=N)"
            )
        return [
            (_clipped_spread(band, where) / of) ** 2 for band, of in zip(bands, own, strict=True)
        ]


def _with_cutoff(scanner: CTScanner, cutoff: float) -> CTScanner:
    kernel = dataclasses.replace(scanner.kernel, cutoff=cutoff)
    return dataclasses.replace(scanner, kernel=kernel)


def _at_level(scanner: CTScanner, level: float) -> CTScanner:
    """Scanner whose noise has 1 / level of the variance."""
    return dataclasses.replace(scanner, photons=scanner.photons * level)


def _fitted_kernel(scanner: CTScanner, compared: Sequence[_Comparison]) -> CTScanner:
    """Scanner with noise as fine and about as strong as the scan's, from those at `CUTOFFS`."""
    fineness = np.maximum.accumulate([math.log(one.fineness) for one in compared])
    cutoff = np.interp(0, fineness, np.log(CUTOFFS))
    level = np.interp(cutoff, np.log(CUTOFFS), [math.log(one.level) for one in compared])
    return _at_level(_with_cutoff(scanner, math.exp(cutoff)), math.exp(level))


def _fitted_radius(
    radius: float | None, given: Sequence[_Comparison], without: Sequence[_Comparison]
) -> float | None:
    """Radius of a bowtie between the given one and none, on a scale of 1 / radius."""
    with_bowtie, flat = (
        statistics.fmean(math.log(one.middle) for one in compared) for compared in (given, without)
    )
    if radius is None or with_bowtie >= flat:
        return radius
    share = flat / (flat - with_bowtie)
    return None if share < _WEAK_BOWTIE else radius / min(share, 1)


def _mean(images: Tensor, side: int) -> Tensor:
    """Mean over a window of side x side pixels, of (N, H, W)."""
    for window in ((side, 1), (1, side)):
        padding = window[0] // 2, window[1] // 2
        images = F.avg_pool2d(images, window, 1, padding, count_include_pad=False)
    return images


def _soft_tissue(hu: Tensor) -> Tensor:
    """Pixels of soft tissue away from air and bone."""
    if min(hu.shape[1:]) < 2:
        raise OperatorError(
            f"hu has slices of {hu.shape[1]} x {hu.shape[2]} pixels, too few to measure their "
            "noise; set the photons yourself (photons=N)"
        )
    smooth = _mean(hu, 5)
    soft = (smooth > SOFT_TISSUE[0]) & (smooth < SOFT_TISSUE[1])
    soft = _mean(soft.to(hu), 9) > 0.999
    if (inside := int(soft.sum())) < 200:
        raise OperatorError(
            f"hu has {inside} pixels inside soft tissue ({SOFT_TISSUE[0]:g} to {SOFT_TISSUE[1]:g} "
            "HU), too few to measure its noise; set the photons yourself (photons=N)"
        )
    return soft


def _flattest(images: Tensor, soft: Tensor, side: int, share: float) -> Tensor:
    """The share of soft-tissue pixels where images, smoothed by windows of `side`, are flattest."""
    down, right = torch.gradient(_mean(_mean(images, side), side), dim=(1, 2))
    slope = _mean(torch.hypot(down, right), 5)
    inside = slope[soft]
    return soft & (slope <= inside.kthvalue(math.ceil(share * inside.numel())).values)


def _spread(images: Tensor, where: Tensor) -> float:
    """Robust standard deviation, from the median."""
    return 1.4826 * float(images[where].abs().median())


def _clipped_spread(images: Tensor, where: Tensor) -> float:
    """Standard deviation with values clipped at 2.5 of `_spread`, less random than that."""
    limit = 2.5 * _spread(images, where)
    return float(images[where].clamp(-limit, limit).square().double().mean().sqrt())
