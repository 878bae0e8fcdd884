"""How strong a lesion is in an image."""

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


@dataclass(frozen=True, eq=False)
class Probe:
    """A matched filter for a lesion at one place of a volume.

    The contrast of an image E is `sum S (E - b) / sum S^2` with the shape S of the lesion of
    contrast 1, and the mean b of E around it: from its edge to two radii, in the same slices.

    Attributes:
        box: part of the array that it reads.
        weights: its linear form in that box.
    """

    box: Box
    weights: Values

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
        return cls(box, weights)

    def contrast(self, data: NDArray[np.floating]) -> float:
        """Return the contrast in the unit of the lesion that an array (X, Y, Z) has here."""
        return float(np.sum(self.weights * data[self.box]))


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
