"""Methods without training, on the slices that `benchmarks.campaign` scores networks on.

Each filter takes the noise that scikit-image estimates in a slice, times a factor that is best on
validation slices. Cubic splines interpolate the coarse image of MRI.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import FILTERS, FilterMethod
from benchmarks.quality import STRENGTHS
from restore_rwkv.data.prepared import find_sets
from restore_rwkv.data.slice import Slice, slices_of
from restore_rwkv.evaluation.metrics import mean_score, paper_score
from restore_rwkv.io import Volume
from restore_rwkv.tasks import get_task

Method = Callable[[Slice], NDArray[Any]]
_CHOOSING = 4  # validation slices
_DOUBLINGS = 6


def filter_rows(task_name: str, data: Path, count: int) -> dict[str, Any]:
    """Return the scores of every method on `count` test slices of a task, by its name."""
    sets, task = find_sets([data], (task_name,)), get_task(task_name)
    test = slices_of(sets, "test", count)
    choosing = slices_of(sets, "validation", _CHOOSING)
    rows = {}
    if task.modality == "MR":
        rows["cubic splines"] = _scored(_cubic, test)
    for name in FILTERS:
        factor = best_factor(lambda factor, name=name: _gain(_filter(name, factor), choosing))
        rows[name] = {**_scored(_filter(name, factor), test), "strength": factor}
        print(f"{task_name}, {name}: {rows[name]}", flush=True)
    return rows


def best_factor(gain: Callable[[float], float]) -> float:
    """Return the factor of the highest gain: of `STRENGTHS`, or twice the last while that helps."""
    gains = {factor: gain(factor) for factor in STRENGTHS}
    for _ in range(_DOUBLINGS):
        best = max(gains, key=gains.__getitem__)
        if best < max(gains):
            break
        gains[2 * best] = gain(2 * best)
    return max(gains, key=gains.__getitem__)


def _filter(name: str, factor: float) -> Method:
    method = FilterMethod(name, factor)

    def restore(item: Slice) -> NDArray[Any]:
        low = item.low().clip(min=item.prepared.task.value_range[0])
        return method(np.ascontiguousarray(low[None]))[0]

    return restore


def _cubic(item: Slice) -> NDArray[Any]:
    task = item.prepared.task
    high = Volume(item.high()[..., None], unit=task.unit, modality=task.modality)
    factor = item.prepared.factor_of(item.stack)
    return task.rules.interpolated(high, 2, factor)["cubic"].data[..., 0]


def _gain(method: Method, slices: Sequence[Slice]) -> float:
    return float(_scored(method, slices)["gain"])


def _scored(method: Method, slices: Sequence[Slice]) -> dict[str, Any]:
    before, after, seconds = [], [], []
    for item in slices:
        low, high, limits = item.low(), item.high(), item.prepared.task.metric_range
        start = time.perf_counter()
        restored = method(item)
        seconds.append(time.perf_counter() - start)
        before.append(paper_score(low, high, limits))
        after.append(paper_score(restored, high, limits))
    score, given = mean_score(after), mean_score(before)
    assert score.psnr is not None
    assert given.psnr is not None
    return {
        "gain": score.psnr - given.psnr,
        "psnr": score.psnr,
        "ssim": score.ssim,
        "rmse": score.rmse,
        "slices": score.slices,
        "seconds_per_slice": statistics.median(seconds),
    }
