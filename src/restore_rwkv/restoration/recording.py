"""The record of a restoration, from its plan and what came out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.io import ChangeRecord, FitRecord, RestorationRecord, Volume, VolumeRecord
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.tasks import NOTICE, Task

_logger = logging.getLogger(__name__)
_OUTCOMES = ("fit", "doubtful", "unfit")


@dataclass(frozen=True)
class Ran:
    """With what a plan was run.

    Attributes:
        weights: file name of the weights.
        weights_sha256: digest of their tensors.
        device: where the network ran.
        seconds: from the values of the scan to the restored values.
    """

    weights: str
    weights_sha256: str
    device: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored scan; the last line of a notebook's cell shows it as a picture with its record.

    Attributes:
        volume: same unit and source as the input, on the same grid or the finer one asked for.
        record: how it was made.
        before: what the network was given, on the grid of `volume`; not a copy of the input where
            the grid is the same. None where only a file was asked for (`Restorer.file`).
    """

    volume: Volume
    record: RestorationRecord
    before: Volume | None = None

    def __repr__(self) -> str:
        shape, unit = self.volume.data.shape, self.volume.unit
        return f"Restored({self.volume.name!r}, {self.record.task}, {shape}, unit {unit})"

    def _repr_html_(self) -> str | None:
        """Return HTML for a notebook; None, so that it shows the text, where that fails."""
        try:
            from restore_rwkv.restoration.notebook import notebook_html  # Jinja and Pillow

            return notebook_html(self.record, self.before, self.volume)
        except Exception:
            _logger.info("a restored scan cannot be shown in a notebook", exc_info=True)
            return None


def joined(records: Sequence[RestorationRecord]) -> RestorationRecord:
    """Return the record of volumes that were restored one after the other.

    It is that of the first with the seconds, the worst fit and the changes of all; what was found
    for each volume stands in `each_volume`.
    """
    first = records[0]
    if len(records) == 1:
        return first
    changes = [record.change for record in records]
    return dataclasses.replace(
        first,
        volumes=len(records),
        each_volume=tuple(
            VolumeRecord(
                scaling=record.scaling,
                strength=record.strength,
                noise_found=record.noise_found,
                noise_level=record.noise_level,
                fit=record.fit.outcome,
                change=record.change,
            )
            for record in records
        ),
        seconds=round(sum(record.seconds for record in records), 3),
        fit=max((record.fit for record in records), key=lambda fit: _OUTCOMES.index(fit.outcome)),
        change=dataclasses.replace(
            changes[0],
            mean=sum(change.mean for change in changes) / len(changes),
            largest=max(change.largest for change in changes),
        ),
    )


def restoration_record(plan: Plan, restored: Volume, ran: Ran) -> RestorationRecord:
    """Return how a volume was restored and what that changed; input and output are not named."""
    noise, found = plan.noise, plan.scaling_found
    return RestorationRecord(
        notice=NOTICE,
        not_for=plan.task.not_for,
        task=plan.task.name,
        weights=ran.weights,
        weights_sha256=ran.weights_sha256,
        device=ran.device,
        modality=restored.modality or plan.task.modality,
        unit=restored.unit,
        slice_axis=plan.axis,
        scale=plan.scale,
        scaling=plan.scaling.to_dict(),
        scaling_rule=found["scaling_rule"],
        suv_per_unit=found.get("suv_per_unit"),
        no_suv=found.get("no_suv"),
        tile=plan.tiling.tile,
        batch=plan.tiling.batch,
        consistency=plan.refinement.steps,
        kept=plan.kept,
        signed=plan.refinement.signed,
        ensemble=len(plan.refinement.turns) > 1,
        turns=len(plan.refinement.turns),
        strength=plan.refinement.strength,
        noise_found=None if noise is None else noise.found,
        noise_reference=None if noise is None else noise.reference,
        factor=plan.factor,
        factor_from=plan.factor_from,
        no_noise=None if noise is None else noise.assumed,
        noise_level=plan.refinement.noise_level,
        fit=FitRecord(
            outcome=plan.fit.outcome,
            findings=plan.fit.findings,
            measures=plan.fit.measures,
            unjudged=plan.fit.unjudged,
            forced=plan.forced,
        ),
        change=find_change(plan.volume, restored, plan.axis, plan.task),
        seconds=ran.seconds,
        torch=torch.__version__,
        options=dataclasses.asdict(plan.options),
    )


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
