"""A scan and its restored form, and what a report says about them.

The page, the files and the record are made from these plain values alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from restore_rwkv.io import Volume
    from restore_rwkv.restoration.fit import Fit
    from restore_rwkv.restoration.uncertainty import Spread
    from restore_rwkv.tasks import AxisFactor, ReportCalibration, Task

Support = Literal["supported", "look", "unsupported", "unknown"]
"""Whether a figure speaks for the image; "look" where one should, "unknown" without a figure."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredPair:
    """A scan and its restored form, with what is known of how it was made.

    Attributes:
        before: the scan that was restored, on the grid of `after` and in its unit.
        after: the restored scan, by this package or anything else.
        task: what it was restored for.
        axis: array axis across the slices.
        factor: reduction of the measurement; None for that of the task (MRI), or to be measured
            from the noise (CT, PET).
        signed: MRI: whether the scan has signs of its own; otherwise it is a magnitude.
        tile: (rows, columns) of the tiles that slices were cut into; None for whole slices, or
            where it is not known.
        fit: whether the scan is what the weights are for; None without weights.
        calibration: of the intervals and places, as the weights have it; None where they have none.
        spread: of the restored values, from which intervals follow; None where not asked for.
        provenance: JSON values: names and digests of the files, weights, versions, command.
        seed: of the simulated noise.
    """

    before: Volume
    after: Volume
    task: Task
    axis: int
    factor: AxisFactor | None = None
    signed: bool = False
    tile: tuple[int, int] | None = None
    fit: Fit | None = None
    calibration: ReportCalibration | None = None
    spread: Spread | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a report.

    Attributes:
        name: short name in files, such as "consistency" or "shift_water".
        title: its name in sentences, such as "disagreement with the measured k-space".
        value: the number; None where it cannot be had.
        unit: of the value, such as "HU" or "%"; "" for a number without unit.
        support: whether it speaks for the image.
        expected: in words, what a faithful image has, such as "below 0.01" or "within ±2 HU".
        says: one sentence in plain words about what this value means here.
        blind_to: one sentence about what the figure cannot see.
        reason: why there is no value; "" where there is one.
    """

    name: str
    title: str
    value: float | None
    unit: str
    support: Support
    expected: str
    says: str
    blind_to: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class FidelityMap:
    """A map on the grid of the restored image.

    Attributes:
        name: short name in files, such as "removed", "inferred" or "interval".
        title: its name in sentences, such as "structure removed or added".
        volume: its values.
        unit: of the values; "" for a number without unit.
        limit: largest absolute value that a display needs to tell apart.
        threshold: absolute value from which a place deserves a look; None where there is none.
        signed: whether values below 0 have a meaning of their own.
        meaning: one sentence about what a value says.
        blind_to: one sentence about what the map cannot see.
    """

    name: str
    title: str
    volume: Volume
    unit: str
    limit: float
    threshold: float | None
    signed: bool
    meaning: str
    blind_to: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place to look at.

    Attributes:
        index: voxel (i, j, k) in array order.
        world: the same in mm, RAS+; None without geometry.
        slice: index of its slice across the axis of the pair.
        score: value of the detector there, as in its map; above 0 where something was removed,
            below 0 where something was added.
        flagged: whether the score is beyond the threshold of the map.
        radius_mm: that the detector is matched to; in pixels without geometry.
        before, after: mean of the image in a disc of that radius, in its unit.
        says: one sentence in plain words.
    """

    index: tuple[int, int, int]
    world: tuple[float, float, float] | None
    slice: int
    score: float
    flagged: bool
    radius_mm: float
    before: float
    after: float
    says: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Fidelity:
    """What a report says.

    Attributes:
        pair: what it is about.
        support: the worst of the figures and places; "unknown" where none could be measured.
        verdict: two or three sentences in plain words.
        figures: numbers, the most important first.
        maps: on the grid of the restored image; that of the detector first.
        places: at most five places to look at first, those with the largest scores.
        places_by: how they were found, their threshold, and how often a faithful image has a
            flagged place, in one sentence.
        seconds: that it took.
    """

    pair: RestoredPair
    support: Support
    verdict: str
    figures: tuple[Figure, ...]
    maps: tuple[FidelityMap, ...]
    places: tuple[Place, ...]
    places_by: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return what the record keeps, as plain JSON values: all but images."""
        return {
            "support": self.support,
            "verdict": self.verdict,
            "figures": {
                each.name: {
                    "value": each.value,
                    "unit": each.unit,
                    "support": each.support,
                    "reason": each.reason,
                }
                for each in self.figures
            },
            "maps": [each.name for each in self.maps],
            "places": [
                {
                    "index": list(place.index),
                    "world": None if place.world is None else list(place.world),
                    "score": place.score,
                    "flagged": place.flagged,
                }
                for place in self.places
            ],
            "places_by": self.places_by,
            "seconds": self.seconds,
        }
