"""Images that an exported network is tried on, in the values that its network was trained with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from restore_rwkv.io import read_volume
from restore_rwkv.model.checkpoint import WeightsInfo
from restore_rwkv.model.shipped import sample_scan
from restore_rwkv.physics.mri import kspace_block, zero_fill
from restore_rwkv.tasks import TASKS, ScalingRule

# Parts of slices of the sample scan, of odd sizes: (slice, first row, rows, first column, columns).
_PARTS = ((5, 40, 131, 50, 157), (9, 70, 97, 90, 66))
_WHOLE = 0.999  # share of the voxels below what stands for 1
_SPAN = 8.0  # of the synthetic images, in network values
_NOISE = 1.0  # standard deviation in network values, as of CT at a quarter of the dose
_FACTOR = 4.0  # of the measured extent of k-space, or of the dose


@dataclass(frozen=True, eq=False)
class Trial:
    """An image and what the network is told with it.

    Attributes:
        name: what it shows.
        image: (1, C, H, W), network values; all channels are the same.
        truth: (1, 1, H, W), what a perfect network would return; None where nothing says.
        level: of the noise; None for a network that is not told.
    """

    name: str
    image: Tensor
    truth: Tensor | None = None
    level: float | None = None

    @property
    def arguments(self) -> tuple[Tensor, ...] | tuple[Tensor, float]:
        """Arguments of the network."""
        return (self.image,) if self.level is None else (self.image, self.level)


def trials(info: WeightsInfo) -> list[Trial]:
    """Real slices of odd sizes for every task of the weights, and synthetic images."""
    told, channels = info.config.noise_level, info.config.in_channels
    real = [trial for task, rule in info.scaling.items() for trial in _real(task, rule)]
    level = math.log2(_FACTOR - 1) / 2  # as `tasks.AddedNoise.level` has it
    return [
        dataclasses.replace(
            trial,
            image=trial.image.expand(-1, channels, -1, -1),
            level=level if told else None,
        )
        for trial in (*real, *_synthetic(info.config.stride))
    ]


def _real(task: str, rule: ScalingRule) -> Iterator[Trial]:
    """Parts of the sample scan in low quality, mapped onto the values of a task."""
    data = read_volume(sample_scan()).data
    if rule.kind == "fixed" and task in TASKS:
        low, high = TASKS[task].metric_range
        bright = float(np.quantile(data, _WHOLE))
        data = low + (high - low) * data / bright
    values = torch.from_numpy(rule.scaling_of(data).apply(data))
    generator = torch.Generator().manual_seed(0)
    for number, top, rows, left, columns in _PARTS:
        truth = values[top : top + rows, left : left + columns, number].contiguous()
        if rule.kind == "robust":
            image = zero_fill(kspace_block(truth, _FACTOR), (rows, columns)).abs()
        else:
            image = truth + _NOISE * torch.randn(truth.shape, generator=generator)
        yield Trial(f"{task}, {rows} x {columns}", image[None, None], truth[None, None])


def _synthetic(stride: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(1)
    noise = _SPAN * torch.rand(1, 1, stride, stride, generator=generator)
    yield Trial(f"noise, {stride} x {stride}", noise)
    rows, columns = 3 * stride + 1, 9 * stride - 1
    step = _SPAN * (torch.arange(columns) > columns // 3).float().expand(1, 1, rows, columns)
    yield Trial(f"a step, {rows} x {columns}", step.contiguous())
    side = 5 * stride + 3
    points = torch.zeros(1, 1, side, side)
    points[:, :, ::11, ::13] = 5 * _SPAN
    yield Trial(f"bright points, {side} x {side}", points)
