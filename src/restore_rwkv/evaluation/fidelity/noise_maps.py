"""Maps of the variance of noise: at the borders of images, and between simulated slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def mirrored_variance(shape: Sequence[int], *sigma: float) -> NDArray[np.float32]:
    """Return the variance of white noise under a Gaussian, over that far from all borders.

    At a border half of the weights fall on the mirrored side, on values that were counted already:
    with the weights w of pixel x, `sum w^2` is twice as large in the first row as in the middle.
    A map of variances is divided by this before it is smoothed, and multiplied after, so that
    smoothing does not take from the border what belongs there.

    Args:
        shape: rows and columns.
        sigma: standard deviation of the Gaussian in pixels, along rows and columns or along both.

    Returns:
        An image of that shape, 1 in the middle, 2 along a border and 4 in a corner.
    """
    widths = sigma if len(sigma) == len(shape) else sigma * len(shape)
    rows, columns = (_along(count, width) for count, width in zip(shape, widths, strict=True))
    return np.outer(rows, columns).astype(np.float32)


def _along(count: int, sigma: float) -> NDArray[np.float64]:
    """Sum of squared weights of each of `count` pixels, over that without borders."""
    from scipy.ndimage import gaussian_filter1d

    reach = int(4 * sigma + 0.5)
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1
    alone = np.square(gaussian_filter1d(impulse, sigma)).sum()
    # Weights of a pixel are the responses to impulses in all the others.
    weights = gaussian_filter1d(np.eye(count), sigma, axis=1)
    squares: NDArray[np.float64] = np.square(weights).sum(axis=0) / alone
    return squares


def between(
    images: NDArray[np.float32], places: NDArray[np.intp], count: int
) -> NDArray[np.float32]:
    """Interpolate images (M, H, W) at places linearly to `count` slices; constant beyond them."""
    at = np.interp(np.arange(count), places, np.arange(len(places)))
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(places) - 1)
    part = (at - low).astype(np.float32)[:, None, None]
    found: NDArray[np.float32] = images[low] * (1 - part) + images[high] * part
    return found
