"""Noise level of a CT scan, and the number of photons that explains it."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct.dose import CTScanner, check_scan, scan_noise

SOFT_TISSUE = (-100.0, 100.0)


def noise_level(hu: Tensor) -> float:
    """Standard deviation of the noise in soft tissue, in HU.

    The noise is the difference between the image and its mean over 7 x 7 pixels. It is measured in
    soft tissue (-100 to 100 HU) without air or bone within 4 pixels, and there only in the 30 % of
    pixels where the smoothed image is flattest, so that edges do not count. The result is 1.4826
    times the median of the absolute difference.

    Args:
        hu: (..., H, W), float32 or float64, HU; all slices together give one number.

    Raises:
        OperatorError: wrong type or shape, or fewer than 200 pixels of homogeneous soft tissue.
    """
    check_scan(hu, (1.0, 1.0))
    slices = hu.reshape(-1, *hu.shape[-2:])
    return _spread(slices, _homogeneous(slices))


@torch.no_grad()
def calibrated(scanner: CTScanner, hu: Tensor, spacing: tuple[float, float]) -> CTScanner:
    """Fit the scanner's number of photons to the noise of a scan.

    Four slices from the middle three sevenths are simulated at full dose, with a fixed seed, and
    their noise is measured in the same pixels as that of the scan (see `noise_level`). The number
    of photons is proportional to the inverse square of the noise. The fitted number therefore
    includes the effects of slice thickness, tube current and noise reduction by the scanner.

    Args:
        scanner: starting point; only its `photons` change.
        hu: (..., H, W), float32 or float64, HU, at the dose that counts as full.
        spacing: distance between rows and between columns in mm.

    Raises:
        OperatorError: as for `noise_level`, or the scan has no noise.
    """
    check_scan(hu, spacing)
    slices = hu.reshape(-1, *hu.shape[-2:])
    last = len(slices) - 1
    slices = slices[sorted({round(last * (2 + part) / 7) for part in range(4)})]
    flat = _homogeneous(slices)
    level = _spread(slices, flat)
    if level == 0:
        raise OperatorError("hu has no noise in soft tissue; set the scanner's photons yourself")
    for _ in range(2):  # twice, since electronic noise does not depend on the number of photons
        noise = scan_noise(
            slices, spacing, scanner=scanner, generator=torch.Generator().manual_seed(0)
        )
        photons = scanner.photons * (_spread(noise, flat) / level) ** 2
        scanner = dataclasses.replace(scanner, photons=photons)
    return scanner


def _mean(images: Tensor, side: int) -> Tensor:
    """Mean over a window of side x side pixels, of (N, H, W)."""
    mean = F.avg_pool2d(images[:, None], side, 1, side // 2, count_include_pad=False)
    return mean[:, 0]


def _homogeneous(hu: Tensor) -> Tensor:
    """Pixels of soft tissue away from air and bone, where the smoothed image is flattest."""
    smooth = _mean(hu, 5)
    soft = (smooth > SOFT_TISSUE[0]) & (smooth < SOFT_TISSUE[1])
    soft = _mean(soft.to(hu), 9) > 0.999
    down, right = torch.gradient(_mean(smooth, 5), dim=(1, 2))
    slope = _mean(torch.hypot(down, right), 5)
    inside = slope[soft]
    if inside.numel() < 200:
        raise OperatorError(
            f"hu has {inside.numel()} pixels inside soft tissue ({SOFT_TISSUE[0]:g} to "
            f"{SOFT_TISSUE[1]:g} HU), too few to measure its noise; set the photons yourself"
        )
    flattest = inside.kthvalue(math.ceil(0.3 * inside.numel())).values
    return soft & (slope <= flattest)


def _spread(images: Tensor, where: Tensor) -> float:
    """Robust standard deviation of the difference to the 7 x 7 mean."""
    return 1.4826 * float((images - _mean(images, 7))[where].abs().median())
