"""What images show where no lesion was planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.signal import fftconvolve

from restore_rwkv.evaluation.challenge.lesions import (
    Index,
    Lesion,
    Values,
    edge_of,
    is_relative,
    shape_of,
    spacing_of,
)
from restore_rwkv.evaluation.challenge.scoring import Probe
from restore_rwkv.io import Volume
from restore_rwkv.tasks import Task, slice_axis

PLACE = 2.0
"""Radius of a place without a lesion, in radii of the lesion that is looked for in it."""

_NEAR = 1.0  # radii: as far away may input or truth show the same


@dataclass(frozen=True)
class Shown:
    """What images show at a place without a lesion, in the unit of contrasts.

    Attributes:
        contrast: of the method's image.
        of_input: of the input.
        of_truth: of the scan of full quality.
        painted: by how much the image exceeds both, as `PaintSearch` defines it.
    """

    contrast: float
    of_input: float
    of_truth: float
    painted: float


class PaintSearch:
    """Looks in homogeneous tissue for lesions that a method has made up.

    With the contrast A of an image at a voxel, as `Probe` measures it, in either sign s, and the
    largest contrasts that the input and the truth have in that sign there or up to one radius
    away in the slice,

        painted = max over s of  s A(image) - max(0, max s A(input), max s A(truth))

    Noise that remains, also where a blur has made a blob of several peaks, does not count, as the
    input has it nearby at least as strongly; nor does tissue that the truth shows. What an image
    lacks is lost, and not painted. A place is a disc of two radii in a slice, and has the largest
    value of its voxels.

    Args:
        truth: the scan of full quality.
        low: its low-quality form.
        task: of the scan.
        radius: of the lesions that are looked for, in mm.
    """

    def __init__(self, truth: Volume, low: Volume, task: Task, radius: float) -> None:
        self._axis, self._radius = slice_axis(truth, task), radius
        self._spacing = spacing_of(truth)
        middle = _lesion_alone(truth, task, radius)
        self._kernel, shape = middle
        self._unit: Values | float = 1.0
        if is_relative(task):
            local = _correlated(truth.data, shape / shape.sum())
            self._unit = 100 / np.maximum(local, 1e-6 * float(local.max()))
        self._low, self._truth = (self._contrasts(volume) for volume in (low, truth))
        reach = [
            0 if axis == self._axis else _NEAR * radius / side
            for axis, side in enumerate(self._spacing)
        ]
        near = _ellipse(reach)
        self._known = {
            sign: np.maximum(
                0,
                np.maximum(
                    maximum_filter(sign * self._low, footprint=near),
                    maximum_filter(sign * self._truth, footprint=near),
                ),
            )
            for sign in (1, -1)
        }

    def at(self, image: Volume, sites: Sequence[Index], tissue: NDArray[np.bool_]) -> list[Shown]:
        """Return what an image shows at places.

        Args:
            image: what a method made.
            sites: middles of the places.
            tissue: (X, Y, Z), voxels that count as middles of a lesion; sites are among them.
        """
        found = self._contrasts(image)
        painted = np.maximum(*(sign * found - self._known[sign] for sign in (1, -1)))
        painted = np.where(tissue, painted, -np.inf)
        reach = [
            0 if axis == self._axis else PLACE * self._radius / side
            for axis, side in enumerate(self._spacing)
        ]
        disc = _ellipse(reach)
        shown = []
        for site in sites:
            box, part = _clipped(site, disc, painted.shape)
            values = np.where(part, painted[box], -np.inf)
            inner = np.unravel_index(int(np.argmax(values)), values.shape)
            place = tuple(b.start + int(i) for b, i in zip(box, inner, strict=True))
            kinds = (found, self._low, self._truth, painted)
            shown.append(Shown(*(float(kind[place]) for kind in kinds)))
        return shown

    def _contrasts(self, volume: Volume) -> Values:
        """Contrast at each voxel, in the unit of lesions."""
        contrasts: Values = _correlated(volume.data, self._kernel) * self._unit
        return contrasts


def _lesion_alone(volume: Volume, task: Task, radius: float) -> tuple[Values, Values]:
    """Filter for a lesion in the middle of a voxel, in the unit of the scan, and its shape."""
    axis, edge = slice_axis(volume, task), edge_of(task, volume)
    room = [2 * int(np.ceil((2 * radius + 4 * edge) / side)) + 3 for side in spacing_of(volume)]
    empty = Volume(np.zeros(room, dtype=np.float32), volume.affine)
    i, j, k = (n // 2 for n in room)
    lesion = Lesion(centre=(i, j, k), radius=radius, contrast=1.0, edge=edge)
    probe = Probe.of(empty, lesion, axis)
    kernel = np.zeros(room)
    kernel[probe.box] = probe.weights
    shape = np.zeros(room)
    box, values = shape_of(empty, lesion)
    shape[box] = values
    return kernel, shape


def _correlated(data: NDArray[np.float32], kernel: Values) -> Values:
    """Correlate with a kernel of odd sides; values beyond the border are those at the border."""
    kept = kernel
    for axis in range(3):  # without sides that hold nothing
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(np.abs(kept).max(axis=others))
        trim = min(int(filled[0]), kept.shape[axis] - 1 - int(filled[-1]))
        kept = np.take(kept, range(trim, kept.shape[axis] - trim), axis=axis)
    padded = np.pad(data.astype(np.float64), [(n // 2, n // 2) for n in kept.shape], mode="edge")
    found: Values = fftconvolve(padded, kept[::-1, ::-1, ::-1], mode="valid")
    return found


def _ellipse(reach: Sequence[float]) -> NDArray[np.bool_]:
    """Voxels of an ellipsoid with half axes in voxels, in a box of odd sides."""
    sides = [np.arange(-int(n), int(n) + 1) / max(n, 1e-9) for n in reach]
    squares = sides[0][:, None, None] ** 2 + sides[1][:, None] ** 2 + sides[2] ** 2
    inside: NDArray[np.bool_] = squares <= 1 + 1e-9
    return inside


def _clipped(
    site: Index, disc: NDArray[np.bool_], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """Box of a disc around a site inside of an array, and the disc in it."""
    box, own = [], []
    for middle, side, length in zip(site, disc.shape, shape, strict=True):
        first = middle - side // 2
        start, stop = max(first, 0), min(first + side, length)
        box.append(slice(start, stop))
        own.append(slice(start - first, stop - first))
    return tuple(box), disc[tuple(own)]
