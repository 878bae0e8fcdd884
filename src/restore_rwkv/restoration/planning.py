"""How a scan is restored: the decisions of a plan, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from restore_rwkv.errors import ConfigError, InputError, UnfitError
from restore_rwkv.io import Volume, same_field_of_view
from restore_rwkv.model import WeightsInfo
from restore_rwkv.physics.mri import fourier_interpolate
from restore_rwkv.restoration.fit import Fit, judge
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.restoration.slices import NETWORK_ONLY, Refinement
from restore_rwkv.restoration.strength import find_strength
from restore_rwkv.restoration.tiles import choose_tiling
from restore_rwkv.tasks import AxisFactor, Scaling, ScalingRule, Task, slice_axis
from restore_rwkv.tasks.modality import is_signed

_logger = logging.getLogger(__name__)


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
        UnfitError: the weights are not for this image, as its file or its values say.
        InputError: the volume is of another modality or unit, or too small in the plane.
        ConfigError: the plane needs a geometry, an option is not for the task, or the memory
            allowed holds no tile.
    """
    if volume.modality not in (None, task.modality):
        raise InputError(
            f"{volume.name}: is {volume.modality}, and {task.name} restores {task.modality}; "
            "give another task=NAME, or another scan"
        )
    _check_unit(volume, task, options.unit)
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
            f"give a plane=NAME with at least {stride} x {stride}"
        )
    tiling = choose_tiling(
        *(info.config, device, (count, height, width), options.memory),
        exported=bool(info.export),
    )
    if tiling.tile != (height, width):
        _logger.warning(
            "%s: slices of %d x %d exceed the memory allowed, so they are restored in tiles of "
            "%d x %d, which changes the result slightly; give a larger memory=SIZE to avoid it",
            *(volume.name, height, width, *tiling.tile),
        )
    refinement = _refinement(
        *(volume, task, options, (height, width), (coarse[1], coarse[2])),
        measured=axis == slice_axis(volume, task),
    )
    fit = judge(volume, task, axis, info.fit.get(task.name))
    forced = _require_fit(volume, fit, options)
    scaling, found = _scaling(volume, task, options, info.scaling[task.name])
    told, calibration = info.config.noise_level, info.strength.get(task.name)
    noise, part = find_strength(
        *(volume, task, options.factor, options.strength, calibration), told=told
    )
    level = None if not told else 0.0 if noise is None else noise.level
    return Plan(
        *(task, volume, axis, options.scale, scaling, found, tiling, info.parameters, fit, forced),
        dataclasses.replace(refinement, strength=part, noise_level=level),
        noise,
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


def factor_of_finer(shape: tuple[int, int], coarse: tuple[int, int]) -> tuple[float, float]:
    """Return the reduction of the measurement of a slice on a finer grid, for each of its axes.

    Args:
        shape: (rows, columns) on the finer grid.
        coarse: the same on the grid of the scan, all of which was measured.
    """
    # Interpolation has shared the highest frequency of an even side with its opposite.
    kept = [n - 1 + n % 2 for n in coarse]
    return shape[0] / kept[0], shape[1] / kept[1]


def _scaling(
    volume: Volume, task: Task, options: RestoreOptions, rule: ScalingRule
) -> tuple[Scaling, Mapping[str, Any]]:
    """Scaling by the user's rule or that of the weights, and how it was found."""
    if options.scaling != "auto":
        rule = ScalingRule("robust") if options.scaling == "robust" else task.paper_scaling
    # Data prepared as the paper's are in the paper's unit, unless they say otherwise.
    as_paper = options.scaling == "paper" and volume.unit is None
    in_task_unit = options.unit != "auto" or as_paper
    return task.rules.find_scaling(volume, rule, in_task_unit=in_task_unit)


def _check_unit(volume: Volume, task: Task, unit: str) -> None:
    """Refuse a unit that the user gives and that cannot be right."""
    if unit == "auto":
        return
    if unit != task.unit:
        raise ConfigError(f"unit {unit} is not that of {task.name} ({task.unit}); leave unit out")
    if volume.unit not in (None, "a.u.", unit):
        raise InputError(f"{volume.name}: is in {volume.unit}, not {unit}; leave unit out")


def _require_fit(volume: Volume, fit: Fit, options: RestoreOptions) -> bool:
    """Refuse an unfit image, warn of a doubtful one, and return whether it goes on by force."""
    refused = [finding for finding in fit.findings if finding.level == "unfit" or options.strict]
    if refused and not options.force:
        way = "leave strict out" if refused[0].level == "doubtful" else "give force=True"
        raise UnfitError(f"{volume.name}: {refused[0].text}; or {way} to restore it all the same")
    for finding in fit.findings:
        _logger.warning("%s: %s", volume.name, finding.text)
    return bool(refused)


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
        factor = factor_of_finer(shape, coarse)
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
