"""Round lesions that are planted in a scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume
from restore_rwkv.tasks import Task

Values = NDArray[np.float64]
Index = tuple[int, int, int]
Box = tuple[slice, slice, slice]

_EDGE = {"CT": 0.6, "MR": 0.0, "PT": 2.5}  # sd in mm; PET: FWHM 5 mm of detectors, 3 mm of filter
_PIXEL_EDGE = 0.3  # of a pixel: sd of the smoothest step that a pixel can show
_SAMPLE = 0.2  # of the radius: distance of the samples that a voxel is the mean of
_MOST_SAMPLES = 9  # along one axis of a voxel
_REACH = 3.5  # sd


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A ball of one value, seen through the resolution of a scanner.

    Attributes:
        centre: index (i, j, k) of its middle in the array; may lie between voxels.
        radius: in mm.
        contrast: of its middle, were it large, over what is there without it: in the unit of the
            scan, or in percent if `relative`. Below 0 for a darker lesion.
        relative: whether `contrast` is in percent of the mean that the scan has inside the ball.
        edge: sd in mm of the Gaussian that its edge is smoothed by.

    Raises:
        ConfigError: a number is not finite, the contrast is 0 or takes more than there is, or the
            radius is not above 0.
    """

    centre: tuple[float, float, float]
    radius: float
    contrast: float
    relative: bool = False
    edge: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.radius < math.inf and 0 <= self.edge < math.inf):
            raise ConfigError(f"radii: {self.radius:g} mm is no radius; give numbers above 0")
        if self.contrast == 0 or not math.isfinite(self.contrast):
            raise ConfigError(
                f"contrasts: {self.contrast:g} makes no lesion; give finite numbers other than 0"
            )
        if self.relative and self.contrast < -100:
            raise ConfigError(f"contrasts: {self.contrast:g} % is more than there is; give -100 %")


@dataclass(frozen=True, eq=False)
class Imprint:
    """What a lesion adds to a volume.

    Attributes:
        box: part of the array that it lies in.
        values: difference of the volume with it from that without, in that box, float64.
    """

    box: Box
    values: Values


def edge_of(task: Task, volume: Volume) -> float:
    """Return the sd in mm of the edges that scans of a modality show, at least 0.3 pixels."""
    return max(_EDGE[task.modality], _PIXEL_EDGE * pixel_of(volume))


def is_relative(task: Task) -> bool:
    """Whether contrasts of lesions are in percent of the local value: in all but CT."""
    return task.unit != "HU"


def spacing_of(volume: Volume) -> tuple[float, float, float]:
    """Return the distance of voxels along each array axis in mm.

    Raises:
        InputError: the volume has no geometry.
    """
    if volume.spacing is None:
        raise InputError(
            f"{volume.name}: has no geometry, so that nobody knows the size of its voxels in mm; "
            "give NIfTI or DICOM"
        )
    return volume.spacing


def pixel_of(volume: Volume) -> float:
    """Return the larger side in mm of the pixels in the finest plane of a volume."""
    return sorted(spacing_of(volume))[1]


def imprint(volume: Volume, lesion: Lesion) -> Imprint:
    """Return what planting a lesion changes, with the partial volume of its border.

    The shape is that of a ball convolved with an isotropic Gaussian, in closed form, averaged over
    each voxel. A volume without negative values gets none.

    Raises:
        InputError: the volume has no geometry, its pixels are larger than the radius, or the
            lesion lies outside.
    """
    pixel = pixel_of(volume)
    if lesion.radius < pixel:
        raise InputError(
            f"{volume.name}: a radius of {lesion.radius:g} mm is below its pixels of {pixel:.3g} "
            "mm; give larger radii=MM"
        )
    box, shape = shape_of(volume, lesion)
    before = volume.data[box].astype(np.float64)
    after = before + height_of(volume, lesion) * shape
    if lesion.relative and before.min() >= 0:
        after = np.maximum(after, 0)
    return Imprint(box, after.astype(np.float32).astype(np.float64) - before)


def height_of(volume: Volume, lesion: Lesion) -> float:
    """Return the contrast of a lesion in the unit of a volume."""
    if not lesion.relative:
        return lesion.contrast
    box, shape = shape_of(volume, lesion)
    return lesion.contrast / 100 * float(np.average(volume.data[box], weights=shape))


def plant(volume: Volume, lesions: Sequence[Lesion]) -> Volume:
    """Return a scan with lesions.

    Args:
        volume: the scan, with geometry.
        lesions: that do not overlap; each is relative to the scan without the others.

    Raises:
        InputError: as `imprint`.

    Example:
        >>> import numpy as np
        >>> water = Volume(np.zeros((32, 32, 9)), np.diag([0.7, 0.7, 2.5, 1.0]), unit="HU")
        >>> lesion = Lesion(centre=(16, 16, 4), radius=5.0, contrast=10.0, edge=0.6)
        >>> float(plant(water, [lesion]).data[16, 16, 4].round(1))
        10.0
    """
    data = volume.data.copy()
    for lesion in lesions:
        added = imprint(volume, lesion)
        data[added.box] += added.values.astype(np.float32)
    return volume.with_data(data)


def ball(distance: Values, radius: float, edge: float) -> Values:
    """Return a ball of height 1 under a Gaussian, at distances from its middle; all in mm.

    With u = (R - d) / (sqrt(2) s) and v = (R + d) / (sqrt(2) s), the value is
    `(erf u + erf v) / 2 - s / (sqrt(2 pi) d) (exp(-u^2) - exp(-v^2))`.
    """
    if edge == 0:
        return (distance <= radius).astype(np.float64)
    d = np.maximum(distance, 1e-3 * edge)
    near, far = ((radius + sign * d) / (math.sqrt(2) * edge) for sign in (-1, 1))
    rim = edge / (math.sqrt(2 * math.pi) * d) * (np.exp(-(near**2)) - np.exp(-(far**2)))
    values: Values = (erf(near) + erf(far)) / 2 - rim
    return values


def shape_of(volume: Volume, lesion: Lesion) -> tuple[Box, Values]:
    """Return the box that a lesion reaches to, and its shape there, averaged over each voxel.

    Raises:
        InputError: the volume has no geometry, or the lesion lies outside.
    """
    spacing, reach = spacing_of(volume), lesion.radius + _REACH * lesion.edge
    box, squares, counts = [], [], []
    for centre, side, length in zip(lesion.centre, spacing, volume.data.shape, strict=True):
        first = max(math.floor(centre - reach / side - 0.5), 0)
        last = min(math.ceil(centre + reach / side + 0.5), length - 1)
        if not (-0.5 <= centre <= length - 0.5) or last < first:
            raise InputError(
                f"{volume.name}: a lesion at {lesion.centre} lies outside of its "
                f"{volume.data.shape} voxels; give an index inside"
            )
        samples = min(math.ceil(side / (_SAMPLE * lesion.radius)), _MOST_SAMPLES)
        within = (np.arange(samples) + 0.5) / samples - 0.5
        place = np.arange(first, last + 1)[:, None] + within - centre
        box.append(slice(first, last + 1))
        squares.append((place * side).ravel() ** 2)
        counts.append(samples)
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    fine = ball(distance, lesion.radius, lesion.edge)
    a, b, c = counts
    shape = fine.reshape(fine.shape[0] // a, a, fine.shape[1] // b, b, fine.shape[2] // c, c)
    values: Values = shape.mean(axis=(1, 3, 5))
    return (box[0], box[1], box[2]), values
