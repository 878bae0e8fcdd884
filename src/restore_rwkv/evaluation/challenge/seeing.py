"""Whether an observer can tell places with a lesion from places without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.challenge.lesions import Lesion, Values, height_of, spacing_of
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.evaluation.physical import (
    Detectability,
    hotelling_observer,
    laguerre_gauss_channels,
)
from restore_rwkv.io import Volume

Kind = tuple[str, float, float]
"""Method, contrast above 0 and radius."""

_CHANNELS = 4
_REACH = 2.0  # radii
_AROUND = 1.5  # radii: beyond is what surrounds a lesion
_SIDE = 33  # of a region, in samples
_SQUARE = 1.05


@dataclass(eq=False)
class SeenRegions:
    """Regions with and without lesions, for the d' of a channelised Hotelling observer.

    Of four places two are with a lesion and two without, so that no noise is in both classes, and
    in both classes half is brighter and half darker. The plane through what is around a place is
    taken away, and what is left is divided by the contrast that was planted there, so that all
    lesions look alike.
    Tissue differs from place to place as it does, which the observer does not know: noise and
    tissue both hide lesions. There are four Laguerre-Gauss channels as wide as the lesion, in the
    slice of its middle, which is sampled (linear) on 33 x 33 points over four radii, whatever the
    pixels of a scan.
    """

    present: dict[Kind, list[Values]] = field(default_factory=dict)
    absent: dict[Kind, list[Values]] = field(default_factory=dict)

    def add(
        self,
        kind: Kind,
        truth: Volume,
        images: tuple[Volume, Volume],
        lesions: Sequence[Lesion],
        axis: int,
    ) -> None:
        """Add the lesions of a scan.

        Args:
            kind: method, contrast and radius.
            truth: the scan without lesions.
            images: what the method made without lesions and with them.
            lesions: that were planted.
            axis: array axis across the slices.
        """
        sides = [side for other, side in enumerate(spacing_of(truth)) if other != axis]
        if max(sides) > _SQUARE * min(sides):
            return
        for number, lesion in enumerate(lesions):
            has = number // 2 % 2 == 0
            region = _region(images[has].data, axis, sides[0], lesion)
            region /= height_of(truth, lesion)
            into = self.present if has else self.absent
            into.setdefault(kind, []).append(region)

    def seen(self, kind: Kind) -> tuple[Detectability | None, str]:
        """Return d' with its 95 % interval, or None and the reason why there is none."""
        present, absent = self.present.get(kind, []), self.absent.get(kind, [])
        if not present or not absent:
            return None, "pixels are not square, or there is only one lesion"
        channels = laguerre_gauss_channels(_SIDE, _SIDE / _REACH, count=_CHANNELS)
        try:
            return hotelling_observer(np.stack(present), np.stack(absent), channels), ""
        except (NoScoreError, InputError) as error:
            return None, str(error).partition(";")[0]


def _region(data: NDArray[np.float32], axis: int, pixel: float, lesion: Lesion) -> Values:
    """Square of two radii around a lesion, in its slice, on a grid that is the same for all."""
    rows, columns = (lesion.centre[other] for other in range(3) if other != axis)
    step = 2 * _REACH * lesion.radius / (_SIDE - 1) / pixel
    offsets = (np.arange(_SIDE) - (_SIDE - 1) / 2) * step
    places = np.meshgrid(rows + offsets, columns + offsets, indexing="ij")
    image = np.moveaxis(data, axis, 0)[round(lesion.centre[axis])]
    values: Values = map_coordinates(image.astype(np.float64), places, order=1, mode="nearest")
    down, along = np.meshgrid(offsets, offsets, indexing="ij")
    around = np.hypot(down, along) > _AROUND * lesion.radius / pixel
    plane = np.stack([np.ones_like(down), down, along], axis=-1)
    fitted, *_ = np.linalg.lstsq(plane[around], values[around], rcond=None)
    values -= plane @ fitted
    return values
