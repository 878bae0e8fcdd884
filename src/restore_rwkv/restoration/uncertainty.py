"""How far the values of a restored scan may lie from the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.io import begin_stage
from restore_rwkv.restoration.slices import NETWORK_ONLY, restore_slices
from restore_rwkv.tasks import TURNS
from restore_rwkv.tasks.again import RestoredScan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Progress, Volume
    from restore_rwkv.model import InferenceNetwork
    from restore_rwkv.restoration.plan import Plan
    from restore_rwkv.restoration.recording import Restored
    from restore_rwkv.restoration.restorer import Restorer
    from restore_rwkv.tasks import Intervals, SpreadMethod, Task, Turn

BLIND_TO = {
    "turns": "It compares the network with itself on one scan: an error that every turn shares, "
    "such as a lesion that is smoothed away or the noise of the scan, is not in it.",
    "bootstrap": "It takes the restored image for the truth: what restoration removed from the "
    "scan, or added to it, is not in it, nor is any error of the simulated scanner.",
}
"""What the spread of each method cannot see, in one sentence to show beside its map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """The spread of restored values, which is not an interval before it is calibrated.

    Attributes:
        method: how it was found.
        volume: root mean squared deviation from the restored value, 0 or more, in its unit, on the
            grid of the restored scan.
        samples: number of restorations that it is from.
        scale: of the scaling of the scan, in its unit.
    """

    method: SpreadMethod
    volume: Volume
    samples: int
    scale: float


def find_spread(
    restorer: Restorer,
    plan: Plan,
    restored: Restored,
    method: SpreadMethod,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Spread:
    """Find the spread of the values of a restored scan, by restoring it again in several forms.

    - "turns" restores the slices turned and mirrored, turns the results back, and compares them
      with the restored slices as they are: in the seven other turns, or in the three that an even
      block of k-space allows (`Modality.turns`).
    - "bootstrap" takes the restored scan for the truth, measures it again by the physics of its
      modality and at its own dose (`Modality.measure_again`), restores that in another turn each
      time, and compares the results with the restored scan. This is the equivariant bootstrap of
      Tachella and Pereyra (AISTATS 2024, arXiv 2310.11838), with `Modality.samples` samples.

    Each time slices are restored as the plan says, but in one turn where it has an ensemble, and
    "turns" then compares them with one turn too. The mean over turns has less spread, but hardly
    less error: with its own spread, intervals would hold too little (MRI: 88 % instead of 92 %).

    Args:
        restorer: the one that made the plan.
        plan: of the scan.
        restored: what came of it.
        method: "turns" or "bootstrap"; what each is blind to stands in `BLIND_TO`.
        seed: of the turns and the noise of the bootstrap, 0 or more.
        progress: told the stage, and called with the number of slices done and of all.

    Raises:
        ConfigError: the method is unknown.
        InputError: the bootstrap needs a geometry, or values overflow in the network.
        OperatorError: the bootstrap cannot measure the noise of the scan.
        WeightsError: as `Restorer.network`.
    """
    if method not in BLIND_TO:
        raise ConfigError(f"method {method!r} is unknown; give 'turns' or 'bootstrap'")
    slices = plan.volume.slices(plan.axis)
    if method == "turns":
        shape = (slices.shape[1], slices.shape[2])
        turns = plan.task.rules.turns(shape, plan.refinement.factor)[1:]
    else:
        generator = np.random.default_rng(seed)
        order = 1 + generator.permutation(len(TURNS) - 1)
        turns = tuple(TURNS[place] for place in order[: plan.task.rules.samples])
    begin_stage(progress, "finding the spread", "slices")
    again = _Again(restorer.network(plan.task), plan, len(turns) * len(slices), progress)
    centre = restored.volume.slices(plan.axis)
    if method == "turns":
        total = _over_turns(again, slices, centre, turns)
    else:
        total = _over_samples(again, restored.volume, turns, seed)
    spread = np.sqrt(total / len(turns), dtype=np.float32)
    volume = restored.volume.with_slices(spread, plan.axis)
    return Spread(method=method, volume=volume, samples=len(turns), scale=plan.scaling.scale)


def interval_map(restored: Volume, spread: Spread, intervals: Intervals, task: Task) -> Volume:
    """Return half the width of the interval of each value: the truth is that near, or not.

    With the level of `intervals`, it is within `restored` plus and minus the map: for that share of
    all pixels of scans like those of the calibration, not for every region of every scan. What the
    spread is blind to (`BLIND_TO`), the map is too.

    Args:
        restored: the restored scan.
        spread: of it.
        intervals: of the weights that restored it, by the method of the spread.
        task: what the scan was restored for.

    Raises:
        ConfigError: the intervals are of another method, or the spread is of another grid.
        WeightsError: the intervals have no factor for a kind of tissue.
    """
    if spread.method != intervals.method:
        raise ConfigError(
            f"intervals: calibrated for {intervals.method}, and the spread is by {spread.method}; "
            "give those of one method"
        )
    if spread.volume.data.shape != restored.data.shape:
        raise ConfigError(
            f"{restored.name}: shape is {restored.data.shape}, that of its spread "
            f"{spread.volume.data.shape}; give the spread of this scan"
        )
    kinds, names = task.rules.tissues(restored.data, spread.scale)
    unknown = [name for name in names if name not in intervals.factors]
    if unknown:
        raise WeightsError(
            f"intervals: have no factor for {unknown[0]} of {task.name}; calibrate them again"
        )
    factors = np.array([intervals.factors[name] for name in names], np.float32)
    floor = np.float32(intervals.floor * spread.scale)
    return restored.with_data(factors[kinds] * (spread.volume.data + floor))


class _Again:
    """Restores slices of a plan once more, in turns, and reports how many are done."""

    def __init__(
        self, network: InferenceNetwork, plan: Plan, total: int, progress: Progress | None
    ):
        self.plan = plan
        self._network, self._progress, self._done, self._total = network, progress, 0, total

    def batches(self, count: int) -> Iterator[slice]:
        """Slices that run together, as when the plan is run."""
        for first in range(0, count, self.plan.tiling.batch):
            yield slice(first, first + self.plan.tiling.batch)

    def restore(self, low: NDArray[np.float32], turn: Turn, lowest: float) -> NDArray[np.float32]:
        """Restore turned slices as the plan says, without its ensemble, and turn them back.

        Args:
            low: low-quality slices, turned.
            turn: theirs.
            lowest: smallest value of all slices.
        """
        plan, refinement = self.plan, self.plan.refinement
        refinement = dataclasses.replace(
            refinement,
            turns=NETWORK_ONLY.turns,
            factor=turn.factor(refinement.factor),
        )
        rows, columns = plan.tiling.tile
        tile = (columns, rows) if turn.transposed else (rows, columns)
        restored = restore_slices(
            self._network, low, plan.task, plan.scaling, tile, lowest, refinement
        )
        if not np.isfinite(restored).all():
            raise InputError(
                f"{plan.volume.name}: its values, up to {plan.volume.data.max():g}, overflow in "
                "the network; scale it down"
            )
        return turn.turned_back(restored)

    def count(self, slices: int) -> None:
        """Report that another pass over some slices is done."""
        self._done += slices
        if self._progress is not None:
            self._progress(self._done, self._total)


def _over_turns(
    again: _Again,
    slices: NDArray[np.float32],
    centre: NDArray[np.float32],
    turns: Sequence[Turn],
) -> NDArray[np.float32]:
    """Sum the squared deviations of restorations of turned slices (N, H, W)."""
    total = np.zeros(slices.shape, np.float32)
    lowest = float(slices.min())
    ensemble = len(again.plan.refinement.turns) > 1
    for part in again.batches(len(slices)):
        low, middle = slices[part], centre[part]
        if ensemble:
            middle = again.restore(low, TURNS[0], lowest)
        for turn in turns:
            found = again.restore(turn.turned(low), turn, lowest)
            total[part] += np.square(found - middle)
            again.count(len(low))
    return total


def _over_samples(
    again: _Again, restored: Volume, turns: Sequence[Turn], seed: int
) -> NDArray[np.float32]:
    """Sum the squared deviations of restorations of scans measured again (N, H, W)."""
    import torch

    plan = again.plan
    factor = plan.refinement.factor
    case = RestoredScan(scan=plan.volume, restored=restored, axis=plan.axis, factor=factor)
    measure = plan.task.rules.measure_again(case)
    generator = torch.Generator().manual_seed(seed)
    centre = restored.slices(plan.axis)
    total = np.zeros(centre.shape, np.float32)
    for turn in turns:
        low = measure(turn, generator)
        lowest = float(low.min())
        for part in again.batches(len(low)):
            found = again.restore(low[part], turn, lowest)
            total[part] += np.square(found - centre[part])
            again.count(len(found))
    return total
