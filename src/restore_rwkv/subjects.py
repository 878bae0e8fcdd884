"""Volumes to train on: what is read of them, and which of their slices training may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import acquisition_axis, read_volume
from restore_rwkv.scaling import FOREGROUND_LEVEL, Scaling, robust_scaling

Planes = Literal["all", "acquisition"]

_SIGNAL_LEVEL = FOREGROUND_LEVEL / 4  # in network values
_SIGNAL_FRACTION = 0.05
_MAX_SPACING_RATIO = 1.5
_MIN_SLICE_SIZE = 32


@dataclass(frozen=True)
class HeldOut:
    """A slab of slices that is kept for validation, with a guard of unused slices on each side.

    Attributes:
        axis: array axis the slices are numbered along, 0 to 2.
        start: first slice of the slab.
        stop: slice after the last.
        guard: slices on each side that neither training nor validation uses.
    """

    axis: int
    start: int
    stop: int
    guard: int = 4

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2) or not 0 <= self.start < self.stop or self.guard < 0:
            raise ConfigError(f"{self} is no slab; give axis 0 to 2, 0 <= start < stop, guard >= 0")

    def keeps(self, index: int) -> bool:
        """Whether slice `index` is left to training."""
        return not self.start - self.guard <= index < self.stop + self.guard


@dataclass(frozen=True, eq=False)
class Subject:
    """One volume to train on.

    Attributes:
        name: name of the file or folder without its suffix.
        data: (X, Y, Z), float32, physical units.
        spacing: mm along each array axis.
        scaling: onto the network's values, from the whole volume.
        held_out: slab kept for validation, if any. Planes across the slab would show it, so such
            a subject is trained on in the slab's own plane alone.
    """

    name: str
    data: NDArray[np.float32]
    spacing: tuple[float, float, float]
    scaling: Scaling
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        slab = self.held_out
        if slab is not None and slab.stop > self.data.shape[slab.axis]:
            length = self.data.shape[slab.axis]
            raise ConfigError(
                f"{self.name}: held-out slices end at {slab.stop} but axis {slab.axis} has "
                f"{length}; give a stop of at most {length}"
            )

    def slice_at(self, axis: int, index: int) -> NDArray[np.float32]:
        """Slice (H, W) across an array axis, in physical units; a view."""
        view: NDArray[np.float32] = np.moveaxis(self.data, axis, 0)[index]
        return view


def load_subjects(
    paths: Sequence[Path | str], held_out: Mapping[str, HeldOut] | None = None
) -> list[Subject]:
    """Read volumes into memory (float32, 4 bytes per voxel).

    Args:
        paths: NIfTI files, DICOM folders or whatever else `restore_rwkv.io.read_volume` reads.
        held_out: slab to keep for validation, by name of the subject.

    Raises:
        InputError: a path cannot be read, or two have the same name.
        ConfigError: `held_out` names no subject, or a slab does not fit its volume.
    """
    slabs = dict(held_out or {})
    subjects: list[Subject] = []
    for path in map(Path, paths):
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        if any(name == subject.name for subject in subjects):
            raise InputError(f"{path}: a subject named {name} is there already; rename one")
        volume = read_volume(path)
        spacing = volume.spacing or (1.0, 1.0, 1.0)
        scaling = robust_scaling(volume.data)
        subjects.append(Subject(name, volume.data, spacing, scaling, slabs.pop(name, None)))
    if slabs:
        names = ", ".join(subject.name for subject in subjects)
        raise ConfigError(f"no subject to hold out is named {', '.join(slabs)}; there are: {names}")
    return subjects


def training_slices(subject: Subject, planes: Planes = "all") -> list[tuple[int, int]]:
    """Slices (axis, index) with signal that training may use; never a held-out one.

    Raises:
        ConfigError: `planes` is neither "all" nor "acquisition".
    """
    if planes not in ("all", "acquisition"):
        raise ConfigError(f"planes {planes!r} is unknown; give 'all' or 'acquisition'")
    slab = subject.held_out
    if slab is not None:
        axes = [slab.axis]
    elif planes == "acquisition":
        axes = [acquisition_axis(subject.spacing)]
    else:
        axes = [axis for axis in range(3) if _is_plane(subject, axis)]
    return [
        (axis, index)
        for axis in axes
        for index in range(subject.data.shape[axis])
        if (slab is None or slab.keeps(index))
        and has_signal(subject.slice_at(axis, index), subject.scaling)
    ]


def has_signal(image: NDArray[np.float32], scaling: Scaling) -> bool:
    """Whether at least 5 % of the pixels are above a quarter of the volume's foreground mean."""
    return float(np.mean(image > _SIGNAL_LEVEL * scaling.scale)) >= _SIGNAL_FRACTION


def _is_plane(subject: Subject, axis: int) -> bool:
    """Whether slices across an axis have square enough pixels and enough of them."""
    across = [other for other in range(3) if other != axis]
    spacing = [subject.spacing[other] for other in across]
    size = min(subject.data.shape[other] for other in across)
    return max(spacing) <= _MAX_SPACING_RATIO * min(spacing) and size >= _MIN_SLICE_SIZE
