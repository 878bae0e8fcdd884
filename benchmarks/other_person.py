"""`python -m benchmarks.other_person SCANS A B ...`: are these open scans of different people?

For each scan, the size of what is not air; for each pair, the best rigid registration. SCANS is a
folder made by `fetch_scans`, A and B are names of the table. The first scan is also registered to
itself as if it had been taken again: turned, shifted, with the slices of the second, and noise.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from restore_rwkv.data.open_scans import OPEN_SCANS, read_scan
from restore_rwkv.io import Volume

Array = NDArray[np.float64]

STEP = 5.0  # mm, grid of the registration
AGAIN = (6.0, -4.0, 5.0, 7.0, -5.0, 3.3)  # rotation in degrees and shift in mm of a second scan
NOISE = 0.03  # of the second scan, over the 95th percentile of what is not air
LIMITS = {"xatol": 0.1, "fatol": 1e-4, "maxfev": 500}  # of the search for a registration
TOP = 80.0  # mm below the highest voxel, in which sizes are compared


@dataclass(frozen=True)
class Body:
    """What is not air of a scan, on a grid of STEP mm.

    Attributes:
        values: (X, Y, Z), smoothed, 0 for air, 1 for the 95th percentile.
        seen: whether the scan covers the voxel.
        size: litres, and largest extents from side to side and from front to back in mm, of the
            uppermost `TOP` mm.
    """

    values: Array
    seen: NDArray[np.bool_]
    size: tuple[float, float, float]

    @property
    def inside(self) -> NDArray[np.bool_]:
        return self.values > 0.15


def body(volume: Volume) -> Body:
    """Resample a volume to the grid, the middle of its top `TOP` mm in the origin."""
    if volume.affine is None:
        raise SystemExit(f"{volume.name}: has no geometry")
    values = volume.data.astype(float)
    values = np.clip(values + 500, 0, 800) if volume.modality == "CT" else values
    foreground = values[values > values.max() / 20]
    values = np.clip(values / np.quantile(foreground, 0.95), 0, 1.5)
    corners = np.array(list(itertools.product(*((0, n - 1) for n in values.shape))))
    places = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    low, high = places.min(0), places.max(0)
    shape = np.ceil((high - low) / STEP).astype(int) + 1
    grid = np.moveaxis(np.indices(shape), 0, -1) * STEP + low
    inverse = np.linalg.inv(volume.affine)
    index = np.moveaxis(grid @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    smooth = ndimage.gaussian_filter(values, STEP / 2 / spacing)
    sampled = ndimage.map_coordinates(smooth, index, order=1, cval=0.0)
    seen = ndimage.map_coordinates(np.ones(values.shape), index, order=0, cval=0.0) > 0.5
    return Body(sampled, seen, _size(sampled))


def _size(values: Array) -> tuple[float, float, float]:
    """Litres and extents of the uppermost part of the largest object, its holes filled."""
    labels, _ = ndimage.label(values > 0.15)
    whole = labels == np.bincount(labels[labels > 0]).argmax()
    whole = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(whole, 2, 0)], 2)
    heights = np.flatnonzero(whole.any((0, 1)))
    top = whole[:, :, max(heights[-1] + 1 - round(TOP / STEP), 0) : heights[-1] + 1]
    wide, deep = (np.ptp(np.flatnonzero(top.any((1 - axis, 2)))) * STEP for axis in (0, 1))
    return float(top.sum()) * STEP**3 / 1e6, float(wide), float(deep)


def moved(one: Body, other: Body, words: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Values of `other` on the grid of `one`, after a rotation (degrees) and a shift (mm)."""
    turn = Rotation.from_euler("xyz", words[:3], degrees=True).as_matrix()
    centre, target = (np.array(ndimage.center_of_mass(x.inside)) for x in (one, other))
    offset = target - turn @ centre + words[3:] / STEP
    shape = one.values.shape
    values = ndimage.affine_transform(other.values, turn, offset, shape, order=1)
    seen = ndimage.affine_transform(other.seen.astype(float), turn, offset, shape, order=1) > 0.5
    return values, seen


def agreement(one: Body, other: Body, words: Array) -> tuple[float, float]:
    """Correlation and Dice overlap where both scans see, and something is there in either."""
    values, seen = moved(one, other, words)
    both = seen & one.seen
    inside = values > 0.15
    part = both & (one.inside | inside)
    if part.sum() < 0.4 * min(one.inside.sum(), other.inside.sum()):
        return -1.0, 0.0
    correlation = float(np.corrcoef(one.values[part], values[part])[0, 1])
    common = (one.inside & inside & both).sum()
    return correlation, float(2 * common / ((one.inside & both).sum() + (inside & both).sum()))


def registered(one: Body, other: Body) -> tuple[float, float]:
    """Correlation and Dice overlap at the best rigid registration of several starts."""

    def cost(words: Array) -> float:
        return -agreement(one, other, words)[0]

    reach = max(abs(one.values.shape[2] - other.values.shape[2]) * STEP / 2, 25)
    heights = np.linspace(-reach, reach, 7)
    starts = [np.array([pitch, 0, 0, 0, 0, z]) for pitch in (-15, 0, 15) for z in heights]
    starts.sort(key=cost)
    steps = np.vstack([np.zeros(6), np.diag([8.0, 8, 8, 10, 10, 10])])
    best = min(
        (
            optimize.minimize(
                cost,
                start,
                method="Nelder-Mead",
                options={"initial_simplex": start + steps, **LIMITS},
            )
            for start in starts[:2]
        ),
        key=lambda found: found.fun,
    )
    return agreement(one, other, best.x)


def again(volume: Volume, like: Volume) -> Volume:
    """The same person once more: turned and shifted, on the voxels of another scan, with noise."""
    if volume.affine is None or like.affine is None:
        raise SystemExit(f"{volume.name}: has no geometry")
    step = np.diag([*np.linalg.norm(like.affine[:3, :3], axis=0), 1.0])
    ratio = np.diag(step)[:3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    turn = Rotation.from_euler("xyz", AGAIN[:3], degrees=True).as_matrix()
    axes = np.abs(volume.affine[:3, :3]).argmax(0)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    matrix = np.diag(1 / spacing) @ turn @ np.diag(spacing * ratio)
    shape = [round(n / r) for n, r in zip(volume.data.shape, ratio, strict=True)]
    offset = (np.array(volume.data.shape) - 1) / 2 - matrix @ ((np.array(shape) - 1) / 2)
    offset += np.array(AGAIN[3:])[axes] / spacing
    values = ndimage.affine_transform(volume.data.astype(float), matrix, offset, shape, order=1)
    level = NOISE * np.quantile(values[values > values.max() / 20], 0.95)
    values += np.random.default_rng(0).normal(0, level, values.shape)
    affine = volume.affine @ np.diag([*ratio, 1.0])
    return Volume(values.astype(np.float32), affine, modality=volume.modality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path)
    parser.add_argument("names", nargs="+")
    words = parser.parse_args()
    table = {scan.name: scan for scan in OPEN_SCANS}
    volumes = {name: read_scan(table[name], words.scans) for name in words.names}
    bodies = {name: body(volume) for name, volume in volumes.items()}
    print(f"| scan | top {TOP:.0f} mm | side to side | front to back |\n|---|---|---|---|")
    for name, one in bodies.items():
        litres, wide, deep = one.size
        print(f"| {name} | {litres:.2f} l | {wide:.0f} mm | {deep:.0f} mm |")
    print("\n| pair | correlation | overlap |\n|---|---|---|")
    first, second = words.names[:2]
    twice = body(again(volumes[first], volumes[second]))
    pairs = [(first, f"{first} again", bodies[first], twice)]
    pairs += [(a, b, bodies[a], bodies[b]) for a, b in itertools.combinations(words.names, 2)]
    for a, b, one, other in pairs:
        correlation, overlap = registered(one, other)
        print(f"| {a}, {b} | {correlation:.3f} | {overlap:.3f} |", flush=True)


if __name__ == "__main__":
    main()
