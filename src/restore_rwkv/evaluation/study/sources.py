"""What an evaluation scores: each scan with its truth, and the images that are compared with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.evaluation.scores import degraded_images, stack_volumes
from restore_rwkv.evaluation.study.results import INPUT
from restore_rwkv.io import Progress, Volume, begin_stage, read_volume
from restore_rwkv.io.kinds import suffix_of
from restore_rwkv.io.views import View, view_of
from restore_rwkv.tasks import DegradeOptions, Task, slice_axis

TRUTH = "truth"
"""Name of the images of full quality among those that are kept."""

_MATRICES = "release"  # the source of data whose arrays are image matrices


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one scan on one grid, in the unit of the task.

    Attributes:
        truth: what the others are compared with.
        axis: array axis across the slices.
        by_method: images by name of the method, "input" first where there is one.
        factor: of the degradation of the input; None where it is not known.
        pixel_mm: distance of pixels along the rows and columns of a slice; None if unknown.
        view: how a slice is displayed.
        made: names of those that were computed and not read; also "truth".
    """

    truth: Volume
    axis: int
    by_method: dict[str, Volume]
    factor: float | None
    pixel_mm: tuple[float, float] | None
    view: View
    made: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Case:
    """One scan to be scored.

    Attributes:
        name: unique in the study.
        key: path without suffix, unique in the study, under which its images are kept.
        patient: patient that it is of.
        task: its task.
        shape: (N, H, W) of its slices.
        origin: name of the file, folder or set that it comes from.
        digest: SHA-256 of what it was read from; of a prepared set that of the manifest.
        read: reads its images; degrades it where it has no low-quality image.
        stack: whether it is a stack of a prepared set, whose images are kept as (N, H, W).
    """

    name: str
    key: str
    patient: str
    task: Task
    shape: tuple[int, int, int]
    origin: str
    digest: str
    read: Callable[[Progress | None], Images]
    stack: bool = False


class ScanReader:
    """Reads a scan of full quality and degrades it; keeps one in memory that was read already."""

    def __init__(
        self, path: Path, task: Task, physics: DegradeOptions, seed: int, kept: Volume | None
    ) -> None:
        self.task = task
        self._path, self._physics, self._seed, self._kept = path, physics, seed, kept

    def __call__(self, progress: Progress | None) -> Images:
        """Return the degraded scan, interpolated ones, and their truth."""
        volume, self._kept = self._kept, None
        if volume is None:
            begin_stage(progress, "reading")
            volume = read_volume(self._path)
        begin_stage(progress, "degrading")
        made = degraded_images(volume, self.task, self._physics, self._seed, progress)
        names = frozenset({TRUTH, *made.images})
        return _images(made.truth, made.axis, made.images, made.factor, names)


@dataclass(frozen=True, eq=False)
class StackReader:
    """Reads a stack of a prepared set, and images of it that were restored by anything."""

    prepared: PreparedSet
    stack: Stack
    restored: Mapping[str, Path]

    def __call__(self, progress: Progress | None) -> Images:
        """Return low quality, restored images, and their truth."""
        begin_stage(progress, "reading")
        low, high = stack_volumes(self.prepared, self.stack)
        by_method = {INPUT: low}
        for name, path in self.restored.items():
            by_method[name] = high.with_data(as_stack(path, read_volume(path)))
        spacing = self.stack.spacing
        return Images(
            high,
            2,
            by_method,
            self.prepared.factor_of(self.stack),
            None if spacing is None else (spacing[1], spacing[2]),
            _view_of_stack(self.prepared, self.stack),
        )


@dataclass(frozen=True, eq=False)
class FileReader:
    """Reads images of one scan that lie on disk."""

    path: Path
    task: Task
    others: Mapping[str, Path]

    def __call__(self, progress: Progress | None) -> Images:
        """Return the images by method, and their truth."""
        begin_stage(progress, "reading")
        truth = self.in_task_unit(self.path)
        by_method = {name: self.in_task_unit(path) for name, path in self.others.items()}
        return _images(truth, slice_axis(truth, self.task), by_method, None, frozenset())

    def in_task_unit(self, path: Path) -> Volume:
        """Read an image in the unit of the task.

        Raises:
            InputError: it cannot be read, or is of another modality or unit.
        """
        return self.task.rules.to_task_unit(read_volume(path), self.task)


def as_stack(path: Path, volume: Volume) -> NDArray[np.float32]:
    """Return restored slices of a prepared set as (H, W, N), as its volumes are.

    Arrays in .npy are (N, H, W) or, of a single slice, (H, W); other files are (H, W, N).
    """
    several = volume.source is not None and len(volume.source.shape) > 2
    if suffix_of(path.name) == ".npy" and several:
        return np.moveaxis(volume.data, 0, 2)
    return volume.data


def _images(
    truth: Volume,
    axis: int,
    by_method: dict[str, Volume],
    factor: float | None,
    made: frozenset[str],
) -> Images:
    spacing = truth.spacing
    sides = [spacing[other] for other in range(3) if other != axis] if spacing else []
    pixel = (sides[0], sides[1]) if sides else None
    return Images(truth, axis, by_method, factor, pixel, view_of(truth, axis), made)


def _view_of_stack(prepared: PreparedSet, stack: Stack) -> View:
    """Return how a slice of a set is displayed, which has its axes in the order of the volume.

    DICOM has columns before rows, from the top; NIfTI has them from the bottom. A set does not say
    which of them it comes from, and CT mostly is DICOM.
    """
    _, height, width = stack.shape
    _, row_mm, column_mm = stack.spacing or (1.0, 1.0, 1.0)
    down, along = height * row_mm, width * column_mm
    if prepared.dataset == _MATRICES:
        return View("", False, (False, False), (down, along))
    return View("", True, (prepared.task.modality != "CT", False), (along, down))
