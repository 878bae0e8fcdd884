"""Noise of MRI, measured in the air around the body."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore_rwkv.physics.mri.kspace import REAL_TYPES, check_image

_CORNER = 8  # of a side
_AIR = 0.1  # of the root mean square of the slice: corners above it are not air


def corner_noise(images: Tensor, *, magnitude: bool = True) -> float:
    """Standard deviation per channel (real, imaginary) of the noise in the corners of slices.

    In air a magnitude has `E[m^2] = 2 sigma^2` (Gudbjartsson and Patz, MRM 34:910, 1995). Each
    slice gives that of the corner, an eighth of each side, with the smallest values; the result is
    the median over slices. Ringing of a small block of k-space reaches the corners too, so that the
    noise is at most this.

    Args:
        images: (N, H, W), float32 or float64, any unit.
        magnitude: whether they are magnitudes; otherwise they are one of the channels.

    Returns:
        At least 0, in the unit of the images; 0 where no slice has a corner without body, or where
        what lies outside the body was set to 0.

    Raises:
        OperatorError: wrong type or shape.
    """
    check_image(images, REAL_TYPES)
    slices = images.reshape(-1, *images.shape[-2:]).double()
    rows, columns = (max(1, side // _CORNER) for side in slices.shape[1:])
    corners = [
        slices[:, down, along].square().mean(dim=(1, 2))
        for down in (slice(rows), slice(-rows, None))
        for along in (slice(columns), slice(-columns, None))
    ]
    power = torch.stack(corners).amin(dim=0)
    air = power <= _AIR**2 * slices.square().mean(dim=(1, 2))
    if not bool(air.any()):
        return 0.0
    return math.sqrt(float(power[air].median()) / (2 if magnitude else 1))
