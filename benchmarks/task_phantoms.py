"""Phantoms of `benchmarks.task_based`, and their images before and after restoration.

Each is restored as users do it, by `Restorer` with the shipped weights, told how much less dose the
input has. All are uniform but for what is measured, which no training image is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restore_rwkv import DegradeOptions, RestoreOptions, Restorer, Volume, degrade
from restore_rwkv.evaluation.physical import Sphere
from restore_rwkv.physics.ct import CTScanner, scan_noise
from restore_rwkv.physics.pet import simulate_pair

Images = NDArray[np.float64]

FULL, LOW, RESTORED = "full dose", "low dose", "restored"
SIZE, PIXEL = 384, 0.7  # of CT: pixels, mm
KERNEL = 0.5  # mm, sd of the blur of a soft kernel
KINDS = ((10.0, 5.0), (5.0, 3.0))  # of lesions: contrast in HU, radius in mm
CONTRASTS = (20.0, 60.0, 300.0)  # HU, of the inserts
INSERT_RADIUS, INSERT_MARGIN = 14.0, 10.0  # mm
SIDE, INSERT_SIDE = 40, 72  # pixels, of the regions around lesions and inserts
_FINER = 4  # samples per pixel and axis
_MIDDLE = (SIZE - 1) / 2

DIAMETERS = (10.0, 13.0, 17.0, 22.0, 28.0, 37.0)  # mm, of the spheres of NEMA NU 2
PET_SHAPE, VOXEL = (128, 128, 40), 2.0
HOT, WARM = 8.0, 2.0  # SUV

MR_SHAPE = 256  # pixels of 1 mm
MR_CONTRASTS = (0.1, 0.3, 1.0)  # of the tissue
MR_RADIUS, MR_MARGIN = 22.0, 18.0  # mm
_TISSUE = 600.0


def on_ring(radius: float, count: int, turn: float) -> list[tuple[float, float]]:
    """Places on a ring, in mm from the middle: rows, columns."""
    angles = turn + 2 * np.pi * np.arange(count) / count
    return [(float(radius * np.sin(angle)), float(radius * np.cos(angle))) for angle in angles]


def placed(place: tuple[float, float]) -> tuple[float, float]:
    """Row and column between pixels that is nearest to a place in mm, for regions of even side."""
    row, column = (np.floor(_MIDDLE + part / PIXEL) + 0.5 for part in place)
    return float(row), float(column)


LESIONS = [placed(place) for place in on_ring(85.0, 8, np.pi / 8)]
INSERTS = [placed(place) for place in on_ring(38.0, len(CONTRASTS), np.pi / 2)]


def disc(size: int, pixel: float, centre: tuple[float, float], radius: float) -> Images:
    """Share of each pixel that lies in a disc; centre in pixels, radius in mm."""
    axes = (((np.arange(size * _FINER) + 0.5) / _FINER - 0.5 - place) * pixel for place in centre)
    y, x = axes
    inside = (y[:, None] ** 2 + x**2 <= radius**2).astype(float)
    return inside.reshape(size, _FINER, size, _FINER).mean(axis=(1, 3))


def ct_truth(lesions: bool) -> Images:
    """Slice in HU: tissue of 50 HU in fat, inserts, and with `lesions` eight of `KINDS` in turn."""
    middle = (_MIDDLE, _MIDDLE)
    image = -1000 + 910 * disc(SIZE, PIXEL, middle, 125.0) + 140 * disc(SIZE, PIXEL, middle, 113.0)
    for contrast, centre in zip(CONTRASTS, INSERTS, strict=True):
        image += contrast * disc(SIZE, PIXEL, centre, INSERT_RADIUS)
    for index, centre in enumerate(LESIONS if lesions else ()):
        contrast, radius = KINDS[index % len(KINDS)]
        image += contrast * disc(SIZE, PIXEL, centre, radius)
    return gaussian_filter(image, KERNEL / PIXEL)


def ct_images(
    truth: Images, count: int, seed: int, restorer: Restorer
) -> dict[str, NDArray[np.float32]]:
    """Realisations (N, H, W) in HU by name: full dose, a quarter of it, and restored.

    Noise of the full dose, and of its reduction by `degrade`, come from different seeds.
    """
    slices = torch.from_numpy(np.repeat(truth[None], count, axis=0)).float()
    generator = torch.Generator().manual_seed(2 * seed + 1)
    noise = scan_noise(slices, (PIXEL, PIXEL), scanner=CTScanner(), generator=generator)
    data = np.ascontiguousarray(np.moveaxis((slices + noise).numpy(), 0, 2))
    full = Volume(data, np.diag([PIXEL, PIXEL, 5.0, 1.0]), "HU", "CT")
    options = DegradeOptions(photons=CTScanner().photons)
    low = degrade(full, "ct-denoise", options, seed=2 * seed + 1_000_000).low
    restored = restorer.run(low, RestoreOptions(factor=4.0)).volume
    volumes = {FULL: full, LOW: low, RESTORED: restored}
    return {name: np.moveaxis(volume.data, 2, 0).copy() for name, volume in volumes.items()}


def cut(
    images: NDArray[np.floating], places: Sequence[tuple[float, float]], side: int
) -> NDArray[np.float32]:
    """Square regions (N, places, side, side) around places between pixels; `side` is even."""
    corners = [
        (int(row + 0.5) - side // 2, int(column + 0.5) - side // 2) for row, column in places
    ]
    parts = [images[:, row : row + side, column : column + side] for row, column in corners]
    return np.stack(parts, axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class PETPhantom:
    """Activity of a cylinder with hot spheres.

    Attributes:
        activity: (X, Y, Z) in SUV.
        mu: attenuation in 1/mm.
        background: where it is warm, away from the spheres and the surface.
        spheres: the spheres.
    """

    activity: Images
    mu: Images
    background: NDArray[np.bool_]
    spheres: Sequence[Sphere]


def add_ball(
    image: Images, centre: tuple[float, float, float], radius: float, value: float
) -> None:
    """Add a value to the share of voxels that lies in a ball; centre in voxels, radius in mm."""
    reach = int(radius / VOXEL) + 2
    box = tuple(slice(round(place) - reach, round(place) + reach + 1) for place in centre)
    count = (2 * reach + 1) * _FINER
    x, y, z = np.meshgrid(
        *(
            ((np.arange(count) + 0.5) / _FINER - 0.5 - reach + round(place) - place) * VOXEL
            for place in centre
        ),
        indexing="ij",
        sparse=True,
    )
    inside = (x**2 + y**2 + z**2 <= radius**2).astype(float)
    shape = [part for side in inside.shape for part in (side // _FINER, _FINER)]
    image[box] += value * inside.reshape(shape).mean(axis=(1, 3, 5))


def pet_phantom() -> PETPhantom:
    """Make the spheres of NEMA NU 2, all hot, four times as active as a cylinder of 190 mm."""
    middle = [(count - 1) / 2 for count in PET_SHAPE]
    share = np.repeat(
        disc(PET_SHAPE[0], VOXEL, (middle[0], middle[1]), 95.0)[..., None], PET_SHAPE[2], 2
    )
    x, y, z = np.meshgrid(
        *((np.arange(n) - m) * VOXEL for n, m in zip(PET_SHAPE, middle, strict=True)),
        indexing="ij",
        sparse=True,
    )
    activity, away = WARM * share, np.broadcast_to(np.hypot(x, y) <= 85.0, PET_SHAPE).copy()
    spheres = []
    for (row, column), diameter in zip(on_ring(57.2, 6, 0.0), DIAMETERS, strict=True):
        centre = (middle[0] + row / VOXEL, middle[1] + column / VOXEL, middle[2])
        add_ball(activity, centre, diameter / 2, HOT - WARM)
        away &= np.sqrt((x - row) ** 2 + (y - column) ** 2 + z**2) > diameter / 2 + 12
        spheres.append(Sphere(centre=centre, diameter_mm=diameter))
    return PETPhantom(activity, 0.0096 * share, away, spheres)


def pet_images(phantom: PETPhantom, seed: int, restorer: Restorer) -> Mapping[str, Images]:
    """One realisation in SUV by name: full dose, a twelfth of it, and restored."""
    stacks = [
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(part, 2, 0))).float()
        for part in (phantom.activity, phantom.mu)
    ]
    pair = simulate_pair(*stacks, generator=torch.Generator().manual_seed(seed))
    full, low = (
        Volume(
            np.ascontiguousarray(np.moveaxis(image.numpy(), 0, 2)),
            np.diag([VOXEL, VOXEL, VOXEL, 1.0]),
            "SUV",
            "PT",
        )
        for image in pair
    )
    restored = restorer.run(low, RestoreOptions(factor=12.0)).volume
    named = {FULL: full, LOW: low, RESTORED: restored}
    return {name: volume.data.astype(np.float64) for name, volume in named.items()}


def mr_images(
    count: int, restorer: Restorer
) -> tuple[list[list[tuple[float, float]]], dict[str, Images]]:
    """Slices (N, H, W) by name: full resolution, a quarter of it per axis, and restored.

    Returns:
        For each slice the centres of the inserts in pixels, which differ by parts of a pixel, and
        the images.
    """
    middle, generator = (MR_SHAPE - 1) / 2, np.random.default_rng(0)
    centres, slices = [], []
    for _ in range(count):
        shift = generator.uniform(-0.5, 0.5, 2)
        image = _TISSUE * disc(MR_SHAPE, 1.0, (middle, middle), 105.0)
        places = [
            (float(middle + row + shift[0]), float(middle + column + shift[1]))
            for row, column in on_ring(55.0, len(MR_CONTRASTS), np.pi / 2)
        ]
        for contrast, place in zip(MR_CONTRASTS, places, strict=True):
            image += contrast * _TISSUE * disc(MR_SHAPE, 1.0, place, MR_RADIUS)
        centres.append(places)
        slices.append(image)
    data = np.ascontiguousarray(np.moveaxis(np.stack(slices), 0, 2))
    full = Volume(data, np.diag([1.0, 1.0, 5.0, 1.0]), "a.u.", "MR")
    low = degrade(full, "mri-sr").low
    named = {"full resolution": full, "low resolution": low, RESTORED: restorer.run(low).volume}
    return centres, {
        name: np.moveaxis(volume.data, 2, 0).astype(np.float64) for name, volume in named.items()
    }
