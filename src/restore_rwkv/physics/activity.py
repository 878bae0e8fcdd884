"""FDG-like activity and attenuation maps of a head, built from its T1-weighted MRI.

No real PET stands behind them: the anatomy is measured, the uptake is assigned, and whatever is
made of it is *simulated* PET. The segmentation aims at plausible tissue maps, not at volumetry:

1. the head is the largest object brighter than the air, its holes filled;
2. the brain is the largest object that is left of bright voxels deep in the head after an opening,
   the idea of Shattuck et al., NeuroImage 13:856 (2001);
3. inside it a smooth bias field is divided out (Wells et al., IEEE TMI 15:429, 1996) and fractions
   of CSF, grey and white matter follow from the intensity between the means of the three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from restore_rwkv.errors import OperatorError
from restore_rwkv.io import Volume

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]

# Linear attenuation at 511 keV in 1/mm (NIST XCOM: water 0.0096, cortical bone 0.0168, skull with
# its marrow in between).
MU_SOFT = 0.0096
MU_BONE = 0.0145

_DIRECTIONS = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}

_SCALP = 10.0  # mm: no brain is closer to the surface of the head
_CORE = 24.0  # mm: what is deeper than this near the top of the head is brain
_BRAIN_HEIGHT = 150.0  # mm from the top of the head to the lower end of the brain


@dataclass(frozen=True)
class Lesion:
    """A sphere in which uptake is multiplied.

    Attributes:
        centre: (x, y, z) in mm, RAS+ world.
        radius: in mm.
        factor: uptake over that of the tissue: hot above 1, cold below.
    """

    centre: Point
    radius: float
    factor: float


@dataclass(frozen=True)
class Mode:
    """One wave of regional variation, `amplitude * cos(wave . position + phase)`.

    Attributes:
        wave: wave vector in rad / mm, RAS+ world.
        phase: in rad.
        amplitude: relative, at least 0.
    """

    wave: Point
    phase: float
    amplitude: float


@dataclass(frozen=True)
class Uptake:
    """What was drawn for one activity map; `dataclasses.asdict` of it is ready for JSON.

    Attributes:
        grey: SUV of grey matter.
        white: SUV of white matter.
        csf: SUV of cerebrospinal fluid.
        soft: SUV of scalp, muscle and marrow.
        modes: smooth regional variation; amplitudes sum to at most 0.15.
        lesions: spheres in the brain.
    """

    grey: float
    white: float
    csf: float
    soft: float
    modes: tuple[Mode, ...] = ()
    lesions: tuple[Lesion, ...] = ()

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Uptake:
        """Return the uptake of a record that `dataclasses.asdict` and JSON have made."""
        modes = tuple(Mode(**{**m, "wave": tuple(m["wave"])}) for m in record["modes"])
        lesions = tuple(Lesion(**{**m, "centre": tuple(m["centre"])}) for m in record["lesions"])
        return cls(**{**record, "modes": modes, "lesions": lesions})


@dataclass(frozen=True, eq=False)
class Head:
    """Tissue fractions of a head on an isotropic grid whose axes run right, front, up.

    Attributes:
        grey: (X, Y, Z) float32 in [0, 1], as the four others; what is left to 1 is air.
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
    """Tissue fractions from a T1-weighted head, on the grid of a PET scanner.

    Args:
        volume: T1-weighted MRI in any unit, white matter brighter than grey, grey than CSF; the
            whole cranium in view, with an affine.
        axes: directions in which the array's axes run, such as "PIR", for files whose affine has
            right spacings but wrong directions; None trusts the affine.
        size: pixels of an axial slice along either side.
        voxel: edge of a voxel in mm.

    Returns:
        Fractions of shape (size, size, Z), centred on the volume; Z covers the brain and 10 mm
        above and below it, as far as the volume goes.

    Raises:
        OperatorError: no affine, wrong `axes`, `size` or `voxel`, or no brain is found.
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
    # Bone is as dark as air in a T1: what is dark next to the brain is bone, farther off it is air.
    bone = (dark & (outside < 16)) | (head & ~brain & (outside < 7) & (depth > 4))
    soft = head & ~(brain | bone | dark)
    return _cropped((grey, white, csf, soft, bone), brain, grid, voxel)


def sample_uptake(head: Head, generator: torch.Generator) -> Uptake:
    """Draw the uptake of an FDG scan: grey over white matter about 2.5 to 4, 0 to 4 lesions.

    Args:
        head: anatomy; lesions are centred on its grey and white matter.
        generator: on the CPU, the only source of randomness.

    Returns:
        A record in SUV and mm, from which `activity_map` gives the same map at any time.

    Raises:
        OperatorError: the head has no brain tissue.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    places = np.argwhere(head.grey + head.white > 0.5)
    if len(places) == 0:
        raise OperatorError("head: no voxel is grey or white matter; segment a T1 of a whole head")
    white = uniform(2.6, 3.4)
    modes = []
    for _ in range(4):
        x, y, z = (uniform(-1, 1) * 2 * math.pi / 90 for _ in range(3))  # 52 mm and longer
        modes.append(Mode((x, y, z), uniform(0, 2 * math.pi), uniform(0.015, 0.0375)))
    lesions = []
    for _ in range(int(torch.randint(0, 5, (), generator=generator))):
        place = places[int(torch.randint(len(places), (), generator=generator))]
        x, y, z = (head.affine[:3, :3] @ place + head.affine[:3, 3]).tolist()
        hot = uniform(0, 1) < 0.5
        factor = uniform(1.4, 2.2) if hot else uniform(0.3, 0.7)
        lesions.append(Lesion((x, y, z), uniform(4, 12), factor))
    return Uptake(
        grey=white * uniform(2.6, 3.8),
        white=white,
        csf=uniform(0.3, 0.7),
        soft=uniform(1.0, 2.0),
        modes=tuple(modes),
        lesions=tuple(lesions),
    )


def activity_map(head: Head, uptake: Uptake) -> Volume:
    """Activity of a head, `sum of fraction x uptake`, times regional variation and lesions.

    Returns:
        (X, Y, Z) float32 in SUV, at least 0, on the grid of the head, modality "PT". The stack of
        axial slices that `simulate_pair` takes is `np.moveaxis(data, 2, 0)`.
    """
    tissue = (
        uptake.grey * head.grey
        + uptake.white * head.white
        + uptake.csf * head.csf
        + uptake.soft * (head.soft + 0.5 * head.bone)  # marrow
    )
    index = np.meshgrid(*(np.arange(n) for n in tissue.shape), indexing="ij", sparse=True)
    # The grid is aligned with the world (see Head), so each coordinate needs one axis alone.
    world = [head.affine[a, a] * index[a] + head.affine[a, 3] for a in range(3)]
    gain = np.ones(tissue.shape, dtype=np.float32)
    for mode in uptake.modes:
        angle = sum(k * x for k, x in zip(mode.wave, world, strict=True)) + mode.phase
        gain += (mode.amplitude * np.cos(angle)).astype(np.float32)
    voxel = float(head.affine[0, 0])
    for lesion in uptake.lesions:
        squares = sum((x - c) ** 2 for x, c in zip(world, lesion.centre, strict=True))
        # A voxel at the surface belongs to the sphere in part.
        part = np.clip((lesion.radius - np.sqrt(squares)) / voxel + 0.5, 0, 1)
        gain *= (1 + (lesion.factor - 1) * part).astype(np.float32)
    return Volume(np.maximum(tissue * gain, 0), head.affine, unit="SUV", modality="PT")


def attenuation_map(head: Head) -> Volume:
    """Linear attenuation at 511 keV of a head.

    Returns:
        (X, Y, Z) float32 in 1/mm, from 0 (air) to 0.0145 (skull), on the grid of the head.
    """
    soft = head.grey + head.white + head.csf + head.soft
    return Volume(MU_SOFT * soft + MU_BONE * head.bone, head.affine, unit="1/mm")


def _placed(volume: Volume, axes: str | None) -> NDArray[np.float64]:
    """Affine of the volume, with the directions that `axes` says."""
    if volume.affine is None or volume.spacing is None:
        raise OperatorError("volume has no affine; give Volume(data, affine) with spacing in mm")
    if axes is None:
        return volume.affine
    if len(axes) != 3 or sorted(_DIRECTIONS.get(a, (3, 0))[0] for a in axes) != [0, 1, 2]:
        raise OperatorError(f"axes is {axes!r}; give one of R L, one of A P, one of S I, as 'PIR'")
    affine = np.zeros((4, 4))
    for axis, letter in enumerate(axes):
        world, sign = _DIRECTIONS[letter]
        affine[world, axis] = sign * volume.spacing[axis]
    affine[:3, 3] = affine[:3, :3] @ ((1 - np.array(volume.data.shape)) / 2)
    affine[3, 3] = 1
    return affine


def _resampled(
    data: Array, affine: NDArray[np.float64], size: int, voxel: float
) -> tuple[Array, NDArray[np.float64]]:
    """Volume on a grid of half the voxel aligned with the world; affine of the whole voxels."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    half = np.array(data.shape) * 0.5
    centre = affine[:3, :3] @ (half - 0.5) + affine[:3, 3]
    slices = max(1, int(2 * (np.abs(affine[2, :3]) @ half) // voxel))
    shape = np.array([size, size, slices])
    fine = np.diag([voxel / 2] * 3 + [1.0])
    fine[:3, 3] = centre - voxel / 2 * (2 * shape - 1) / 2
    # A source finer than the grid is blurred to it; FWHM = 2.355 sigma.
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
    """Head without holes, and the level of air."""
    clipped = np.minimum(image, np.quantile(image, 0.99))
    air, tissue = _class_means(clipped, (0.2, 0.95)).tolist()
    bright = clipped > air + (tissue - air) / 4
    # Filled first: the scalp may be a shell apart from a brain that is larger than it.
    return _filled(_closed(_largest(_filled(bright)), 10 / voxel)), air


def _distance(head: Mask, voxel: float) -> Array:
    """Depth below the surface of the head in mm; the neck goes on below the volume."""
    padded = np.pad(head, ((1, 1), (1, 1), (0, 1)))
    depth = ndimage.distance_transform_edt(padded, sampling=voxel)
    return cast(Array, depth[1:-1, 1:-1, :-1])


def _brain_mask(
    signal: Array, head: Mask, depth: Array, voxel: float
) -> tuple[Mask, Array, NDArray[np.float64]]:
    """Brain with its sulci, the gain that flattens the signal, means of CSF, grey and white."""
    levels = np.flatnonzero(head.any((0, 1)))
    below_top = voxel * (levels.max(initial=0) - np.arange(head.shape[2]))
    core = (depth > _CORE) & (below_top < 100)
    if core.sum() * voxel**3 < 1e5:
        raise OperatorError(
            "no brain found: less than 0.1 litre lies deep in the largest bright object; give a T1 "
            "of a whole head with the right affine, or set axes"
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
    seed = _largest(_eroded(tissue, 4 / voxel))
    if not (seed & core).any():
        raise OperatorError(
            "no brain found: nothing is left deep in the head after an opening of 4 mm; give a T1, "
            "in which white matter is the brightest tissue of the brain"
        )
    brain = _closed(_dilated(seed, 6 / voxel) & tissue, 12 / voxel) & head
    brain = ndimage.binary_fill_holes(_dilated(brain, 2 / voxel) & (depth > 0.6 * _SCALP))
    means = _class_means(flat[brain], (0.05, 0.4, 0.8))  # with the cortex, which the core lacks
    # The lowest of the means holds sulci in part; ventricles are darker.
    means[0] = min(means[0], float(np.quantile(flat[core & brain], 0.01)))
    return brain, gain, means


def _brain_tissue(
    fine: Array, brain: Mask, means: NDArray[np.float64]
) -> tuple[Array, Array, Array]:
    """Fractions of CSF, grey and white matter in whole voxels, from intensities in half ones."""

    def rise(low: float, high: float) -> Array:  # the flat ends absorb noise
        part = (fine - low) / max(high - low, 1e-6)
        return _halved(np.clip((part - 0.2) / 0.6, 0, 1) * brain)

    tissue, white = rise(means[0], means[1]), rise(means[1], means[2])
    return _halved(brain.astype(np.float32)) - tissue, tissue - white, white


def _cropped(
    fractions: tuple[NDArray[Any], ...], brain: Mask, affine: NDArray[np.float64], voxel: float
) -> Head:
    """Fractions in the slices that hold brain, and 10 mm more on either side."""
    levels = np.flatnonzero(brain.any((0, 1)))
    margin = round(10 / voxel)
    first, last = max(int(levels[0]) - margin, 0), int(levels[-1]) + margin + 1
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 2] * first
    grey, white, csf, soft, bone = (f[..., first:last].astype(np.float32) for f in fractions)
    return Head(grey, white, csf, soft, bone, moved)


def _class_means(values: Array, start: tuple[float, ...]) -> NDArray[np.float64]:
    """Rising means of classes of intensity (k-means), from quantiles to start with."""
    means = np.quantile(values, start).astype(np.float64)
    for _ in range(20):
        labels = np.digitize(values, (means[1:] + means[:-1]) / 2)
        for k in range(len(means)):
            means[k] = values[labels == k].mean() if (labels == k).any() else means[k]
    return means


def _largest(mask: Mask) -> Mask:
    """Largest connected part; an empty mask stays empty."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return cast(Mask, (labels == sizes.argmax()) & mask)


def _eroded(mask: Mask, radius: float) -> Mask:
    return cast(Mask, ndimage.distance_transform_edt(mask) > radius)


def _dilated(mask: Mask, radius: float) -> Mask:
    if not mask.any():  # distances to nothing are not defined
        return mask
    return cast(Mask, ndimage.distance_transform_edt(~mask) <= radius)


def _closed(mask: Mask, radius: float) -> Mask:
    margin = math.ceil(radius) + 1
    grown = _dilated(np.pad(mask, margin), radius)
    inner = slice(margin, -margin)
    return _eroded(grown, radius)[inner, inner, inner]


def _filled(mask: Mask) -> Mask:
    """Mask without holes in any plane: sinuses and ears are open in 3-D, closed in most planes."""
    filled: Mask = mask.copy()
    for axis in range(3):
        for plane in np.moveaxis(filled, axis, 0):
            plane[...] = ndimage.binary_fill_holes(plane)
    return filled


def _smooth_inside(values: Array, mask: Mask, sigma: float) -> Array:
    """Gaussian mean of the values inside the mask, everywhere."""
    weights = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    sums = ndimage.gaussian_filter(np.where(mask, values, 0).astype(np.float32), sigma)
    return cast(Array, sums / np.maximum(weights, 1e-3))


def _halved(fine: Array) -> Array:
    """Means of blocks of 2 x 2 x 2."""
    x, y, z = (n // 2 for n in fine.shape)
    return cast(Array, fine.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5), dtype=np.float32))


def _doubled(coarse: NDArray[Any]) -> NDArray[Any]:
    return coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
