"""From low-quality to restored slices in physical units: scale, run the network, scale back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_rwkv.model import InferenceNetwork
from restore_rwkv.restoration.tiles import run
from restore_rwkv.tasks import TURNS, AxisFactor, Scaling, Task, Turn


@dataclass(frozen=True)
class Refinement:
    """What is done to slices beyond one pass of the network.

    Attributes:
        turns: turns and mirrors of a slice over whose results the mean is taken.
        steps: steps that hold the result to what was measured (`Modality.keep_measured`).
        factor: reduction of the measurement, one number or one for each of (H, W), for `steps`.
        signed: whether the scan is signed, for `steps`; otherwise it is a magnitude.
        strength: part of the correction that is applied, 0 to 1.
        noise_level: of the noise to remove (`AddedNoise.level`); None for a network that is not
            told.
    """

    turns: tuple[Turn, ...] = TURNS[:1]
    steps: int = 0
    factor: AxisFactor = 1.0
    signed: bool = False
    strength: float = 1.0
    noise_level: float | None = None


NETWORK_ONLY = Refinement()


def restore_slices(
    network: InferenceNetwork,
    slices: NDArray[np.float32],
    task: Task,
    scaling: Scaling,
    tile: tuple[int, int],
    lowest: float | None = None,
    refinement: Refinement = NETWORK_ONLY,
) -> NDArray[np.float32]:
    """Restore slices (N, H, W) in physical units: scale, run the network, scale back, clip.

    Args:
        network: in its inference form.
        slices: of one volume; they run together.
        task: what they are restored for.
        scaling: onto the network's values.
        tile: (rows, columns) of the tiles that a slice is cut into; (H, W) for whole slices.
        lowest: smallest value of the whole volume; that of the slices where not given.
        refinement: mean over turns, steps towards what was measured, of whole slices, and the
            strength a: the result is `slices + a (restored - slices)`.

    Returns:
        (N, H, W), physical units, not finite where values overflow.
    """
    slices = np.ascontiguousarray(slices)
    with np.errstate(over="ignore"):
        image = scaling.apply(task.rules.without_padding(slices, task))
    values = _mean_over_turns(network, torch.from_numpy(image)[:, None], tile, refinement)
    restored: NDArray[np.float32] = scaling.invert(values)[:, 0].numpy()
    lowest = float(slices.min()) if lowest is None else lowest
    if refinement.steps:
        held = (refinement.factor, refinement.steps, refinement.signed)
        task.rules.keep_measured(restored, slices, *held)
    task.rules.keep_bounds(restored, slices, lowest, task)
    if refinement.strength < 1:
        restored = slices + np.float32(refinement.strength) * (restored - slices)
        task.rules.keep_bounds(restored, slices, lowest, task)  # which rounding may have left
    return restored


def _mean_over_turns(
    network: InferenceNetwork, images: Tensor, tile: tuple[int, int], refinement: Refinement
) -> Tensor:
    """Run a network on turned images (N, 1, H, W), turn the results back, and average them."""
    turns, level = refinement.turns, refinement.noise_level
    if turns == NETWORK_ONLY.turns:
        return run(network, images, tile, level)
    total = torch.zeros_like(images, dtype=torch.float64)  # so that equal results have their mean
    for turn in turns:
        cut = (tile[1], tile[0]) if turn.transposed else tile
        total += turn.undo(run(network, turn.apply(images).contiguous(), cut, level))
    return (total / len(turns)).to(images.dtype)
