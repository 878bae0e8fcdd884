"""Slices of a pair of MRI scans, a few at a time, and what they say of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.evaluation.fidelity.results import RestoredPair
from restore_rwkv.tasks import AxisFactor

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANNOT_SEE = (
    "detail finer than the measured block, such as small lesions and sharp edges: it is inferred, "
    "and no measurement contradicts it"
)

_AT_ONCE = 16  # slices


def block_factor(pair: RestoredPair) -> AxisFactor:
    """Factor of the measured block: that of the pair, or of its task."""
    return pair.task.factor if pair.factor is None else pair.factor


def parts(
    before: NDArray[np.float32], after: NDArray[np.float32]
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
    """Copies of some slices after the other, so that transforms need little memory."""
    for first in range(0, len(before), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        yield part, np.ascontiguousarray(before[part]), np.ascontiguousarray(after[part])


def difference(
    low: NDArray[np.float32], image: NDArray[np.float32], factor: AxisFactor, magnitude: bool
) -> NDArray[np.float32]:
    """Return how much brighter slices of the scan are than those of a scan of the image."""
    import torch

    from restore_rwkv.physics.mri import disagreement

    measured = torch.from_numpy(low)
    measured = measured.clamp(min=0) if magnitude else measured
    found: NDArray[np.float32] = disagreement(
        torch.from_numpy(image), measured, factor, magnitude=magnitude
    ).numpy()
    return found
