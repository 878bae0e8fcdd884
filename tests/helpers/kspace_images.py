"""What the tests of k-space and of MRI share: images, and the bins that are kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SHAPES = [(32, 32), (31, 45), (24, 37), (8, 5)]


def image_of(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def bins_kept(size: int, factor: float) -> np.ndarray:
    kept = int(size / factor)
    return np.arange(kept) - kept // 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
