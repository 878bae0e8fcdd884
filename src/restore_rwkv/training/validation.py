"""Validation of a network during training, on whole slices by the paper's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from restore_rwkv.data.slice import Slice
from restore_rwkv.evaluation.metrics import MeanScore, SliceScore, mean_score, paper_score
from restore_rwkv.model import RestorationNetwork
from restore_rwkv.restoration import Refinement, RestoreOptions, choose_tiling, restore_slices
from restore_rwkv.training.noise import stored_level
from restore_rwkv.training.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PICTURES_PER_TASK = 2


@dataclass(frozen=True, eq=False)
class Picture:
    """One validation slice: images (H, W) in physical units."""

    slice: Slice
    low: NDArray[np.float32]
    restored: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Validation:
    """Scores of one validation.

    Attributes:
        scores: mean scores of the restored slices, by task.
        inputs: mean scores of the low-quality slices, by task.
        pictures: some slices of each task.
    """

    scores: dict[str, MeanScore]
    inputs: dict[str, MeanScore]
    pictures: list[Picture]

    @property
    def psnr(self) -> float | None:
        """Mean PSNR over the tasks, in dB; None unless every task has a PSNR."""
        values = [score.psnr for score in self.scores.values() if score.psnr is not None]
        return sum(values) / len(values) if len(values) == len(self.scores) else None

    @property
    def beats_input(self) -> bool:
        """Whether the PSNR gained over the input is above 0, as a mean over the tasks."""
        gains = list(self.gains.values())
        known = [gain for gain in gains if gain is not None]
        return len(known) == len(gains) and sum(known) > 0

    @property
    def gains(self) -> dict[str, float | None]:
        """PSNR gained over the input in dB, by task; None where either PSNR is None."""
        return {
            task: None if score.psnr is None or before is None else score.psnr - before
            for task, score in self.scores.items()
            for before in (self.inputs[task].psnr,)
        }

    @property
    def columns(self) -> dict[str, float | None]:
        """Numbers to log: "psnr", and "TASK.psnr", ".ssim", ".rmse" and ".gain" (dB)."""
        columns: dict[str, float | None] = {"psnr": self.psnr}
        for task, score in self.scores.items():
            columns |= {f"{task}.psnr": score.psnr, f"{task}.ssim": score.ssim}
            columns |= {f"{task}.rmse": score.rmse, f"{task}.gain": self.gains[task]}
        return columns


class Validator:
    """Scores networks on a fixed list of slices, divided among the processes.

    Args:
        slices: whole slices to restore.
        recipe: recipe that gives their scaling.
        fabric: device and processes.
    """

    def __init__(self, slices: Sequence[Slice], recipe: Recipe, fabric: Fabric) -> None:
        self.recipe = recipe
        self.fabric = fabric
        self.tasks = tuple(dict.fromkeys(item.prepared.task_name for item in slices))
        self.share = slices[fabric.global_rank :: fabric.world_size]
        self._inputs: dict[str, MeanScore] | None = None

    def __call__(self, network: RestorationNetwork) -> Validation:
        """Score a network in its inference form, on the device of its process."""
        scores: dict[str, list[SliceScore]] = {task: [] for task in self.tasks}
        inputs: dict[str, list[SliceScore]] = {task: [] for task in self.tasks}
        pictures: list[Picture] = []
        for item in self.share:
            task = item.prepared.task
            low, high = item.low(), item.high()
            restored = self._restored(network, item, low)
            scores[task.name].append(paper_score(restored, high, task.metric_range))
            if self._inputs is None:
                inputs[task.name].append(paper_score(low, high, task.metric_range))
            drawn = sum(picture.slice.prepared.task_name == task.name for picture in pictures)
            # The middle of a volume shows more than its end.
            if drawn < _PICTURES_PER_TASK and item.index >= item.stack.shape[0] // 2:
                pictures.append(Picture(item, low, restored, high))
        if self._inputs is None:
            self._inputs = self._means(inputs)
        return Validation(self._means(scores), self._inputs, pictures)

    def _restored(
        self, network: RestorationNetwork, item: Slice, low: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Restore a slice as `restore` does, with tiles and bounds of the values."""
        task = item.prepared.task
        scaling = item.stack.scaling(self.recipe.rule(task))
        tiling = choose_tiling(
            network.config, self.fabric.device, (1, *item.stack.shape[1:]), RestoreOptions().memory
        )
        restored: NDArray[np.float32]
        told = network.config.noise_level
        level = stored_level(item.prepared, item.stack) if told else None
        refinement = Refinement(noise_level=level)
        (restored,) = restore_slices(
            network, low[None], task, scaling, tiling.tile, refinement=refinement
        )
        return restored

    def _means(self, scores: dict[str, list[SliceScore]]) -> dict[str, MeanScore]:
        means = {task: mean_score(found) for task, found in scores.items()}
        if self.fabric.world_size > 1:
            means = {task: self._over_processes(mean) for task, mean in means.items()}
        return means

    def _over_processes(self, mean: MeanScore) -> MeanScore:
        """Combine the means of each process's share into the mean over all slices."""
        values = [mean.psnr or 0.0, mean.ssim or 0.0, mean.rmse or 0.0]
        sums = [value * mean.slices for value in values]
        local = torch.tensor([*sums, mean.slices, mean.slices_without_score], dtype=torch.float64)
        reduced = self.fabric.all_reduce(self.fabric.to_device(local), reduce_op="sum")
        total = torch.as_tensor(reduced).tolist()
        slices, left_out = round(total[3]), round(total[4])
        if slices == 0:
            return MeanScore(None, None, None, 0, left_out)
        psnr, ssim, rmse = (value / slices for value in total[:3])
        return MeanScore(psnr, ssim, rmse, slices, left_out)
