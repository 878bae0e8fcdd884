"""Which task a scan is for, and across which axis its slices lie."""

from __future__ import annotations

import logging
from typing import Literal

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume, acquisition_axis, plane_axis
from restore_rwkv.tasks.table import TASKS, Task, get_task, task_of

_logger = logging.getLogger(__name__)

Plane = Literal["auto", "axial", "coronal", "sagittal"]

AUTO = "auto"


def pick_task(volume: Volume, name: str = AUTO) -> Task:
    """The task of that name, or for "auto" the task of the volume's modality.

    Raises:
        InputError: nothing tells the modality, or no task restores it.
        ConfigError: the task is unknown.
    """
    if name != AUTO:
        return get_task(name)
    if volume.modality is None:
        tasks = "|".join(TASKS)
        raise InputError(
            f"{volume.name}: nothing tells whether it is MR, CT or PT; give --task {tasks}"
        )
    if volume.modality not in {task.modality for task in TASKS.values()}:
        raise InputError(
            f"{volume.name}: is {volume.modality}, which no task restores; give MR, CT or PT"
        )
    task = task_of(volume.modality)
    _logger.info("%s: %s, to be restored with %s", volume.name, volume.modality, task.name)
    return task


def slice_axis(volume: Volume, task: Task, plane: Plane = "auto") -> int:
    """Array axis across the slices of a plane; "auto" is the plane of the task.

    The axis nearest to the plane's normal is taken. A single slice has its axis of length 1 across
    it, an image without geometry its last axis.

    Raises:
        ConfigError: an anatomical plane is asked of an image without geometry.
    """
    if plane != "auto":
        if volume.affine is None:
            raise ConfigError(
                f"plane {plane}: {volume.name} has no geometry; leave plane at auto, which takes "
                "slices across the last axis"
            )
        return plane_axis(volume.affine, plane)
    if 1 in volume.data.shape:
        return max(axis for axis in range(3) if volume.data.shape[axis] == 1)
    if volume.affine is None or volume.spacing is None:
        return 2
    if task.plane == "acquisition":
        return acquisition_axis(volume.spacing)
    return plane_axis(volume.affine, task.plane)
