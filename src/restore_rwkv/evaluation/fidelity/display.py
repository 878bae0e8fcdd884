"""How the images and maps of a report are laid out, windowed and coloured on its page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.report.images import COLD, WARM, grey, limit_of
from restore_rwkv.evaluation.study.panels import windows_of
from restore_rwkv.io.views import View, view_of

if TYPE_CHECKING:
    from restore_rwkv.evaluation.fidelity.results import FidelityMap, Place, RestoredPair
    from restore_rwkv.io import Volume

UNSIGNED = np.array([235, 100, 235])
"""Red, green and blue of maps that have no sign."""

EDGE = np.array([255, 225, 0])
"""Red, green and blue of the line around values beyond the threshold of a map."""

_OPAQUE = 0.85  # of the colour at the limit of a map
_LOOKED_AT = 9  # slices from which windows and the scale of differences are

Image = NDArray[np.float32]
Colours = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Display:
    """How the slices of a pair are shown.

    Attributes:
        pair: the pair.
        view: layout of its slices.
        pixel_mm: distance of displayed rows and columns; None without geometry.
        windows: what black and white stand for, by name; the first is the one to begin with.
        limit: end of the colour scale of differences.
    """

    pair: RestoredPair
    view: View
    pixel_mm: tuple[float, float] | None
    windows: Mapping[str, tuple[float, float]]
    limit: float

    @property
    def count(self) -> int:
        """Number of slices."""
        return len(self.pair.after.slices(self.pair.axis))

    @property
    def spacing(self) -> tuple[float, float]:
        """Distance of displayed rows and columns in mm, or 1 where it is not known."""
        return self.pixel_mm or (1.0, 1.0)

    def shown(self, volume: Volume, index: int) -> Image:
        """Return a slice (H, W) as it is displayed."""
        laid_out = self.view.laid_out(volume.slices(self.pair.axis)[index])
        return np.array(laid_out, dtype=np.float32, order="C")

    def place(self, place: Place) -> tuple[int, int]:
        """Return the displayed row and column of a place in its slice."""
        row, column = (n for axis, n in enumerate(place.index) if axis != self.pair.axis)
        height, width = self.pair.after.slices(self.pair.axis).shape[1:]
        return self.view.place(row, column, (height, width))

    def window_for(self, *values: float) -> str:
        """Return the name of the first window in which values are neither black nor white."""
        for name, ends in self.windows.items():
            low, high = min(ends), max(ends)
            if all(low <= value <= high for value in values):
                return name
        return next(iter(self.windows))

    @property
    def decimals(self) -> int:
        """Digits after the point that values of the images are given with."""
        black, white = next(iter(self.windows.values()))
        return max(0, 3 - math.floor(math.log10(abs(white - black) or 1.0)))


def display_of(pair: RestoredPair) -> Display:
    """Return how a pair is shown: one layout, and the same windows on all of its slices."""
    view = view_of(pair.after, pair.axis)
    before, after = pair.before.slices(pair.axis), pair.after.slices(pair.axis)
    chosen = sorted(set(np.linspace(0, len(after) - 1, _LOOKED_AT).round().astype(int).tolist()))
    height, width = after.shape[2:0:-1] if view.swapped else after.shape[1:]
    sides = (view.sides[0] / height, view.sides[1] / width)
    windows = windows_of(pair.task, after[chosen])
    differences = [after[index] - before[index] for index in chosen]
    return Display(
        pair=pair,
        view=view,
        pixel_mm=sides if pair.after.affine is not None else None,
        windows=windows,
        limit=limit_of(differences, list(windows.values())),
    )


def limit_of_map(shown: FidelityMap) -> float:
    """Return the end of the colour scale of a map, above 0."""
    return shown.limit if 0 < shown.limit < math.inf else 1.0


def overlaid(
    image: Image, values: Image, *, window: tuple[float, float], of: FidelityMap
) -> Colours:
    """Return a map over a slice in colours (H, W, 3).

    Values at the limit are blue below 0 and orange above, or violet in a map without sign; the
    nearer to 0, the more of the image shows through. A yellow line goes around those beyond the
    threshold.

    Args:
        image: slice (H, W) of the restored image.
        values: the same slice of the map.
        window: what is black and white in the image.
        of: the map.
    """
    share = np.clip(values / limit_of_map(of), -1 if of.signed else 0, 1)[..., None]
    colour = np.where(share < 0, COLD, WARM) if of.signed else UNSIGNED
    alpha = _OPAQUE * np.abs(share)
    mixed = grey(image, window) * (1 - alpha) + colour * alpha
    if of.threshold is not None:
        mixed[_edges(np.abs(values) >= of.threshold)] = EDGE
    return np.asarray(mixed + 0.5).astype(np.uint8)


def _edges(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of regions that have a neighbour outside."""
    around = np.pad(inside, 1, mode="edge")
    kept = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(inside & ~kept)
