"""Selection of the slices of a volume for a set: by plane, without slices of air."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.io import Volume
from restore_rwkv.tasks import Scaling, Task

_MAX_SPACING_RATIO = 1.5
_MIN_SIDE = 32
_SIGNAL_FRACTION = 0.05


def slices_across(
    volume: Volume, axis: int
) -> tuple[NDArray[np.float32], tuple[float, float, float] | None]:
    """Slices (N, H, W) across an array axis as a view, and the mm between slices, rows, columns.

    Rows and columns are the other two axes in their order, as when a scan is restored.
    """
    images = volume.slices(axis)
    if volume.spacing is None:
        return images, None
    down, along = (volume.spacing[other] for other in range(3) if other != axis)
    return images, (volume.spacing[axis], down, along)


def has_signal(image: NDArray[np.float32], task: Task, scaling: Scaling) -> bool:
    """Whether at least 5 % of the pixels of an image are above the air threshold of the task."""
    return float(np.mean(scaling.apply(image) > task.air)) >= _SIGNAL_FRACTION


def indices_with_signal(images: NDArray[np.float32], volume: Volume, task: Task) -> list[int]:
    """Indices of the slices (N, H, W) with signal, judged by the scaling of the whole volume."""
    scaling = task.scaling.scaling_of(volume.data)
    return [i for i, image in enumerate(images) if has_signal(image, task, scaling)]


def square_planes(volume: Volume) -> list[int]:
    """Array axes whose slices have nearly square pixels (up to 1 : 1.5) and sides of 32 or more."""
    spacing = volume.spacing or (1.0, 1.0, 1.0)
    axes = []
    for axis in range(3):
        sides = [other for other in range(3) if other != axis]
        size = min(volume.data.shape[other] for other in sides)
        mm = [spacing[other] for other in sides]
        if max(mm) <= _MAX_SPACING_RATIO * min(mm) and size >= _MIN_SIDE:
            axes.append(axis)
    return axes


def index_ranges(indices: Sequence[int]) -> str:
    """Format rising indices as text: [3, 4, 5, 9] becomes "3-5, 9"."""
    runs = itertools.groupby(enumerate(indices), lambda entry: entry[1] - entry[0])
    texts = []
    for _, run in runs:
        members = [index for _, index in run]
        ends = dict.fromkeys((members[0], members[-1]))
        texts.append("-".join(map(str, ends)))
    return ", ".join(texts)
