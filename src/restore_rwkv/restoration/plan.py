"""What happens to a scan before the network sees it: its task, slices, grid and scaling."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume, same_field_of_view
from restore_rwkv.physics.mri.resolution import fourier_interpolate
from restore_rwkv.tasks import Plane, Scaling, ScalingRule, Task, slice_axis
from restore_rwkv.tasks.units import check_unit, find_scaling, warn_of_strange_values

_logger = logging.getLogger(__name__)

ScalingChoice = Literal["auto", "robust", "fixed"]
Unit = Literal["auto", "SUV"]

_MIN_SIDE = 8
_LARGEST_SCALE = 8.0


@dataclass(frozen=True)
class Settings:
    """How a volume is run through the network.

    Attributes:
        plane: slices to restore: "auto" is the task's plane (MRI: that of finest spacing; CT:
            axial; PET: coronal), or across the last axis where an image has no geometry.
        scaling: "robust" (one factor per volume), "fixed" (the paper's range for the task, for
            data prepared as the paper's), or "auto", as the weights were trained.
        memory: bytes allowed for the network's activations.
        scale: MRI on its coarse native grid is first interpolated to a grid finer by this factor
            along both axes of its slices, above 1 and at most 8; None keeps the grid.
        unit: "SUV" where PET is in it and its file does not say so, else "auto".

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    plane: Plane = "auto"
    scaling: ScalingChoice = "auto"
    memory: int = 2 << 30
    scale: float | None = None
    unit: Unit = "auto"

    def __post_init__(self) -> None:
        for name, choices in (
            ("plane", ("auto", "axial", "coronal", "sagittal")),
            ("scaling", ("auto", "robust", "fixed")),
            ("unit", ("auto", "SUV")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is unknown; use {', '.join(choices)}"
                )
        if self.scale is not None and not 1 < self.scale <= _LARGEST_SCALE:
            raise ConfigError(
                f"scale {self.scale:g} is out of range; give a factor above 1 and at most "
                f"{_LARGEST_SCALE:g}, or leave it out to keep the grid"
            )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume ready for the network.

    Attributes:
        volume: on the grid of the result, in the unit of its file.
        axis: array axis across the slices.
        scaling: onto the network's values.
        record: how all that was found, as plain JSON values.
    """

    volume: Volume
    axis: int
    scaling: Scaling
    record: dict[str, Any]


def prepare(volume: Volume, task: Task, rule: ScalingRule, settings: Settings) -> Prepared:
    """Choose slices and scaling of a volume, after interpolating it where that is asked for.

    Args:
        volume: the low-quality scan, in the unit of its file.
        task: what it is restored for.
        rule: scaling that the weights were trained with for the task.
        settings: what the user wants otherwise.

    Raises:
        InputError: the volume is of another modality or unit, or too small in the plane.
        ConfigError: the plane needs a geometry, or a setting is not for the task.
    """
    if volume.modality not in (None, task.modality):
        raise InputError(
            f"{volume.name}: is {volume.modality}, and {task.name} restores {task.modality}; "
            "choose another task, or another scan"
        )
    check_unit(volume, task, settings.unit)
    warn_of_strange_values(volume, task)
    axis = slice_axis(volume, task, settings.plane)
    record: dict[str, Any] = {"slice_axis": axis, "modality": volume.modality, "unit": volume.unit}
    if settings.scale is not None:
        _check_scale(volume, task, settings.scale)
        volume = finer(volume, axis, settings.scale)
        record["scale"] = settings.scale
    sides = [side for a, side in enumerate(volume.data.shape) if a != axis]
    if min(sides) < _MIN_SIDE:
        raise InputError(
            f"{volume.name}: slices are {sides[0]} x {sides[1]} pixels in this plane; "
            f"choose a plane with at least {_MIN_SIDE} x {_MIN_SIDE}"
        )
    if settings.scaling != "auto":
        rule = ScalingRule("robust") if settings.scaling == "robust" else task.paper_scaling
    fixed_for = settings.scaling == "fixed" and volume.unit is None
    in_task_unit = settings.unit != "auto" or fixed_for
    scaling, how = find_scaling(volume, task, rule, in_task_unit=in_task_unit)
    return Prepared(volume, axis, scaling, record | {"scaling": scaling.to_dict()} | how)


def finer(volume: Volume, axis: int, scale: float) -> Volume:
    """Volume on a grid finer by `scale` along both axes of its slices, by Fourier interpolation.

    A side of n voxels becomes one of round(n * scale) over the same field of view (see
    `restore_rwkv.io.same_field_of_view`). Magnitudes stay magnitudes.

    Args:
        volume: MRI.
        axis: across the slices; this axis is left as it is.
        scale: above 1.
    """
    shape = volume.data.shape
    new = tuple(n if a == axis else round(n * scale) for a, n in enumerate(shape))
    size = tuple(n for a, n in enumerate(new) if a != axis)
    magnitude = volume.data.min() >= 0
    data = np.empty(new, np.float32)
    for image, refined in zip(
        np.moveaxis(volume.data, axis, 0), np.moveaxis(data, axis, 0), strict=True
    ):
        values = fourier_interpolate(torch.from_numpy(image.copy()), (size[0], size[1])).numpy()
        refined[...] = np.abs(values) if magnitude else values
    affine = None if volume.affine is None else same_field_of_view(volume.affine, shape, new)
    return volume.resampled(data, affine)


def _check_scale(volume: Volume, task: Task, scale: float) -> None:
    if task.modality != "MR":
        raise ConfigError(f"scale: {task.name} keeps the grid of a scan; leave scale out")
    if scale != task.factor:
        _logger.warning(
            "%s: scale %g, and the weights for %s know images of %g times the resolution only; "
            "the result is less sure",
            *(volume.name, scale, task.name, task.factor),
        )
