"""What the tests of challenges share: phantoms with homogeneous tissue, and simple methods."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from restore_rwkv.io import Volume
from restore_rwkv.tasks import get_task

MRI = get_task("mri-sr")


def head(side: int = 128, slices: int = 6) -> Volume:
    """An MRI phantom: a disc of 600 in air, a little uneven and noisy, pixels of 1.5 x 1.5 mm."""
    place = (np.arange(side) - (side - 1) / 2) * 1.5
    inside = np.hypot(place[:, None], place) < 0.43 * side * 1.5
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (side, side, slices))
    uneven = gaussian_filter(noise, (12, 12, 0))
    values = inside[..., None] * 600 * (1 + 0.02 * uneven / uneven.std()) + 12 * noise
    affine = np.diag([1.5, 1.5, 5.0, 1.0])
    return Volume(np.abs(values).astype(np.float32), affine, unit="a.u.", modality="MR")


def blurring(low: Volume, /) -> Volume:
    """A network that blurs."""
    return low.with_data(gaussian_filter(low.data, (3, 3, 0)))


def painting(low: Volume, /) -> Volume:
    """A network that paints balls of 15 % into its input, every 30 mm."""
    data = low.data.copy()
    place = np.arange(data.shape[0]) * 1.5
    along = (place + 15) % 30 - 15
    spot = np.exp(-((along[:, None] ** 2 + along**2) / (2 * 4.0**2)))
    return low.with_data(data * (1 + 0.15 * spot[..., None]).astype(np.float32))
