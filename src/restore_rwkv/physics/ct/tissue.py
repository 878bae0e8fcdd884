"""Mean change of CT values in air, water-like tissue and bone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError

TISSUES = {"air": (-1100.0, -900.0), "water": (-50.0, 100.0), "bone": (300.0, 3072.0)}
"""Ranges of the smoothed scan in HU; "water" is soft tissue without fat."""

_WINDOW = 5  # pixels; so that the noise of a pixel hardly decides where it belongs
_FEWEST = 200  # pixels


def tissue_shift(before: Tensor, after: Tensor) -> dict[str, float | None]:
    """Return the mean of `after - before` in HU for each of `TISSUES`; None where hardly any is.

    A pixel belongs to a tissue if the mean of `before` over 5 x 5 pixels lies in its range.

    Args:
        before: slices (N, H, W), float32, HU.
        after: the same slices after a change.

    Raises:
        OperatorError: the shapes differ, or are not (N, H, W).
    """
    if before.ndim != 3 or before.shape != after.shape:
        raise OperatorError(
            f"tissue_shift: shapes are {tuple(before.shape)} and {tuple(after.shape)}; give two "
            "equal (N, H, W)"
        )
    smooth = F.avg_pool2d(
        before[:, None], _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False
    )[:, 0]
    difference = (after - before).double()
    shifts: dict[str, float | None] = {}
    for name, (low, high) in TISSUES.items():
        values = difference[(smooth >= low) & (smooth <= high)]
        shifts[name] = float(values.mean()) if values.numel() >= _FEWEST else None
    return shifts
