"""Effective receptive fields: which input pixels the centre of the output depends on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restore_rwkv.data import PreparedSet, slices_of
from restore_rwkv.data.prepared import holds_sets, read_sets
from restore_rwkv.errors import ConfigError, InputError, OperatorError
from restore_rwkv.io import read_volume
from restore_rwkv.model import RestoreRWKV
from restore_rwkv.tasks import ScalingRule, pick_task
from restore_rwkv.tasks.plane import slice_axis

Field = NDArray[np.float64]

IMAGES = 6
"""Number of images that a field is averaged over."""

SHARES = (0.2, 0.3, 0.5, 0.95, 0.99)
"""Shares of the gradient whose area is stated: those of RepLKNet (arXiv 2203.06717), and 0.95."""


def effective_receptive_field(
    network: nn.Module, images: Tensor, *, adds_input: bool | None = None
) -> Field:
    """Return the effective receptive field of the centre (Luo et al. 2016, arXiv 1701.04128).

    For images x_n and the output y(x) without an added input, at the central pixel c:

        F_ij = 1/N sum_n | d y_c(x_n) / d x_n,ij |

    Args:
        network: maps (B, 1, H, W) to the same shape.
        images: (N, 1, H, W) in network values, on the network's device.
        adds_input: whether the network adds its input to its output; that is taken off, since it
            would hide all else in the central pixel. None for what its `config.residual` says;
            without one, only a `RestoreRWKV` does.

    Returns:
        (H, W), in network values out per network value in; its centre is (H // 2, W // 2).

    Raises:
        OperatorError: the output has another shape, or does not depend on the input.

    Example:
        >>> mean = nn.Conv2d(1, 1, 3, padding=1)
        >>> int((effective_receptive_field(mean, torch.zeros(1, 1, 9, 9)) > 0).sum())
        9
    """
    if adds_input is None:
        config = getattr(network, "config", None)
        adds_input = bool(getattr(config, "residual", isinstance(network, RestoreRWKV)))
    name = type(network).__name__
    row, column = (length // 2 for length in images.shape[2:])
    total = np.zeros(tuple(images.shape[2:]))
    for given in images[:, None]:
        image = given.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = network(image)
            if output.shape != image.shape:
                raise OperatorError(
                    f"{name}: turns {tuple(image.shape)} into {tuple(output.shape)}; give a "
                    "network that keeps the shape"
                )
            centre = (output - image if adds_input else output)[..., row, column].sum()
            if not centre.requires_grad:
                raise _without_field(name)
            (gradient,) = torch.autograd.grad(centre, image)
        total += gradient[0, 0].abs().double().cpu().numpy()
    if not np.isfinite(total).all() or not total.any():
        raise _without_field(name)
    return total / len(images)


def high_contribution_area(field: Field, share: float = 0.5) -> float:
    """Return the high-contribution area ratio of RepLKNet (arXiv 2203.06717, section 3).

    The area of the smallest square around the centre that holds the share of the field, over the
    area of the image:

        r = min { |S_d| : sum_{ij in S_d} F_ij >= share * sum_ij F_ij } / (H W)

    with S_d the pixels at most d rows and columns from the centre. RepLKNet takes the sum over
    log10(F + 1), which depends on the scale of F; here it is F itself.

    Args:
        field: (H, W), as `effective_receptive_field` returns it.
        share: 0 to 1.

    Returns:
        Above 0, for a field of one pixel 1 / (H W), to 1; near the share for a uniform field.

    Raises:
        ConfigError: the share is not within 0 to 1, or the field is zero or not finite.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share is {share}; give a number above 0, at most 1")
    if not 0 < field.sum() < np.inf:
        raise ConfigError(f"field: its sum is {field.sum()}; give one with a finite gradient")
    enough = share * field.sum() * (1 - 1e-12)  # the order of the sums must not decide
    for distance in itertools.count():
        square = within(field, distance)
        if square.sum() >= enough or square.size == field.size:
            return square.size / field.size
    raise AssertionError


def within(field: Field, distance: int) -> Field:
    """Return the part of a field at most so many rows and columns from its centre."""
    rows, columns = (
        slice(max(0, length // 2 - distance), length // 2 + distance + 1) for length in field.shape
    )
    return field[rows, columns]


def field_numbers(field: Field) -> dict[str, Any]:
    """Return the numbers of a field for JSON.

    Returns:
        "area", `high_contribution_area` by share of the gradient (text, as "0.5"), and "within",
        the share of the gradient at most 8, 32 and 64 rows and columns from the centre.
    """
    total = field.sum()
    return {
        "area": {str(share): high_contribution_area(field, share) for share in SHARES},
        "within": {str(d): float(within(field, d).sum() / total) for d in (8, 32, 64)},
    }


def noise_images(size: int, seed: int = 0) -> Tensor:
    """Return fixed white noise, uniform in 0 to 1: `IMAGES` images (N, 1, size, size)."""
    return torch.rand(IMAGES, 1, size, size, generator=torch.Generator().manual_seed(seed))


def field_images(source: Path, size: int, scaling: Mapping[str, ScalingRule]) -> tuple[Tensor, str]:
    """Return centres of images for a network, in its values.

    Args:
        source: a prepared set, a folder of such sets, or a scan of low quality.
        size: rows and columns.
        scaling: how physical values become network values, by task of the network; empty for
            a network without a task, which takes the first set, or the task of the scan's modality.

    Returns:
        At most `IMAGES` images (N, 1, size, size), evenly spread over the validation slices of the
        set or the slices of the scan, and their origin in words.

    Raises:
        InputError: the source cannot be read, is of no task of the network, or is too small.
    """
    if source.is_dir() and holds_sets(source):
        slices, origin = _of_sets(read_sets(source), source, scaling)
    else:
        slices, origin = _of_scan(source, scaling)
    for image in slices:
        if min(image.shape) < size:
            raise InputError(
                f"{source}: slices are {image.shape[0]} x {image.shape[1]} pixels; give a smaller "
                f"size, at most {min(image.shape)}"
            )
    centres = []
    for image in slices:
        row, column = ((length - size) // 2 for length in image.shape)
        centres.append(image[row : row + size, column : column + size])
    return torch.from_numpy(np.stack(centres).astype(np.float32))[:, None], origin


def _of_sets(
    sets: Sequence[PreparedSet], source: Path, scaling: Mapping[str, ScalingRule]
) -> tuple[list[NDArray[np.float32]], str]:
    tasks = [prepared.task_name for prepared in sets]
    fitting = [prepared for prepared in sets if not scaling or prepared.task_name in scaling]
    if not fitting:
        raise InputError(
            f"{source}: is for {', '.join(tasks)}, the network for {', '.join(scaling)}; give "
            "a set of its task"
        )
    prepared = fitting[0]
    rule = scaling.get(prepared.task_name, prepared.task.scaling)
    items = slices_of([prepared], "validation", IMAGES)
    if not items:
        raise InputError(f"{prepared.folder}: has no validation slices; give another set")
    images = [item.stack.scaling(rule).apply(item.low()) for item in items]
    return images, f"{len(images)} validation slices of {prepared.dataset}, {prepared.task_name}"


def _of_scan(
    path: Path, scaling: Mapping[str, ScalingRule]
) -> tuple[list[NDArray[np.float32]], str]:
    volume = read_volume(path)
    task = pick_task(volume, "auto" if len(scaling) != 1 else next(iter(scaling)))
    if scaling and task.name not in scaling:
        raise InputError(
            f"{path}: is for {task.name}, the network for {', '.join(scaling)}; give a scan of "
            "its task"
        )
    volume = task.rules.to_task_unit(volume, task)
    found, _ = task.rules.find_scaling(volume, scaling.get(task.name, task.scaling))
    slices = task.rules.without_padding(volume.slices(slice_axis(volume, task)), task)
    count = min(IMAGES, len(slices))
    places = ((np.arange(count) + 0.5) * len(slices) / count).astype(int)
    return [found.apply(slices[place]) for place in places], f"{count} slices of {path.name}"


def _without_field(name: str) -> OperatorError:
    return OperatorError(
        f"{name}: the output does not depend on the input, but for the added input itself; give a "
        "network whose weights are not zero"
    )
