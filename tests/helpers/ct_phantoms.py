"""What the CT tests share: a quick scanner, phantoms of ellipses, and a disc of another scanner."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from restore_rwkv.physics.ct.scanner import CTScanner

QUICK = CTScanner(views=120)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ellipses(
    shape: tuple[int, int], spacing: tuple[float, float], *parts: tuple[float, ...]
) -> Tensor:
    """Air, and ellipses of (x, y, half width, half height in mm, HU), later ones over earlier."""
    rows, columns = (
        (torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)
    )
    hu = torch.full(shape, -1000.0)
    for x, y, width, height, value in parts:
        inside = ((columns[None] - x) / width) ** 2 + ((-rows[:, None] - y) / height) ** 2 <= 1
        hu[inside] = value
    return hu


def poisson_disc(pixel: float, slices: int = 4, views: int = 360) -> Tensor:
    """Scan of a water disc of 125 mm radius, by none of the code that is under test.

    Its rays are one pixel apart, its kernel is Hann up to the Nyquist frequency of the pixels, it
    has no bowtie and no electronic noise, and values are whole: (slices, n, n) of 310 mm, HU.
    """
    size, mu, sent = int(310 / pixel), 0.0192, 1e6
    place = (np.arange(size) - (size - 1) / 2) * pixel
    lines = 2 * mu * np.sqrt(np.maximum(125**2 - place**2, 0))
    counts = np.random.default_rng(0).poisson(sent * np.exp(-lines), (slices, views, size))
    frequency = np.fft.rfftfreq(4 * size)  # per ray
    response = frequency * (1 + np.cos(2 * np.pi * frequency)) / 2
    measured = np.fft.rfft(-np.log(np.maximum(counts, 1) / sent), 4 * size)
    filtered = np.fft.irfft(measured * response)[..., :size]
    image = np.zeros((slices, size, size))
    for view, angle in enumerate(np.arange(views) * np.pi / views):
        seen = (place * np.cos(angle) - place[:, None] * np.sin(angle)) / pixel + (size - 1) / 2
        seen = seen.clip(0, size - 1.001)
        lower = seen.astype(int)
        weight = seen - lower
        image += filtered[:, view, lower] * (1 - weight) + filtered[:, view, lower + 1] * weight
    hu = 1000 * (image * np.pi / views / pixel / mu - 1)
    return torch.from_numpy(hu.round().clip(-1024)).float()


def ring(size: int, pixel: float, inner: float, outer: float) -> Tensor:
    """Pixels at a distance from inner to below outer mm from the centre, (size, size)."""
    place = (torch.arange(size) - (size - 1) / 2) * pixel
    distance = torch.hypot(place[:, None], place)
    return (distance >= inner) & (distance < outer)
