"""Values of a scan and the network's: PET in SUV or Bq/ml, and values that a task cannot have."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import DicomSource, Volume
from restore_rwkv.tasks.scaling import Scaling, ScalingRule, robust_scaling
from restore_rwkv.tasks.table import Task

_logger = logging.getLogger(__name__)

_SAMPLES = 1_000_000  # voxels looked at; a volume can have a hundred times as many
_FAR_BELOW = 0.05  # of the 99.9 % quantile
_MANY = 0.01  # of the voxels
_FAT = -50.0  # HU: no scan of a body is without fat or air


def find_scaling(
    volume: Volume, task: Task, rule: ScalingRule, *, in_task_unit: bool = False
) -> tuple[Scaling, dict[str, Any]]:
    """Scaling of a volume onto the network's values, and what to record of how it was found.

    Fixed rules for PET are in SUV. They serve volumes in SUV, and in Bq/ml where the SUV of one
    Bq/ml is known. Any other PET is scaled by its own foreground, with a warning that says why.

    Args:
        volume: in the unit of its file.
        task: what it is restored for.
        rule: of the weights, or what was asked for.
        in_task_unit: whether values of unknown unit are in the task's, as the user says.
    """
    if task.modality != "PT" or rule.kind == "robust":
        return rule.scaling_of(volume.data), {"scaling_rule": rule.kind}
    factor = _suv_per_unit(volume, in_task_unit)
    if factor is None:
        _logger.warning(
            "%s: %s, so it is scaled by its own foreground, which the weights know less well; "
            "mend that, or give values in SUV with --unit SUV",
            volume.name,
            why := _why_no_suv(volume),
        )
        return robust_scaling(volume.data), {"scaling_rule": "robust", "no_suv": why}
    fixed = rule.scaling_of(volume.data)
    scaling = Scaling(fixed.offset / factor, fixed.scale / factor)
    return scaling, {"scaling_rule": "fixed", "suv_per_unit": factor}


def check_unit(volume: Volume, task: Task, unit: str) -> None:
    """Refuse a unit that the user says and that cannot be.

    Raises:
        ConfigError: the task has another unit.
        InputError: the file says another unit.
    """
    if unit == "auto":
        return
    if unit != task.unit:
        raise ConfigError(f"unit {unit} is not that of {task.name} ({task.unit}); leave unit out")
    if volume.unit not in (None, "a.u.", unit):
        raise InputError(f"{volume.name}: is in {volume.unit}, not {unit}; leave unit out")


def warn_of_strange_values(volume: Volume, task: Task) -> None:
    """Log a warning where values cannot be of the task, and the file does not say that they are."""
    values = volume.data.ravel(order="K")
    values = values[:: max(1, values.size // _SAMPLES)]
    values = values[values > values.min()] if np.ptp(values) else values  # without padding
    if task.modality == "CT":
        if volume.unit != "HU" and np.quantile(values, _MANY) > _FAT:
            _logger.warning(
                "%s: hardly a value is below %g, so these are no Hounsfield units (air is -1000); "
                "give HU, or another --task",
                *(volume.name, _FAT),
            )
    elif volume.modality is None:
        below = float(np.mean(values < -_FAR_BELOW * np.quantile(values, 0.999)))
        if below > _MANY:
            _logger.warning(
                "%s: %.0f %% of the values are far below 0, which %s has not; is it CT "
                "(--task ct-denoise)?",
                *(volume.name, 100 * below, "MRI" if task.modality == "MR" else "PET"),
            )


def _suv_per_unit(volume: Volume, in_task_unit: bool) -> float | None:
    if volume.unit == "SUV" or (in_task_unit and volume.unit != "Bq/ml"):
        return 1.0
    return volume.suv_per_unit if volume.unit == "Bq/ml" else None


def _why_no_suv(volume: Volume) -> str:
    if isinstance(volume.source, DicomSource) and volume.source.no_suv:
        return f"PET without SUV ({volume.source.no_suv})"
    if volume.unit == "Bq/ml":
        return "PET in Bq/ml without SUV (the file tells neither dose nor weight)"
    return "PET of unknown unit"
