"""Single slices of prepared sets, in both qualities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.prepared import PreparedSet
from restore_rwkv.data.stack import Split, Stack

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Slice:
    """One slice of a prepared set.

    Attributes:
        prepared: prepared set.
        stack: stack of that set.
        index: index of the slice in the stack.
    """

    prepared: PreparedSet
    stack: Stack
    index: int

    @property
    def name(self) -> str:
        """Task, stack and index, for messages."""
        return f"{self.prepared.task_name} {self.stack.name} slice {self.index}"

    def high(self) -> Image:
        """High quality (H, W), float32, physical units; a copy."""
        return self._read("high")

    def low(self) -> Image:
        """Low quality (H, W), float32: as stored, or degraded by the factor of the set."""
        if "low" in self.stack.files:
            return self._read("low")
        return self.prepared.task.rules.degrade_slice(self.high(), self.prepared.factor)

    def _read(self, quality: str) -> Image:
        images = self.prepared.images(self.stack, "low" if quality == "low" else "high")
        return np.array(images[self.index], dtype=np.float32)


def slices_of(sets: Sequence[PreparedSet], split: Split, per_task: int = 0) -> list[Slice]:
    """List the slices of a split in order, or some of each task, evenly spread over its volumes.

    Args:
        sets: prepared sets.
        split: "train", "validation" or "test".
        per_task: number of slices of each task; all if 0 or more than available.
    """
    chosen: list[Slice] = []
    for task_name in dict.fromkeys(prepared.task_name for prepared in sets):
        slices = [
            Slice(prepared, stack, index)
            for prepared in sets
            if prepared.task_name == task_name
            for stack in prepared.split(split)
            for index in range(stack.shape[0])
        ]
        wanted = min(per_task or len(slices), len(slices))
        places = (np.arange(wanted) + 0.5) * len(slices) / max(wanted, 1)
        chosen += [slices[int(place)] for place in places]
    return chosen
