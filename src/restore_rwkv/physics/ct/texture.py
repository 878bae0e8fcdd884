"""How fine the noise of a CT scan is: the correlation of neighbouring pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct.calibration import fine_noise

_LIMIT = 2.5  # standard deviations at which differences are clipped, so that edges do not count


@dataclass(frozen=True)
class NoiseTexture:
    """Fine noise in soft tissue.

    Attributes:
        level: standard deviation in HU, as `noise_level` measures it.
        correlation: of the noise of pixels beside each other, mean over both directions, -1 to 1:
            0 is white, and close to 1 smooth.
    """

    level: float
    correlation: float

    def frequency(self, pixel: float) -> float:
        """Frequency of the noise along an axis, in cycles per mm.

        It is about the root mean square over the power spectrum: for slow waves
        `1 - rho = 2 pi^2 <f^2>`.

        Args:
            pixel: side of a pixel in mm.
        """
        return math.sqrt(max(1 - self.correlation, 0) / 2) / (math.pi * pixel)


def noise_texture(hu: Tensor) -> NoiseTexture:
    """Measure level and correlation of the fine noise in homogeneous soft tissue.

    The first lag of the autocorrelation says where the power spectrum of the noise has its weight:
    `rho = sum S(f) cos(2 pi f) / sum S(f)`, with f along an axis in cycles per pixel
    (Wiener-Khinchin).

    Args:
        hu: (N, H, W), float32 or float64, HU; all slices together give one result.

    Raises:
        OperatorError: as `noise_level`, or the scan has no noise.
    """
    noise, where, level = fine_noise(hu)
    if not level > 0:
        raise OperatorError("hu has no noise in soft tissue; give a scan that was not smoothed")
    noise = noise.clamp(-_LIMIT * level, _LIMIT * level)
    variance = noise[where].square().double().mean()
    products = []
    for axis in (-2, -1):
        size = noise.shape[axis] - 1
        both = where.narrow(axis, 0, size) & where.narrow(axis, 1, size)
        pairs = noise.narrow(axis, 0, size) * noise.narrow(axis, 1, size)
        products.append(pairs[both].double().mean())
    return NoiseTexture(level, float((products[0] + products[1]) / 2 / variance))
