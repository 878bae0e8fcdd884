"""Table of restoration tasks: modality, units, value ranges, plane and default weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.options import nearest
from restore_rwkv.tasks.scaling import ScalingRule, onto_unit_range

if TYPE_CHECKING:
    from restore_rwkv.io import Volume
    from restore_rwkv.tasks.modality import Modality, ModalityCode

_logger = logging.getLogger(__name__)

AUTO = "auto"
"""Stands for the task of the scan's modality, instead of a task name."""

ALL_IN_ONE = "all-in-one"
"""Name of recipes and weights for all tasks; not a task of a scan."""

NOTICE = "For research only. Not a medical device; not for diagnosis or treatment."
"""Notice in every weight file and every record."""

_RESEARCH = "Research only, not a medical device: not for diagnosis or treatment. "


@dataclass(frozen=True)
class Task:
    """One kind of degradation in one modality. Weights may serve several tasks.

    Attributes:
        name: short name, as on the command line.
        title: what the task does, in a few words.
        modality: DICOM's code: "MR", "CT" or "PT".
        unit: unit of the image values.
        scaling: scaling onto network values that the shipped weights are trained with.
        value_range: (low, high) in `unit`, which the paper maps to [0, 1].
        metric_range: (low, high) in `unit`, to which both images are truncated before metrics.
        plane: "acquisition", the plane with the finest spacing, or an anatomical plane.
        factor: reduction of the measurement: of the k-space extent per axis for MR, of the dose
            for CT and PET.
        air: network value of `scaling` up to which a pixel counts as air.
        weights: name of the shipped weights.
        not_for: what the results must not be used for.
        consistency: steps that hold a restored scan to what was measured, unless the user gives
            another number; chosen on validation subjects (docs/restoring.md).
    """

    name: str
    title: str
    modality: ModalityCode
    unit: str
    scaling: ScalingRule
    value_range: tuple[float, float]
    metric_range: tuple[float, float]
    plane: Literal["acquisition", "axial", "coronal", "sagittal"]
    factor: float
    air: float
    weights: str
    not_for: str
    consistency: int = 0

    @property
    def rules(self) -> Modality:
        """Rules of the task's modality: checks, scaling, bounds and degradation."""
        from restore_rwkv.tasks.modalities import MODALITIES  # NumPy, which the table does not need

        return MODALITIES[self.modality]

    @property
    def paper_scaling(self) -> ScalingRule:
        """The paper's scaling: `value_range` onto [0, 1]."""
        return onto_unit_range(*self.value_range)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="mri-sr",
            title="MRI super-resolution from the central quarter of k-space per axis",
            modality="MR",
            unit="a.u.",
            scaling=ScalingRule("robust"),
            value_range=(0.0, 4095.0),
            metric_range=(0.0, 4095.0),
            plane="acquisition",
            factor=4.0,
            air=2.5,  # a quarter of the foreground mean
            weights="light-mri-sr",
            not_for=_RESEARCH
            + "Detail beyond the measured centre of k-space is inferred, not measured.",
            consistency=5,
        ),
        Task(
            name="ct-denoise",
            title="CT denoising from a quarter of the dose",
            modality="CT",
            unit="HU",
            # Water becomes 0 and the noise of a quarter dose is of the order of 1.
            scaling=ScalingRule("fixed", offset=0.0, scale=40.0),
            value_range=(-1024.0, 3072.0),
            metric_range=(-160.0, 240.0),
            plane="axial",
            factor=4.0,
            air=-12.5,  # -500 HU
            weights="light-ct-denoise",
            not_for=_RESEARCH
            + "Low-contrast detail below the noise of the input may be lost or made up.",
        ),
        Task(
            name="pet-synth",
            title="PET synthesis from a twelfth of the dose",
            modality="PT",
            unit="SUV",
            scaling=ScalingRule("fixed", offset=0.0, scale=0.5),
            value_range=(0.0, 20.0),
            metric_range=(0.0, 20.0),
            plane="coronal",
            factor=12.0,
            air=0.5,  # SUV 0.25
            weights="light-pet-synth",
            not_for=_RESEARCH
            + "The shipped weights have seen simulated brain PET only; uptake is inferred from "
            "few counts, and SUVmax means nothing.",
        ),
    )
}
"""All tasks by name."""


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ConfigError: the name is unknown; the message gives the nearest name and all names.
    """
    if name in TASKS:
        return TASKS[name]
    if name == ALL_IN_ONE:
        raise ConfigError(
            f"{ALL_IN_ONE} names weights for all tasks, not a task; give the scan's task "
            f"({', '.join(TASKS)}) and the weights light-{ALL_IN_ONE}"
        )
    near = nearest(name, TASKS, cutoff=0.4)
    hint = f"did you mean {near!r}? " if near else ""
    raise ConfigError(f"task {name!r} is unknown; {hint}tasks are: {', '.join(TASKS)}")


def get_tasks(name: str) -> tuple[Task, ...]:
    """Return the tasks that weights of that name serve: one, or all for "all-in-one".

    Raises:
        ConfigError: as `get_task`.
    """
    return tuple(TASKS.values()) if name == ALL_IN_ONE else (get_task(name),)


def task_of(modality: str) -> Task:
    """Return the task for a modality: "MR", "CT" or "PT".

    Raises:
        ConfigError: no task restores that modality.
    """
    for task in TASKS.values():
        if task.modality == modality:
            return task
    raise ConfigError(f"modality {modality!r}: no task restores it; tasks are: {', '.join(TASKS)}")


def pick_task(volume: Volume, name: str = AUTO) -> Task:
    """Return the task of that name, or for "auto" that of the volume's modality.

    Raises:
        InputError: the modality is unknown, or no task restores it.
        ConfigError: the task is unknown.
    """
    if name != AUTO:
        return get_task(name)
    if volume.modality is None:
        tasks = "|".join(TASKS)
        raise InputError(
            f"{volume.name}: nothing says whether it is MR, CT or PT; give task={tasks}"
        )
    if volume.modality not in {task.modality for task in TASKS.values()}:
        raise InputError(
            f"{volume.name}: is {volume.modality}, which no task restores; give MR, CT or PT"
        )
    task = task_of(volume.modality)
    _logger.info("%s: %s, to be restored with %s", volume.name, volume.modality, task.name)
    return task
