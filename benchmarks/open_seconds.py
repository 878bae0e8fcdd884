"""Seconds that weights take for a slice of the open benchmark."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.open_definition import SPLIT
from restore_rwkv.data import PreparedSet
from restore_rwkv.evaluation.scores import options_told, stack_volumes
from restore_rwkv.restoration import Restorer

_SLICES, _RUNS = 4, 3


def seconds_of(weights: Path, prepared: PreparedSet, device: str) -> float:
    """Return the median time to restore a slice in the middle of the first test stack.

    As `Restorer.run` does it, with preparations and data consistency; one run before is not
    counted.
    """
    restorer = Restorer(prepared.task_name, weights, device)
    stack = prepared.split(SPLIT)[0]
    low, _ = stack_volumes(prepared, stack)
    first = max(0, (stack.shape[0] - _SLICES) // 2)
    part = replace(low, data=low.data[:, :, first : first + _SLICES])
    count = part.data.shape[2]
    options = options_told(None, restorer, prepared.task, prepared.factor_of(stack))
    times = [restorer.run(part, options).record.seconds for _ in range(_RUNS + 1)]
    return statistics.median(times[1:]) / count
