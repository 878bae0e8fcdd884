"""HaarPSI, a similarity of images that weights edges as the Haar wavelet finds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]

SMALLEST_SIDE = 16
"""Pixels along each axis for the coarsest filter, 8 x 8 after the image is halved, to fit."""

C = 5.0
"""Constant of the similarity of coefficients for medical images (30 for photographs)."""

ALPHA = 4.9
"""Slope of the logistic function for medical images (4.2 for photographs)."""


def haarpsi(x: Image, y: Image, c: float = C, alpha: float = ALPHA) -> float:
    """Return HaarPSI of two images, in (0, 1]; 1 for identical ones.

    Images are halved by the means of 2 x 2 pixels. With h_k the response to the Haar filter of 2^k
    pixels along one axis, `S = mean over k = 1, 2 of (2 |hx_k| |hy_k| + C) / (hx_k^2 + hy_k^2 + C)`
    and `W = max(|hx_3|, |hy_3|)`; with the logistic function f of slope alpha, HaarPSI is
    `(f^-1(sum(W f(S)) / sum(W)))^2`, where sums are over pixels and both axes. Zeros lie beyond the
    border.

    Source: Reisenhofer et al., Signal Processing: Image Communication 61:33 (2018); constants for
    medical images: Karner et al., arXiv 2410.24098.

    Args:
        x: image (H, W), on the scale from 0 to 255.
        y: image of the same shape, on the same scale; not both are zero everywhere.
        c: constant C.
        alpha: slope of the logistic function.
    """
    x, y = _halved(x), _halved(y)
    total = weights = 0.0
    for axis in (0, 1):
        weight = np.maximum(_haar(x, 3, axis), _haar(y, 3, axis))
        similarity = (_alike(x, y, 1, axis, c) + _alike(x, y, 2, axis, c)) / 2
        total += float(np.sum(weight / (1 + np.exp(-alpha * similarity))))
        weights += float(np.sum(weight))
    share = total / weights
    return float(np.log(share / (1 - share)) / alpha) ** 2


def _alike(x: Image, y: Image, scale: int, axis: int, c: float) -> Image:
    a, b = _haar(x, scale, axis), _haar(y, scale, axis)
    alike: Image = (2 * a * b + c) / (a * a + b * b + c)
    return alike


def _halved(image: Image) -> Image:
    return _sums(_sums(image, (1.0, 1.0), 0), (1.0, 1.0), 1)[::2, ::2] / 4


def _haar(image: Image, scale: int, axis: int) -> Image:
    """Return magnitudes of the difference of neighbouring blocks along an axis."""
    half = 2 ** (scale - 1)
    step = (1.0,) * half + (-1.0,) * half
    blocks = _sums(image, (1.0,) * (2 * half), 1 - axis)
    magnitude: Image = np.abs(_sums(blocks, step, axis)) / 2**scale
    return magnitude


def _sums(image: Image, weights: tuple[float, ...], axis: int) -> Image:
    """Weighted sums of an even number of pixels, the pixel itself the last of the first half."""
    sums: Image = ndimage.correlate1d(image, weights, axis=axis, mode="constant", origin=-1)
    return sums
