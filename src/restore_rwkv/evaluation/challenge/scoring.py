"""How strong a lesion is in an image, and what an image shows where there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.challenge.lesions import (
    Box,
    Lesion,
    Values,
    height_of,
    pixel_of,
    shape_of,
    spacing_of,
)
from restore_rwkv.io import Volume

_SHELL = 2.0  # radii: outer end of what a lesion is compared with
_SHIFTS = (0.25, 0.5)  # of the radius: where the input may show it as well


@dataclass(frozen=True, eq=False)
class Probe:
    """A matched filter for a lesion at one place of a volume.

    The contrast of an image E is `sum S (E - b) / sum S^2` with the shape S of the lesion of
    contrast 1, and the mean b of E around it: from its edge to two radii, in the same slices.

    Attributes:
        box: part of the array that it reads.
        weights: its linear form in that box.
        axis: array axis across the slices.
        steps: (N, 2) displacements in the slice, in voxels, of at most half the radius.
    """

    box: Box
    weights: Values
    axis: int
    steps: NDArray[np.intp]

    @classmethod
    def of(cls, volume: Volume, lesion: Lesion, axis: int) -> Probe:
        """Build the filter for a lesion, at least two radii from the border of its slice.

        Args:
            volume: the scan without lesions.
            lesion: whose place, radius and edge count; contrasts are in its unit.
            axis: array axis across the slices.
        """
        inner, shape = shape_of(volume, lesion)
        height = height_of(volume, lesion) / lesion.contrast
        box = _widened(inner, volume, lesion, axis)
        full = np.zeros([part.stop - part.start for part in box])
        full[
            tuple(
                slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, box, strict=True)
            )
        ] = shape * height
        weights = full / np.sum(full**2)
        around = _shell(volume, lesion, box)
        if around.any():
            weights = weights - np.where(around, weights.sum() / around.sum(), 0)
        return cls(box, weights, axis, _steps(volume, lesion.radius, axis))

    def contrast(self, data: NDArray[np.floating]) -> float:
        """Return the contrast in the unit of the lesion that an array (X, Y, Z) has here."""
        return float(np.sum(self.weights * data[self.box]))

    def strongest(self, data: NDArray[np.floating], sign: int) -> float:
        """Return the largest `sign * contrast` here and up to half a radius away in the slice."""
        rows, columns = (other for other in range(3) if other != self.axis)
        found = []
        for down, along in self.steps.tolist():
            box = list(self.box)
            for other, step in ((rows, down), (columns, along)):
                start, stop = box[other].start + step, box[other].stop + step
                if start < 0 or stop > data.shape[other]:
                    break
                box[other] = slice(start, stop)
            else:
                moved = data[tuple(box)]
                found.append(sign * float(np.sum(self.weights * moved)))
        return max(found)


@dataclass(frozen=True)
class Shown:
    """What an image shows at a place without a lesion, in the unit of contrasts.

    Attributes:
        contrast: of the image's error: the image minus the truth.
        of_input: of the input's error, at the same place.
        painted: by how much the image exceeds what the input shows, as `painted` defines it.
    """

    contrast: float
    of_input: float
    painted: float


def painted(probe: Probe, error: NDArray[np.floating], of_input: NDArray[np.floating]) -> Shown:
    """Measure what a method adds at a place where nothing was planted.

    With the contrast A of the error of an image, in either sign s, and the largest contrast that
    the error of the input has in that sign here or up to half a radius away,

        painted = max over s of  s A(image - truth) - max(0, max s A(input - truth))

    Noise that remains, also where it was moved a little, does not count: it is in the input at
    least as strong. Nor does a structure that both have lost.

    Args:
        probe: filter for the lesion.
        error: (X, Y, Z) image minus truth.
        of_input: (X, Y, Z) input minus truth.
    """
    found = probe.contrast(error)
    excess = max(sign * found - max(0.0, probe.strongest(of_input, sign)) for sign in (1, -1))
    return Shown(found, probe.contrast(of_input), excess)


def _widened(inner: Box, volume: Volume, lesion: Lesion, axis: int) -> Box:
    """A box that holds the surroundings of a lesion in its slices as well."""
    parts = []
    for other, (part, side) in enumerate(zip(inner, spacing_of(volume), strict=True)):
        reach = 0 if other == axis else _SHELL * lesion.radius / side
        first = min(part.start, round(lesion.centre[other] - reach))
        last = max(part.stop, round(lesion.centre[other] + reach) + 1)
        parts.append(slice(max(first, 0), min(last, volume.data.shape[other])))
    return parts[0], parts[1], parts[2]


def _shell(volume: Volume, lesion: Lesion, box: Box) -> NDArray[np.bool_]:
    """Voxels of a box from the smooth edge of a lesion to two radii."""
    squares = [
        ((np.arange(part.start, part.stop) - centre) * side) ** 2
        for part, centre, side in zip(box, lesion.centre, spacing_of(volume), strict=True)
    ]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    inner = lesion.radius + min(2 * lesion.edge, 0.5 * lesion.radius) + pixel_of(volume) / 2
    around: NDArray[np.bool_] = (distance > inner) & (distance <= _SHELL * lesion.radius)
    return around


def _steps(volume: Volume, radius: float, axis: int) -> NDArray[np.intp]:
    """Displacements in a slice, in voxels: none, and eight directions at two distances."""
    rows, columns = (side for other, side in enumerate(spacing_of(volume)) if other != axis)
    angles = np.arange(8) * np.pi / 4
    found = [(0, 0)]
    for share in _SHIFTS:
        for angle in angles:
            down, along = share * radius * np.sin(angle), share * radius * np.cos(angle)
            found.append((round(down / rows), round(along / columns)))
    return np.unique(np.asarray(found, dtype=np.intp), axis=0)
