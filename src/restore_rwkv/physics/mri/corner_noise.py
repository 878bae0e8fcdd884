"""Noise of MRI, measured in the air around the body."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.physics.mri.kspace import REAL_TYPES, check_image

_CORNER = 8  # of a side
_LEAST = 8  # pixels of a side
_AIR = 0.1  # of the root mean square of the slice: corners above it are not air
_RAYLEIGH = math.sqrt(2 - math.pi / 2)  # standard deviation of a magnitude in air, over sigma


def corner_noise(images: Tensor, *, magnitude: bool = True) -> float:
    """Standard deviation per channel (real, imaginary) of the noise in the corners of slices.

    In air a magnitude has the variance `(2 - pi / 2) sigma^2` (Gudbjartsson and Patz, MRM 34:910,
    1995). It is taken from the image after the 3 x 3 kernel (1, -2, 1)^T (1, -2, 1) / 6 (Immerkaer,
    Computer Vision and Image Understanding 64:300, 1996), which keeps the variance of white noise
    and leaves ghosts and their slopes out. Each slice gives that of the corner, an eighth of each
    side, where it is smallest; the result is the median over slices. The smallest of four is about
    a fifth less than the noise where that is white, and more where ringing reaches the corners.

    Args:
        images: (N, H, W), float32 or float64, any unit, on the matrix that was measured: on a finer
            one (zero-filled) noise is smooth.
        magnitude: whether they are magnitudes; otherwise they are one of the channels.

    Returns:
        At least 0, in the unit of the images; 0 where no corner is free of the body, where what
        lies outside the body was set to 0, or for less than 8 pixels a side.

    Raises:
        OperatorError: wrong type or shape.
    """
    check_image(images, REAL_TYPES)
    slices = images.reshape(-1, *images.shape[-2:]).double()
    if min(slices.shape[1:]) < _LEAST:
        return 0.0
    side = torch.tensor([1.0, -2.0, 1.0], dtype=slices.dtype, device=slices.device)
    noise = F.conv2d(slices[:, None], (side[:, None] * side / 6)[None, None])[:, 0]
    limit = _AIR**2 * slices.square().mean(dim=(1, 2))
    power, found = (torch.stack(_corner_powers(of)) for of in (slices, noise))
    lowest = torch.where(power <= limit, found, math.inf).amin(dim=0)
    lowest = lowest[lowest.isfinite()]
    if not lowest.numel():
        return 0.0
    sigma = math.sqrt(float(lowest.median()))
    return sigma / _RAYLEIGH if magnitude else sigma


def _corner_powers(slices: Tensor) -> list[Tensor]:
    """Mean square of each of the four corners of slices (N, H, W), four of (N,)."""
    rows, columns = (max(1, round(size / _CORNER)) for size in slices.shape[1:])
    return [
        slices[:, down, along].square().mean(dim=(1, 2))
        for down in (slice(rows), slice(-rows, None))
        for along in (slice(columns), slice(-columns, None))
    ]
