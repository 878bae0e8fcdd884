"""Visual information fidelity (VIF) in the pixel domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.measures.ssim import gaussian, window_mean

Image = NDArray[np.float64]

SMALLEST_SIDE = 41
"""Pixels along each axis for the window to fit at the coarsest scale."""

_RADII = (8, 4, 2, 1)  # of the window at each scale, in pixels of that scale
_EYE = 2.0  # variance of the noise of the eye
_FLAT = 1e-10  # variance of the truth below which nothing can be seen


def vif(x: Image, y: Image) -> float:
    """Return VIF of a restored and a true image, 0 or more; 1 for identical ones.

    `sum log(1 + g^2 syy / (sv + 2)) / sum log(1 + syy / 2)` over pixels and 4 scales, with
    covariances s over a Gaussian window of `2 r + 1` pixels and sigma `(2 r + 1) / 5` that lies
    within the image, the gain `g = sxy / syy`, 0 where it would be negative, and the variance
    `sv = sxx - g sxy` that the gain does not explain. Each scale is the one before under its
    window, every other pixel.

    Source: Sheikh and Bovik, IEEE Trans. Image Process. 15:430 (2006), in the pixel domain as their
    `vifp_mscale`.

    Args:
        x: restored image (H, W), on the scale from 0 to 255, of at least 41 x 41 pixels.
        y: true image of the same shape, on the same scale, not constant.
    """
    # Covariances do not depend on it, and squares of large values would lose their digits.
    x, y = x - x.mean(), y - y.mean()
    kept = whole = 0.0
    for scale, radius in enumerate(_RADII):
        weights = gaussian(radius, (2 * radius + 1) / 5)
        if scale:
            x, y = (window_mean(image, weights, inside=True)[::2, ::2] for image in (x, y))
        mean_x, mean_y = (window_mean(image, weights, inside=True) for image in (x, y))
        variance_x, variance_y, covariance = (
            window_mean(product, weights, inside=True) - means
            for product, means in (
                (x * x, mean_x * mean_x),
                (y * y, mean_y * mean_y),
                (x * y, mean_x * mean_y),
            )
        )
        variance_y = np.maximum(variance_y, 0)
        gain = np.maximum(covariance, 0) / np.maximum(variance_y, _FLAT)
        gain[variance_y < _FLAT] = 0
        rest = np.maximum(variance_x - gain * covariance, 0)
        kept += float(np.log1p(gain**2 * variance_y / (rest + _EYE)).sum())
        whole += float(np.log1p(variance_y / _EYE).sum())
    return kept / whole
