"""Structural similarity (SSIM), with the window as each protocol chooses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_K1 = 0.01
_K2 = 0.03


@dataclass(frozen=True, kw_only=True)
class SSIMWindow:
    """The neighbourhood that means and variances of SSIM are taken over.

    Attributes:
        weights: weights along each axis, of odd number and sum 1; the window is their product.
        inside: whether only windows within the image count; otherwise there is one around every
            pixel, with zeros beyond the border.
        sample: whether variances are divided by one less than the number of pixels in the window.
    """

    weights: tuple[float, ...]
    inside: bool
    sample: bool

    @property
    def side(self) -> int:
        """Number of pixels along each axis."""
        return len(self.weights)


def _gaussian(radius: int, sigma: float) -> tuple[float, ...]:
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return tuple(float(weight) for weight in weights / weights.sum())


PAPER_WINDOW = SSIMWindow(weights=_gaussian(5, 1.5), inside=False, sample=False)
"""Gaussian of 11 x 11 pixels and sigma 1.5 with zero padding, as in the paper's code."""

SKIMAGE_WINDOW = SSIMWindow(weights=(1 / 7,) * 7, inside=True, sample=True)
"""Mean of 7 x 7 pixels, the default of `skimage.metrics.structural_similarity`."""


def mean_ssim(
    x: NDArray[np.float64], y: NDArray[np.float64], data_range: float, window: SSIMWindow
) -> float:
    """Return the mean SSIM of two images (Wang et al., IEEE TIP 13:600, 2004, eq. 13 and 17).

    `SSIM = (2 mx my + C1) (2 sxy + C2) / ((mx^2 + my^2 + C1) (sxx + syy + C2))` with means m and
    covariances s over the window, `C1 = (0.01 L)^2` and `C2 = (0.03 L)^2`.

    Args:
        x: image (H, W); with windows inside, of at least `window.side` pixels along each axis.
        y: image of the same shape.
        data_range: L, above 0.
        window: over which means and variances are taken.
    """
    scale = _sample_scale(window)
    mean_x, mean_y = _window_mean(x, window), _window_mean(y, window)
    variance_x = scale * (_window_mean(x * x, window) - mean_x * mean_x)
    variance_y = scale * (_window_mean(y * y, window) - mean_y * mean_y)
    covariance = scale * (_window_mean(x * y, window) - mean_x * mean_y)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def _sample_scale(window: SSIMWindow) -> float:
    pixels = window.side**2
    return pixels / (pixels - 1) if window.sample else 1.0


def _window_mean(image: NDArray[np.float64], window: SSIMWindow) -> NDArray[np.float64]:
    """Weighted mean over the window around each pixel that has one."""
    rows = ndimage.correlate1d(image, window.weights, axis=0, mode="constant")
    mean: NDArray[np.float64] = ndimage.correlate1d(rows, window.weights, axis=1, mode="constant")
    radius = window.side // 2
    return mean[radius:-radius, radius:-radius] if window.inside else mean
