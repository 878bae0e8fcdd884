"""Places of a scan where lesions are planted: in homogeneous tissue, apart from each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.challenge.lesions import Index, spacing_of
from restore_rwkv.io import Volume
from restore_rwkv.tasks import Task, slice_axis
from restore_rwkv.tasks.scaling import robust_scaling

Levels = NDArray[np.float32]

APART = 35.0
"""Distance in mm of lesions in one slice."""

_FINE = 2.5  # mm: sd of the smoothing that leaves structure and removes most noise
_MARGIN = 3.0  # mm of the same tissue around a lesion
_MOST_TRIED = 30_000  # voxels


@dataclass(frozen=True)
class _Tissue:
    """Which smoothed values are tissue, and how much they may vary within a lesion's size.

    Attributes:
        low, high: in HU, or in multiples of the mean of the foreground.
        uneven: sd, in HU or as a fraction of the local mean.
    """

    low: float
    high: float
    uneven: float


_TISSUES: Mapping[str, _Tissue] = {
    "CT": _Tissue(-30.0, 140.0, 20.0),
    "MR": _Tissue(0.6, 1.8, 0.12),
    "PT": _Tissue(0.6, 3.0, 0.25),
}


def find_sites(
    volume: Volume,
    task: Task,
    count: int,
    seed: int,
    *,
    radius: float = 5.0,
    apart: float = APART,
) -> tuple[Index, ...]:
    """Find places for lesions in homogeneous tissue of the task's modality.

    Tissue is soft tissue in CT (-30 to 140 HU), and otherwise what has 0.6 to 1.8 (MRI) or 0.6 to
    3 (PET) of the mean of the foreground, all after smoothing by a Gaussian of 2.5 mm. A ball of
    the radius and 3 mm more lies in it, and two radii around the middle lie inside the slice. The
    sd of smoothed values, weighted by a Gaussian of one radius, is at most 20 HU (CT), 12 % (MRI)
    or 25 % (PET) there.

    Args:
        volume: the scan of full quality.
        task: its task.
        count: largest number of places.
        seed: of the choice among them.
        radius: of the largest lesion in mm.
        apart: least distance in mm of two places in one slice; of different slices those count
            where balls around both would be in one slice, since methods restore slice by slice.

    Returns:
        Voxels (i, j, k), in random order; fewer than `count` where there is no room for more.

    Raises:
        InputError: the scan has no geometry, is too small, or has no such place.
    """
    axis = slice_axis(volume, task)
    spacing = spacing_of(volume)
    room = [2 * n * side for n, side in zip(volume.data.shape, spacing, strict=True)]
    if min(room) / 2 < 2 * radius:
        raise InputError(
            f"{volume.name}: {min(room) / 2:.3g} mm are too small for lesions of {radius:g} mm "
            "radius; give a larger scan, or smaller radii=MM"
        )
    tried = np.argwhere(middles_of(volume, task, radius))
    if len(tried) == 0:
        raise InputError(
            f"{volume.name}: has no homogeneous tissue that holds a lesion of {radius:g} mm "
            "radius and 3 mm around it; give another scan, more slices=N, or smaller radii=MM"
        )
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(tried))[:_MOST_TRIED]
    across = 2 * radius + spacing[axis]
    return _apart(tried[chosen], spacing, axis, (apart, across), count)


def tissue_of(volume: Volume, task: Task) -> NDArray[np.bool_]:
    """Return where the smoothed scan is tissue of the modality."""
    return _in_tissue(volume, task)(_smoothed(volume.data, _FINE, spacing_of(volume)))


def middles_of(volume: Volume, task: Task, radius: float) -> NDArray[np.bool_]:
    """Return where a lesion can have its middle, as `find_sites` says."""
    axis, spacing = slice_axis(volume, task), spacing_of(volume)
    fine = _smoothed(volume.data, _FINE, spacing)
    inside = _in_tissue(volume, task)
    # Outside of the volume there is none.
    depth = distance_transform_edt(np.pad(inside(fine), 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    level, squares = _smoothed(fine, radius, spacing), _smoothed(fine**2, radius, spacing)
    uneven = np.sqrt(np.maximum(squares - level**2, 0))
    if task.modality != "CT":
        uneven /= np.maximum(level, 1e-6 * float(level.max()))
    found: NDArray[np.bool_] = (depth > radius + _MARGIN) & (
        uneven <= _TISSUES[task.modality].uneven
    )
    for other in {0, 1, 2} - {axis}:
        margin = int(np.ceil(2 * radius / spacing[other])) + 2
        rim = np.moveaxis(found, other, 0)
        rim[:margin] = False
        rim[len(rim) - margin :] = False
    return found


def _in_tissue(volume: Volume, task: Task) -> Callable[[Levels], NDArray[np.bool_]]:
    limits = _TISSUES[task.modality]
    unit = 1.0 if task.modality == "CT" else 10 * robust_scaling(volume.data).scale

    def inside(levels: Levels) -> NDArray[np.bool_]:
        return (levels > limits.low * unit) & (levels < limits.high * unit)

    return inside


def _smoothed(data: Levels, sd: float, spacing: tuple[float, float, float]) -> Levels:
    smooth: Levels = gaussian_filter(data, [sd / side for side in spacing], truncate=3)
    return smooth


def _apart(
    tried: NDArray[np.intp],
    spacing: tuple[float, float, float],
    axis: int,
    distances: tuple[float, float],
    count: int,
) -> tuple[Index, ...]:
    """First places of a list that keep a distance in their slice, or across slices, in mm."""
    in_slice, across = distances
    places = tried * np.asarray(spacing)
    free = np.ones(len(tried), dtype=bool)
    found: list[Index] = []
    while len(found) < count and free.any():
        first = int(np.argmax(free))
        i, j, k = tried[first].tolist()
        found.append((i, j, k))
        steps = places - places[first]
        beside = np.delete(steps, axis, axis=1)
        near = np.sum(beside**2, axis=1) < in_slice**2
        free &= ~(near & (np.abs(steps[:, axis]) < across))
        free[first] = False
    return tuple(found)
