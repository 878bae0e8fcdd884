"""Structural similarity: SSIM with the window as each protocol chooses it, and MS-SSIM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_K1 = 0.01
_K2 = 0.03

MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales of MS-SSIM, the finest first."""

MS_SSIM_SIDE = 176
"""Pixels along each axis for the window of 11 pixels to fit at the coarsest scale."""


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


def gaussian(radius: int, sigma: float) -> tuple[float, ...]:
    """Return `2 radius + 1` weights of a Gaussian, of sum 1."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return tuple(float(weight) for weight in weights / weights.sum())


PAPER_WINDOW = SSIMWindow(weights=gaussian(5, 1.5), inside=False, sample=False)
"""Gaussian of 11 x 11 pixels and sigma 1.5 with zero padding, as in the paper's code."""

WANG_WINDOW = SSIMWindow(weights=gaussian(5, 1.5), inside=True, sample=False)
"""That Gaussian without padding, as in the code of Wang et al."""

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
    luminance, structure = _factors(x, y, data_range, window)
    return float(np.mean(luminance * structure))


def ms_ssim(x: NDArray[np.float64], y: NDArray[np.float64], data_range: float) -> float:
    """Return the multi-scale SSIM of two images (Wang et al., Asilomar Conf. 2003, eq. 7).

    The mean of `luminance structure` at the coarsest of five scales, times the means of `structure`
    at the others, each to the power of `MS_SSIM_EXPONENTS`. Negative means count as 0, as their
    powers do not exist.

    Args:
        x: image (H, W) of at least `MS_SSIM_SIDE` pixels along each axis.
        y: image of the same shape.
        data_range: L, above 0.
    """
    value, coarsest = 1.0, len(MS_SSIM_EXPONENTS) - 1
    for scale, exponent in enumerate(MS_SSIM_EXPONENTS):
        luminance, structure = _factors(x, y, data_range, WANG_WINDOW)
        factor = luminance * structure if scale == coarsest else structure
        value *= max(float(np.mean(factor)), 0.0) ** exponent
        x, y = _halved(x), _halved(y)
    return value


def window_mean(
    image: NDArray[np.float64], weights: tuple[float, ...], *, inside: bool
) -> NDArray[np.float64]:
    """Return weighted means over the window around each pixel that has one.

    Args:
        image: (H, W).
        weights: along each axis, of odd number above 1.
        inside: whether only windows within the image count; otherwise zeros lie beyond it.
    """
    rows = ndimage.correlate1d(image, weights, axis=0, mode="constant")
    mean: NDArray[np.float64] = ndimage.correlate1d(rows, weights, axis=1, mode="constant")
    radius = len(weights) // 2
    return mean[radius:-radius, radius:-radius] if inside else mean


def _factors(
    x: NDArray[np.float64], y: NDArray[np.float64], data_range: float, window: SSIMWindow
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luminance, and contrast times structure, around each pixel."""
    scale = _sample_scale(window)
    offset_x = offset_y = 0.0
    if window.inside:
        # Covariances do not depend on it, and squares of large values would lose their digits.
        offset_x, offset_y = float(x.mean()), float(y.mean())
        x, y = x - offset_x, y - offset_y
    mean_x, mean_y = _mean(x, window), _mean(y, window)
    variance_x = scale * (_mean(x * x, window) - mean_x * mean_x)
    variance_y = scale * (_mean(y * y, window) - mean_y * mean_y)
    covariance = scale * (_mean(x * y, window) - mean_x * mean_y)
    mean_x, mean_y = mean_x + offset_x, mean_y + offset_y
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2 x 2 pixels; a last row or column without a neighbour is left out."""
    height, width = (side // 2 for side in image.shape)
    blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3))
    return means


def _mean(image: NDArray[np.float64], window: SSIMWindow) -> NDArray[np.float64]:
    return window_mean(image, window.weights, inside=window.inside)


def _sample_scale(window: SSIMWindow) -> float:
    pixels = window.side**2
    return pixels / (pixels - 1) if window.sample else 1.0
