"""Segment a T1-weighted MRI of a head into tissue fractions on the grid of a PET scanner.

The segmentation aims at plausible tissue maps, not at volumetry:

1. the head is the largest object brighter than air, with its holes filled;
2. the brain is the largest object that remains of the bright voxels deep in the head after a
   morphological opening, as in Shattuck et al., NeuroImage 13:856 (2001);
3. inside the brain a smooth bias field is divided out (Wells et al., IEEE TMI 15:429, 1996), and
   the fractions of CSF, grey and white matter follow from the position of the intensity between
   the means of the three tissues.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restore_rwkv.errors import InputError, OperatorError
from restore_rwkv.io import Volume, affine_of_axes
from restore_rwkv.physics.pet.masks import Mask, closed, dilated, eroded, filled, largest

Array = NDArray[np.float32]

_SCALP = 10.0  # mm; brain is at least this far below the surface of the head
_CORE = 24.0  # mm; near the top of the head, everything deeper than this is brain
_BRAIN_HEIGHT = 150.0  # mm from the top of the head to the lower end of the brain


@dataclass(frozen=True, eq=False)
class Head:
    """Tissue fractions of a head on an isotropic grid whose axes run right, front, up.

    Attributes:
        grey: grey matter, (X, Y, Z) float32 in [0, 1], as the other four; the rest up to 1 is air.
        white: white matter.
        csf: cerebrospinal fluid.
        soft: scalp, muscle, marrow and all other soft tissue.
        bone: skull.
        affine: (4, 4) voxel indices to mm, RAS+.
    """

    grey: Array
    white: Array
    csf: Array
    soft: Array
    bone: Array
    affine: NDArray[np.float64]


def segment_head(
    volume: Volume, *, axes: str | None = None, size: int = 128, voxel: float = 2.0
) -> Head:
    """Compute tissue fractions from a T1-weighted head, on the grid of a PET scanner.

    Args:
        volume: T1-weighted MRI in any unit, with an affine and the whole cranium in view; white
            matter must be brighter than grey matter, and grey matter brighter than CSF.
        axes: directions in which the array's axes run, such as "PIR", for files whose affine has
            the right spacings but wrong directions; None to use the affine.
        size: number of pixels along each side of an axial slice.
        voxel: edge of a voxel in mm.

    Returns:
        Fractions of shape (size, size, Z), centred on the volume; Z covers the brain and 10 mm
        above and below it, within the volume.

    Raises:
        OperatorError: no affine, invalid `axes`, `size` or `voxel`, or no brain found.
    """
    affine = _placed(volume, axes)
    if size < 8 or not (math.isfinite(voxel) and voxel > 0):
        raise OperatorError(
            f"grid of {size} pixels of {voxel:g} mm; give at least 8 pixels and a positive size"
        )
    fine, grid = _resampled(volume.data, affine, size, voxel)
    image = _halved(fine)
    head, air = _head_mask(image, voxel)
    signal = np.maximum(image - air, 0)
    depth = _distance(head, voxel)
    brain, gain, means = _brain_mask(signal, head, depth, voxel)
    fine = np.maximum(ndimage.gaussian_filter(fine, 0.7) - air, 0) * _doubled(gain)
    csf, grey, white = _brain_tissue(fine, _doubled(brain), means)
    outside = ndimage.distance_transform_edt(~brain, sampling=voxel)
    dark = head & ~brain & (signal * gain < 0.35 * means[1])
    # Bone is as dark as air in a T1: dark voxels near the brain count as bone, others as air.
    bone = (dark & (outside < 16)) | (head & ~brain & (outside < 7) & (depth > 4))
    soft = head & ~(brain | bone | dark)
    return _cropped((grey, white, csf, soft, bone), brain, grid, voxel)


def _placed(volume: Volume, axes: str | None) -> NDArray[np.float64]:
    """Affine of the volume, with the directions given by `axes`."""
    if volume.affine is None or volume.spacing is None:
        raise OperatorError("volume has no affine; give Volume(data, affine) with spacing in mm")
    if axes is None:
        return volume.affine
    try:
        return affine_of_axes(axes, volume.data.shape, volume.spacing)
    except InputError as error:
        raise OperatorError(str(error)) from error


def _resampled(
    data: Array, affine: NDArray[np.float64], size: int, voxel: float
) -> tuple[Array, NDArray[np.float64]]:
    """Resample to half voxels on a grid aligned with the world; also return the voxels' affine."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    half = np.array(data.shape) * 0.5
    centre = affine[:3, :3] @ (half - 0.5) + affine[:3, 3]
    slices = max(1, int(2 * (np.abs(affine[2, :3]) @ half) // voxel))
    shape = np.array([size, size, slices])
    fine = np.diag([voxel / 2] * 3 + [1.0])
    fine[:3, 3] = centre - voxel / 2 * (2 * shape - 1) / 2
    # A source finer than the grid is blurred to the grid's resolution; FWHM = 2.355 sigma.
    sigma = np.sqrt(np.maximum((voxel / 2) ** 2 - spacing**2, 0)) / 2.355 / spacing
    step = np.linalg.inv(affine) @ fine
    image = ndimage.affine_transform(
        ndimage.gaussian_filter(data, sigma),
        step[:3, :3],
        step[:3, 3],
        output_shape=tuple(2 * shape),
        order=1,
        cval=float(data.min()),
    )
    whole = np.diag([voxel] * 3 + [1.0])
    whole[:3, 3] = centre - voxel * (shape - 1) / 2
    return image, whole


def _head_mask(image: Array, voxel: float) -> tuple[Mask, float]:
    """Mask of the head without holes, and the intensity of air."""
    clipped = np.minimum(image, np.quantile(image, 0.99))
    air, tissue = _class_means(clipped, (0.2, 0.95)).tolist()
    bright = clipped > air + (tissue - air) / 4
    # Fill first: the scalp may be a separate shell, smaller than the brain inside it.
    return filled(closed(largest(filled(bright)), 10 / voxel)), air


def _distance(head: Mask, voxel: float) -> Array:
    """Depth below the surface of the head in mm; the neck counts as continuing below the volume."""
    padded = np.pad(head, ((1, 1), (1, 1), (0, 1)))
    depth = ndimage.distance_transform_edt(padded, sampling=voxel)
    return cast(Array, depth[1:-1, 1:-1, :-1])


def _brain_mask(
    signal: Array, head: Mask, depth: Array, voxel: float
) -> tuple[Mask, Array, NDArray[np.float64]]:
    """Mask of the brain with its sulci, the gain that flattens the signal, and class means.

    The means are those of CSF, grey and white matter.
    """
    levels = np.flatnonzero(head.any((0, 1)))
    below_top = voxel * (levels.max(initial=0) - np.arange(head.shape[2]))
    core = (depth > _CORE) & (below_top < 100)
    if core.sum() * voxel**3 < 1e5:
        raise OperatorError(
            "no brain found: less than 0.1 litre lies deep in the largest bright object; give a T1 "
            "of a whole head with the right affine, or give axes=PIR"
        )
    deep = (depth > _SCALP) & (below_top < _BRAIN_HEIGHT)
    gain = np.ones_like(signal)
    for turn in range(3):
        flat = signal * gain
        means = _class_means(flat[core], (0.05, 0.4, 0.8))
        tissue = deep & (flat > 0.5 * means[2]) & (flat < 1.3 * means[2])
        if turn < 2:
            bias = _smooth_inside(np.log(np.maximum(flat, 1e-3 * means[2])), tissue, 24 / voxel)
            gain *= np.exp(bias[core].mean() - bias)
    seed = largest(eroded(tissue, 4 / voxel))
    if not (seed & core).any():
        raise OperatorError(
            "no brain found: nothing remains deep in the head after an opening of 4 mm; give a T1, "
            "in which white matter is the brightest tissue of the brain"
        )
    brain = closed(dilated(seed, 6 / voxel) & tissue, 12 / voxel) & head
    brain = ndimage.binary_fill_holes(dilated(brain, 2 / voxel) & (depth > 0.6 * _SCALP))
    means = _class_means(flat[brain], (0.05, 0.4, 0.8))  # includes the cortex, unlike the core
    # The lowest class contains parts of sulci; ventricles are darker and closer to pure CSF.
    means[0] = min(means[0], float(np.quantile(flat[core & brain], 0.01)))
    return brain, gain, means


def _brain_tissue(
    fine: Array, brain: Mask, means: NDArray[np.float64]
) -> tuple[Array, Array, Array]:
    """Fractions of CSF, grey and white matter in whole voxels, from intensities in half voxels."""

    def rise(low: float, high: float) -> Array:  # the flat ends absorb noise
        part = (fine - low) / max(high - low, 1e-6)
        return _halved(np.clip((part - 0.2) / 0.6, 0, 1) * brain)

    tissue, white = rise(means[0], means[1]), rise(means[1], means[2])
    return _halved(brain.astype(np.float32)) - tissue, tissue - white, white


def _cropped(
    fractions: tuple[NDArray[Any], ...], brain: Mask, affine: NDArray[np.float64], voxel: float
) -> Head:
    """Crop the fractions to the slices that contain brain, plus 10 mm on either side."""
    levels = np.flatnonzero(brain.any((0, 1)))
    margin = round(10 / voxel)
    first, last = max(int(levels[0]) - margin, 0), int(levels[-1]) + margin + 1
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 2] * first
    grey, white, csf, soft, bone = (f[..., first:last].astype(np.float32) for f in fractions)
    return Head(grey, white, csf, soft, bone, moved)


def _class_means(values: Array, start: tuple[float, ...]) -> NDArray[np.float64]:
    """Means of intensity classes in rising order (k-means), initialised at quantiles."""
    means = np.quantile(values, start).astype(np.float64)
    for _ in range(20):
        labels = np.digitize(values, (means[1:] + means[:-1]) / 2)
        for k in range(len(means)):
            means[k] = values[labels == k].mean() if (labels == k).any() else means[k]
    return means


def _smooth_inside(values: Array, mask: Mask, sigma: float) -> Array:
    """Gaussian-weighted mean of the values inside the mask, at every voxel."""
    weights = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    sums = ndimage.gaussian_filter(np.where(mask, values, 0).astype(np.float32), sigma)
    return cast(Array, sums / np.maximum(weights, 1e-3))


def _halved(fine: Array) -> Array:
    """Means over blocks of 2 x 2 x 2."""
    x, y, z = (n // 2 for n in fine.shape)
    return cast(Array, fine.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5), dtype=np.float32))


def _doubled(coarse: NDArray[Any]) -> NDArray[Any]:
    return coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
