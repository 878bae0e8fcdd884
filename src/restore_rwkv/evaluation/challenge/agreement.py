"""Share of the patches of restored scans that do not agree with the truth (sFRC)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from restore_rwkv.evaluation.challenge.lesions import Values, pixel_of, spacing_of
from restore_rwkv.evaluation.challenge.results import Rate
from restore_rwkv.evaluation.challenge.sites import tissue_of
from restore_rwkv.evaluation.physical.ring_correlation import scan_ring_correlation
from restore_rwkv.io import Volume
from restore_rwkv.tasks import Task, slice_axis

_PATCH = 45.0  # mm: 64 pixels of 0.7 mm, as in the paper
_LEAST = 16  # pixels
_HALF = 0.3525  # cycles per radius: 2 J1(2 pi f r) / (2 pi f r) = 1 / 2
_SQUARE = 1.05


@dataclass(eq=False)
class Agreement:
    """Agreement of patches by method, with a threshold that follows from the size of lesions.

    The spectrum of a disc of radius r has fallen to one half at 0.35 / r. A patch whose correlation
    with the truth falls below 0.5 before that may show other things of this size than the truth
    does.

    Attributes:
        task: task of the scans.
        radius: of the smallest lesion in mm.
    """

    task: Task
    radius: float
    found: dict[str, list[Values]] = field(default_factory=dict)

    @property
    def frequency(self) -> float:
        """Frequency in cycles per mm up to which patches have to agree."""
        return _HALF / self.radius

    def add(self, truth: Volume, images: Mapping[str, Volume]) -> None:
        """Compare images of a scan with the truth, where at least half of a patch is tissue."""
        axis, pixel = slice_axis(truth, self.task), pixel_of(truth)
        sides = [side for other, side in enumerate(spacing_of(truth)) if other != axis]
        side = max(2 * round(_PATCH / pixel / 2), _LEAST)
        if max(sides) > _SQUARE * min(sides) or min(truth.slices(axis).shape[1:]) < side:
            return
        within = np.moveaxis(tissue_of(truth, self.task), axis, 0)
        for method, image in images.items():
            found = scan_ring_correlation(
                image.slices(axis), truth.slices(axis), pixel, side=side, within=within
            )
            self.found.setdefault(method, []).append(found.agreement)

    def of(self, method: str) -> tuple[Rate, float | None]:
        """Return how many patches of a method are flagged, and the median of their agreement."""
        agreement = np.concatenate([np.zeros(0), *self.found.get(method, [])])
        median = float(np.median(agreement)) if len(agreement) else None
        return Rate.of(agreement < self.frequency), median
