"""How much a restored scan differs from its input."""

from __future__ import annotations

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.io import ChangeRecord, Volume
from restore_rwkv.tasks import Task


def find_change(before: Volume, after: Volume, axis: int, task: Task) -> ChangeRecord:
    """Compare a restored scan with its input.

    Args:
        before: what the network was given.
        after: the restored scan on the same grid.
        axis: array axis across the slices.
        task: what it was restored for.
    """
    total, largest = 0.0, 0.0
    for old, new in zip(before.slices(axis), after.slices(axis), strict=True):
        difference = new - old
        total += float(difference.sum(dtype=np.float64))
        largest = max(largest, float(np.abs(difference).max()))
    return ChangeRecord(
        mean=total / before.data.size,
        largest=largest,
        noise_before=_noise(before, task),
        noise_after=_noise(after, task),
        shift=task.rules.value_shift(before, after, axis),
    )


def _noise(volume: Volume, task: Task) -> float | None:
    """Noise of a scan; None where it cannot be measured or low quality is not noise."""
    if task.rules.noise_unit is None:
        return None
    try:
        return task.rules.noise_of(volume, task)
    except OperatorError:
        return None
