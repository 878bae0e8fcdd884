"""The plan of a restoration: everything that is decided before any weights are read."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume, same_field_of_view
from restore_rwkv.model import WeightsInfo
from restore_rwkv.options import Count, Whole, validated
from restore_rwkv.physics.mri import fourier_interpolate, kspace_block_shape
from restore_rwkv.restoration.memory import expected_memory
from restore_rwkv.restoration.slices import NETWORK_ONLY, Refinement
from restore_rwkv.restoration.strength import find_strength, strength_line
from restore_rwkv.restoration.tiles import Tiling, choose_tiling
from restore_rwkv.tasks import (
    AddedNoise,
    AxisFactor,
    PlaneChoice,
    Scaling,
    ScalingRule,
    Task,
    slice_axis,
)
from restore_rwkv.tasks.modality import check_factor, is_signed

_logger = logging.getLogger(__name__)

ScalingChoice = Literal["auto", "robust", "paper"]
Unit = Literal["auto", "SUV"]

_LARGEST_SCALE = 8.0


@validated()
@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """How a volume is run through the network.

    Attributes:
        plane: slices to restore: "auto" is the task's plane (MRI: that of finest spacing; CT:
            axial; PET: coronal), or across the last axis where an image has no geometry.
        scaling: "robust" (one factor per volume), "paper" (the paper's range for the task, for
            data prepared as the paper's), or "auto", as the weights were trained.
        memory: bytes allowed for the network's activations.
        scale: MRI on its coarse native grid is first interpolated to a grid finer by this factor
            along both axes of its slices, above 1 and at most 8; None keeps the grid.
        unit: "SUV" where PET is in it and its file does not say so, else "auto".
        consistency: MRI: steps that put the measured block of k-space back into each restored
            slice, see `restore_rwkv.physics.mri.keep_measured`; 0 for the network's own output,
            None for the number of the task or, with `scale`, 0.
        ensemble: restore each slice in several turns and mirrors, and take the mean: 8 passes of
            the network, for MRI whose measured block is even along both axes 4.
        factor: how much less was measured, above 1. MRI: ratio of the full to the measured extent
            of k-space per axis, for consistency and ensemble; None for that of the task or, with
            `scale`, for all of the coarse grid. CT, PET: how many times less dose than the scan to
            be reached, for the level of the noise that the network is told and the strength of
            its correction; None to find them from the noise of the scan.
        strength: CT, PET: part of the network's correction that is applied, 0 to 1; 1 for the
            network's own output. None for the calibrated one, if the weights have one.

    Raises:
        ConfigError: a value is unknown or out of range, or `factor` is given with `scale`.
    """

    plane: PlaneChoice = "auto"
    scaling: ScalingChoice = "auto"
    memory: Count = 2 << 30
    scale: float | None = None
    unit: Unit = "auto"
    consistency: Whole | None = None
    ensemble: bool = False
    factor: float | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not 1 < self.scale <= _LARGEST_SCALE:
            raise ConfigError(
                f"scale {self.scale:g} is out of range; give a factor above 1 and at most "
                f"{_LARGEST_SCALE:g}, or leave it out to keep the grid"
            )
        check_factor(self.factor)
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength:g}; give a number from 0 to 1")
        if self.factor is not None and self.scale is not None:
            raise ConfigError(
                "factor and scale are both given; leave factor out, since all of a coarse grid "
                "was measured"
            )


@dataclass(frozen=True, eq=False)
class Plan:
    """What is decided about one volume before the network runs.

    Attributes:
        task: what the volume is restored for.
        volume: what the network is given, on the grid of the result, in the unit of its file.
        axis: array axis across the slices.
        scale: factor of the finer grid; None where the grid is kept.
        scaling: onto the network's values.
        scaling_found: how the scaling was found: "scaling_rule" and, for PET, "suv_per_unit" or
            "no_suv".
        tiling: batch, tile and memory of the network's runs.
        refinement: turns to average over, steps towards the measured data, and the strength.
        parameters: number of weights of the network.
        noise: how much of the noise was added; None where that does not matter.
        factor_from: file name of the record that the factor is from; None where there was none.
    """

    task: Task
    volume: Volume
    axis: int
    scale: float | None
    scaling: Scaling
    scaling_found: Mapping[str, Any]
    tiling: Tiling
    parameters: int = 0
    refinement: Refinement = NETWORK_ONLY
    noise: AddedNoise | None = None
    factor_from: str | None = None

    @property
    def factor(self) -> AxisFactor | None:
        """Reduction of the measurement that is used; None where it does not matter."""
        if self.noise is not None:
            return self.noise.factor
        used = self.refinement.steps > 0 or len(self.refinement.turns) > 1
        return self.refinement.factor if used and self.task.rules.holds_measurement else None

    @property
    def kept(self) -> tuple[int, int] | None:
        """Samples of k-space per axis of a slice that are held to the scan's; None for none."""
        if not self.refinement.steps:
            return None
        _, height, width = self.volume.slices(self.axis).shape
        return kspace_block_shape(height, width, self.refinement.factor)

    @property
    def memory(self) -> int:
        """Largest resident memory of a process that runs this plan only, in bytes."""
        robust = self.scaling_found["scaling_rule"] == "robust"
        size = self.volume.data.nbytes
        return expected_memory(size, self.tiling, self.parameters, robust=robust)

    def lines(self) -> list[str]:
        """Describe the plan in lines of text."""
        count, height, width = self.volume.slices(self.axis).shape
        tile = self.tiling.tile
        cut = "whole" if tile == (height, width) else f"in tiles of {tile[0]} x {tile[1]}"
        lines = [
            f"task: {self.task.name}, {self.task.title}",
            f"slices: {count} of {height} x {width} across axis {self.axis}, {cut}, "
            f"{self.tiling.batch} at a time",
            f"scaling: {self.scaling_found['scaling_rule']}, (value - {self.scaling.offset:g}) / "
            f"{self.scaling.scale:g} {self.volume.unit or ''}".rstrip(),
            f"memory: about {self.memory / 2**30:.1f} GiB, {self.tiling.memory / 2**30:.1f} GiB "
            "of it for what the network computes",
        ]
        if self.scale is not None:
            lines.insert(1, f"grid: finer by {self.scale:g} along both axes of a slice")
        if len(self.refinement.turns) > 1:
            passes = len(self.refinement.turns)
            lines.append(f"ensemble: mean over {passes} turns and mirrors, so {passes} passes")
        if self.kept is not None:
            rows, columns = self.kept
            lines.append(
                f"consistency: {self.refinement.steps} steps keep the measured {rows} x {columns} "
                "samples of k-space"
            )
        line = strength_line(self.task, self.noise, self.refinement.strength)
        if line is not None:
            lines.append(line)
        if self.factor_from is not None:
            lines.append(f"factor: {self.factor:g}, from {self.factor_from}")
        return lines


def make_plan(
    volume: Volume,
    task: Task,
    options: RestoreOptions,
    *,
    info: WeightsInfo,
    device: torch.device,
) -> Plan:
    """Decide how a volume is restored, and refuse what cannot be.

    Args:
        volume: the low-quality scan, in the unit of its file.
        task: what it is restored for.
        options: what the user wants.
        info: record of the weights, which serve the task.
        device: where the network runs.

    Raises:
        InputError: the volume is of another modality or unit, or too small in the plane.
        ConfigError: the plane needs a geometry, an option is not for the task, or the memory
            allowed holds no tile.
    """
    if volume.modality not in (None, task.modality):
        raise InputError(
            f"{volume.name}: is {volume.modality}, and {task.name} restores {task.modality}; "
            "choose another task, or another scan"
        )
    _check_unit(volume, task, options.unit)
    task.rules.warn_of_strange_values(volume)
    axis = slice_axis(volume, task, options.plane)
    coarse = volume.slices(axis).shape
    if options.scale is not None:
        _check_scale(volume, task, options.scale)
        volume = finer(volume, axis, options.scale)
    count, height, width = volume.slices(axis).shape
    stride = info.config.stride
    if min(height, width) < stride:
        raise InputError(
            f"{volume.name}: slices are {height} x {width} pixels in this plane; "
            f"choose a plane with at least {stride} x {stride}"
        )
    tiling = choose_tiling(info.config, device, (count, height, width), options.memory)
    if tiling.tile != (height, width):
        _logger.warning(
            "%s: slices of %d x %d exceed the memory allowed, so they are restored in tiles of "
            "%d x %d, which changes the result slightly; allow more memory to avoid it",
            *(volume.name, height, width, *tiling.tile),
        )
    rule = info.scaling[task.name]
    if options.scaling != "auto":
        rule = ScalingRule("robust") if options.scaling == "robust" else task.paper_scaling
    # Data prepared as the paper's are in the paper's unit, unless they say otherwise.
    as_paper = options.scaling == "paper" and volume.unit is None
    in_task_unit = options.unit != "auto" or as_paper
    scaling, found = task.rules.find_scaling(volume, rule, in_task_unit=in_task_unit)
    refinement = _refinement(
        *(volume, task, options, (height, width), (coarse[1], coarse[2])),
        measured=axis == slice_axis(volume, task),
    )
    told, calibration = info.config.noise_level, info.strength.get(task.name)
    noise, part = find_strength(
        *(volume, task, options.factor, options.strength, calibration), told=told
    )
    level = None
    if told:
        level = 0.0 if noise is None else noise.level
    refinement = dataclasses.replace(refinement, strength=part, noise_level=level)
    return Plan(
        *(task, volume, axis, options.scale, scaling, found, tiling, info.parameters),
        *(refinement, noise),
    )


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
    for image, refined in zip(volume.slices(axis), np.moveaxis(data, axis, 0), strict=True):
        values = fourier_interpolate(torch.from_numpy(image.copy()), (size[0], size[1])).numpy()
        refined[...] = np.abs(values) if magnitude else values
    affine = None if volume.affine is None else same_field_of_view(volume.affine, shape, new)
    return volume.resampled(data, affine)


def _check_unit(volume: Volume, task: Task, unit: str) -> None:
    """Refuse a unit that the user gives and that cannot be right."""
    if unit == "auto":
        return
    if unit != task.unit:
        raise ConfigError(f"unit {unit} is not that of {task.name} ({task.unit}); leave unit out")
    if volume.unit not in (None, "a.u.", unit):
        raise InputError(f"{volume.name}: is in {volume.unit}, not {unit}; leave unit out")


def _refinement(
    volume: Volume,
    task: Task,
    options: RestoreOptions,
    shape: tuple[int, int],
    coarse: tuple[int, int],
    *,
    measured: bool,
) -> Refinement:
    """Turns and steps for slices of a shape, which had another on the grid of the scan.

    Where the slices are not those that were `measured`, their k-space is not either.

    Raises:
        ConfigError: steps are asked for where nothing measured is in the file, the factor is too
            large for the slices, or it would change nothing.
    """
    steps = options.consistency
    if steps is None:  # next to no gain on finer grids (docs/restoring.md)
        steps = task.consistency if options.scale is None and measured else 0
    if not task.rules.holds_measurement:
        if steps:
            raise ConfigError(
                f"consistency: what was measured for {task.rules.title} is not in the file of an "
                f"image, so {task.name} cannot keep it; leave consistency out"
            )
        turns = task.rules.turns(shape, task.factor) if options.ensemble else NETWORK_ONLY.turns
        return Refinement(turns)
    if not measured:
        _logger.warning(
            "%s: the weights for %s know slices in the plane that they were measured in; leave "
            "plane out unless this is it",
            *(volume.name, task.name),
        )
    if options.factor is not None and options.consistency == 0 and not options.ensemble:
        raise ConfigError(
            "factor: without consistency or ensemble it changes nothing for "
            f"{task.name}; leave it out"
        )
    if options.factor is not None and options.factor > min(shape):
        raise ConfigError(
            f"factor {options.factor:g} leaves no sample of k-space of slices of {shape[0]} x "
            f"{shape[1]}; give at most {min(shape)}"
        )
    factor: AxisFactor = options.factor or task.factor
    if options.scale is not None:
        # Interpolation has shared the highest frequency of an even side with its opposite.
        kept = [n - 1 + n % 2 for n in coarse]
        factor = (shape[0] / kept[0], shape[1] / kept[1])
    turns = task.rules.turns(shape, factor) if options.ensemble else NETWORK_ONLY.turns
    return Refinement(turns, steps, factor, signed=steps > 0 and is_signed(volume))


def _check_scale(volume: Volume, task: Task, scale: float) -> None:
    if not task.rules.finer_grid:
        raise ConfigError(f"scale: {task.name} keeps the grid of a scan; leave scale out")
    if scale != task.factor:
        _logger.warning(
            "%s: scale %g, and the weights for %s know images of %g times the resolution only; "
            "the result is less sure",
            *(volume.name, scale, task.name, task.factor),
        )
