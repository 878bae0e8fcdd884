"""A restored scan that is measured again, by the physics that its modality is degraded with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from restore_rwkv.io import Volume
    from restore_rwkv.tasks.modality import AxisFactor
    from restore_rwkv.tasks.turns import Turn


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredScan:
    """A restored scan, and the scan that it was restored from.

    Attributes:
        scan: the low-quality scan, on the grid of `restored` and in its unit.
        restored: what stands for the truth.
        axis: array axis across the slices.
        factor: MRI: reduction of the measurement, one number or one for each of (H, W).
    """

    scan: Volume
    restored: Volume
    axis: int
    factor: AxisFactor


class MeasureAgain(Protocol):
    """Draws low-quality slices of a restored scan, as its scanner might have measured them."""

    def __call__(self, turn: Turn, generator: torch.Generator) -> NDArray[np.float32]:
        """Return the slices (N, H, W), in physical units, turned: (N, W, H) if transposed."""
