"""From low-quality to restored slices in physical units: scale, run the network, scale back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from restore_rwkv.model import RestoreRWKV
from restore_rwkv.restoration.tiles import run
from restore_rwkv.tasks import Scaling, Task


def restore_slices(
    network: RestoreRWKV,
    slices: NDArray[np.float32],
    task: Task,
    scaling: Scaling,
    tile: tuple[int, int],
    lowest: float | None = None,
) -> NDArray[np.float32]:
    """Restore slices (N, H, W) in physical units: scale, run the network, scale back, clip.

    Args:
        network: in its inference form.
        slices: of one volume; they run together.
        task: what they are restored for.
        scaling: onto the network's values.
        tile: (rows, columns) of the tiles that a slice is cut into; (H, W) for whole slices.
        lowest: smallest value of the whole volume; that of the slices where not given.

    Returns:
        (N, H, W), physical units, not finite where values overflow.
    """
    slices = np.ascontiguousarray(slices)
    with np.errstate(over="ignore"):
        image = scaling.apply(task.rules.without_padding(slices, task))
    values = run(network, torch.from_numpy(image)[:, None], tile)
    restored: NDArray[np.float32] = scaling.invert(values)[:, 0].numpy()
    lowest = float(slices.min()) if lowest is None else lowest
    task.rules.keep_bounds(restored, slices, lowest, task)
    return restored
