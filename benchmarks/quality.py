"""PSNR of the methods on a prepared set of low-dose CT, as `restore-rwkv evaluate` computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import FILTERS, FilterMethod, build
from restore_rwkv import Volume
from restore_rwkv.data import PreparedSet
from restore_rwkv.data.slice import Slice
from restore_rwkv.evaluation.metrics import mean_score, paper_score
from restore_rwkv.evaluation.scores import INPUT, RESTORED, evaluate_set, mean_over_patients
from restore_rwkv.restoration import Restored
from restore_rwkv.tasks import get_task

STRENGTHS = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)
_TASK = "ct-denoise"


class FilterRestorer:
    """Wraps a filter in the interface that `evaluate_set` needs of a restorer."""

    def __init__(self, method: FilterMethod) -> None:
        self.task = get_task(_TASK)
        self.method = method

    def run(self, volume: Volume, options: Any = None, progress: Any = None) -> Restored:
        stack = volume.slices(2).clip(min=self.task.value_range[0])
        stack = self.method(np.ascontiguousarray(stack))
        return Restored(volume.with_slices(stack, 2), record=None)

    def uses_factor(self, task: Any, options: Any) -> bool:
        return False


class Unchanged(FilterRestorer):
    """The input itself."""

    def __init__(self) -> None:
        self.task = get_task(_TASK)

    def run(self, volume: Volume, options: Any = None, progress: Any = None) -> Restored:
        return Restored(volume, record=None)


def read_set(data: Path) -> PreparedSet:
    return PreparedSet.read(data / _TASK if (data / _TASK).is_dir() else data)


def input_psnr(data: Path) -> float:
    """Return the mean PSNR over the test patients in dB."""
    return mean_over_patients(evaluate_set(read_set(data), Unchanged()))[INPUT].psnr


def tuned(name: str, prepared: PreparedSet) -> FilterMethod:
    """Return the filter with the strength that is best on validation slices."""
    every = [
        Slice(prepared, stack, i)
        for stack in prepared.split("validation")
        for i in range(stack.shape[0])
    ]
    slices = every[len(every) // 4 :: len(every) // 2]  # two of them
    candidates = [FilterMethod(name, strength) for strength in STRENGTHS]
    return max(candidates, key=lambda method: validation_psnr(method, slices))


def validation_psnr(method: FilterMethod, slices: list[Slice]) -> float:
    restorer = FilterRestorer(method)
    scores = []
    for one in slices:
        restored = restorer.run(Volume(one.low()[..., None], unit="HU", modality="CT")).volume
        scores.append(paper_score(restored.data[..., 0], one.high(), restorer.task.metric_range))
    return mean_score(scores).psnr


def psnr(name: str, data: Path, device: str) -> str:
    """Format the mean over the test patients; networks without weights have no score."""
    prepared = read_set(data)
    if name in FILTERS:
        method = tuned(name, prepared)
        restorer, note = FilterRestorer(method), f" (strength {method.strength:g})"
    elif name == "light":
        restorer, note = build(name, device).restorer, ""
    else:
        return "untrained"
    score = mean_over_patients(evaluate_set(prepared, restorer))[RESTORED]
    return f"{score.psnr:.2f}{note}"
