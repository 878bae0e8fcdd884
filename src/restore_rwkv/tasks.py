"""What a restoration task is: modality, units, value ranges, plane and default weights."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from restore_rwkv.errors import ConfigError
from restore_rwkv.scaling import Scaling, fixed_scaling, robust_scaling


@dataclass(frozen=True)
class Task:
    """One kind of degradation in one modality. Weights may serve several tasks.

    Attributes:
        name: short name, as on the command line.
        title: what the task does, in a few words.
        modality: DICOM's code: "MR", "CT" or "PT".
        unit: unit of the image values.
        scaling: "robust" where values have no fixed unit (a scaling per volume), else "fixed".
        value_range: (low, high) in the unit that the paper takes to [0, 1].
        metric_range: (low, high) in the unit that both images are truncated to before metrics.
        plane: "acquisition", the plane with the finest spacing, or an anatomical plane.
        factor: how much less was measured: k-space extent per axis for MR, dose for CT and PET.
        weights: name of the shipped weights.
        not_for: what the results must not be used for.
    """

    name: str
    title: str
    modality: Literal["MR", "CT", "PT"]
    unit: str
    scaling: Literal["robust", "fixed"]
    value_range: tuple[float, float]
    metric_range: tuple[float, float]
    plane: Literal["acquisition", "axial", "coronal", "sagittal"]
    factor: float
    weights: str
    not_for: str

    def scaling_for(self, data: NDArray[Any], rule: str | None = None) -> Scaling:
        """Scaling of a volume in physical units, any shape.

        Args:
            data: the volume.
            rule: "robust" or "fixed" (`value_range`); this task's own where not given.

        Raises:
            InputError: a robust scaling is asked of an image that is empty or not finite.
        """
        if (rule or self.scaling) == "robust":
            return robust_scaling(data)
        return fixed_scaling(*self.value_range)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="mri-sr",
            title="MRI super-resolution from the central quarter of k-space per axis",
            modality="MR",
            unit="a.u.",
            scaling="robust",
            value_range=(0.0, 4095.0),
            metric_range=(0.0, 4095.0),
            plane="acquisition",
            factor=4.0,
            weights="light-mri-sr",
            not_for=(
                "Research only, not a medical device: not for diagnosis or treatment. Detail "
                "beyond the measured centre of k-space is inferred, not measured."
            ),
        ),
    )
}
"""All tasks by name."""


def get_task(name: str) -> Task:
    """Task of that name.

    Raises:
        ConfigError: there is none; the message gives the nearest name and all names.
    """
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"task {name!r} is unknown; {hint}tasks are: {', '.join(TASKS)}")
