"""Mean uptake of regions of a PET scan, before and after, against its simulated noise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.evaluation.fidelity.pet_noise import SimulatedNoise
from restore_rwkv.evaluation.fidelity.results import RestoredPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALONG = 4  # blocks along each axis
_FEWEST = 100  # voxels of a region


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """Blocks of the foreground: at most 4 x 4 x 4, each with 100 voxels of it or more.

    Attributes:
        masks: where each lies: a block, and the foreground in it.
        shift: change of the mean of each in %, (R,).
        noise: simulated standard deviation of the mean of each in the scan, in %, (R,).
    """

    masks: tuple[tuple[tuple[slice, ...], NDArray[np.bool_]], ...]
    shift: NDArray[np.float64]
    noise: NDArray[np.float64]

    @classmethod
    def of(cls, pair: RestoredPair, noise: SimulatedNoise) -> Regions:
        """Measure the regions of a pair.

        The mean over the area of a slice has the variance over the realisations there; slices are
        independent, so the mean over n of them has 1/n of it, before the axial filter, which hardly
        changes a sum over many.
        """
        masks, shift, spread = [], [], []
        for block in _blocks(noise.foreground):
            mask = noise.foreground[block]
            sd = _sd_of_mean(noise, block, mask)
            before, after = (
                float(v.data[block][mask].mean(dtype=np.float64)) for v in (pair.before, pair.after)
            )
            if sd is None or not before > 0:
                continue
            masks.append((block, mask))
            shift.append(100 * (after / before - 1))
            spread.append(100 * sd / before)
        return cls(masks=tuple(masks), shift=np.array(shift), noise=np.array(spread))

    def painted(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a map (X, Y, Z) with the shift of each region, 0 elsewhere."""
        values = np.zeros(shape, dtype=np.float32)
        for (block, mask), shift in zip(self.masks, self.shift, strict=True):
            values[block][mask] = shift
        return values


def _blocks(foreground: NDArray[np.bool_]) -> Iterator[tuple[slice, ...]]:
    """Blocks of equal sides in the bounding box of the foreground."""
    edges = []
    for axis in range(3):
        places = np.flatnonzero(foreground.any(axis=tuple({0, 1, 2} - {axis})))
        cuts = np.linspace(places[0], places[-1] + 1, _ALONG + 1).round().astype(int)
        edges.append([slice(a, b) for a, b in itertools.pairwise(cuts)])
    for first in edges[0]:
        for second in edges[1]:
            for third in edges[2]:
                if foreground[first, second, third].sum() >= _FEWEST:
                    yield first, second, third


def _sd_of_mean(
    noise: SimulatedNoise, block: tuple[slice, ...], mask: NDArray[np.bool_]
) -> float | None:
    """Standard deviation of the mean of a region; None where no slice of it was simulated."""
    span = block[noise.axis]
    rows, columns = (part for axis, part in enumerate(block) if axis != noise.axis)
    areas = np.moveaxis(mask, noise.axis, 0)
    products = []  # variance of the mean of a slice times its area, alike for all areas
    for number, place in enumerate(noise.chosen):
        if not span.start <= place < span.stop:
            continue
        area = areas[place - span.start]
        if area.any():
            means = noise.images[:, number, rows, columns][:, area].mean(axis=1)
            products.append(float(means.var(ddof=1)) * int(area.sum()))
    if not products:
        return None
    return float(np.sqrt(np.mean(products) / mask.sum()))
