"""What the PET tests share: a quick scanner, and discs of known activity."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from restore_rwkv.physics.pet.scanner import PETScanner

# Slices of their own (no stack), 48 x 48 of 4 mm: quick, with counts per pixel like a head's.
SCANNER = PETScanner(size=48, pixel=4.0, slice_spacing=0.0, views=72, subsets=8, counts=2e5)
NO_BLUR = replace(SCANNER, point_spread=0.0, post_filter=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discs(slices: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Activity of 2 in a disc of 64 mm radius, with 6 and 0.5 in two small ones; mu of water."""
    place = (torch.arange(48, dtype=dtype) - 23.5) * 4
    y, x = torch.meshgrid(place, place, indexing="ij")
    body = (torch.hypot(x, y) < 64).to(dtype)
    activity = 2 * body + 4 * (torch.hypot(x - 24, y) < 18) - 1.5 * (torch.hypot(x + 24, y) < 18)
    return activity.expand(slices, 48, 48).clone(), (0.0096 * body).expand(slices, 48, 48).clone()
