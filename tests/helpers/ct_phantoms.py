"""What the CT tests share: a quick scanner, and phantoms of ellipses."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_rwkv.physics.ct.dose import CTScanner

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
